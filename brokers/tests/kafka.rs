//! Kafka through the conformance suite, and what only Kafka can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::timeout;
use windlass_brokers::conformance::{Case, Fixture, distinct, messages, within};
use windlass_core::{Broker, BrokerError, Lane, Message, Priorities, Priority};

struct Kafka;

fn url() -> String {
    std::env::var("WINDLASS_TEST_KAFKA_URL")
        .expect("WINDLASS_TEST_KAFKA_URL is not set: run scripts/test, which starts the servers")
}

/// Settings for a client past the driver.
fn raw() -> ClientConfig {
    let url = url();
    let (login, rest) = url.strip_prefix("kafka://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", rest.split_once('?').map_or(rest, |(hosts, _)| hosts))
        .set("security.protocol", "sasl_plaintext")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", user)
        .set("sasl.password", password);
    config
}

#[async_trait]
impl Fixture for Kafka {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let producer: FutureProducer = raw().create().unwrap();
        let topic = lane.to_string();
        let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(bytes);
        producer.send(record, Timeout::Never).await.unwrap();
        true
    }
}

windlass_brokers::broker_conformance!(Kafka);

fn admin() -> AdminClient<DefaultClientContext> {
    raw().create().unwrap()
}

/// Makes the lane's topic past the driver.
async fn make(admin: &AdminClient<DefaultClientContext>, lane: &Lane, settings: &[(&str, &str)]) {
    let name = lane.to_string();
    let mut topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    topic.config.extend(settings);
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

/// The URL for another user.
fn url_as(user: &str, password: &str) -> String {
    let url = url();
    format!("kafka://{user}:{password}@{}", url.split_once('@').unwrap().1)
}

fn nobody() -> Lane {
    Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal }
}

fn is_config(error: &BrokerError) {
    assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("broker_url"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_for_the_operator() {
    let broker = windlass_brokers::open(&url_as("windlass", "s3cret")).await.unwrap();
    let start = Instant::now();
    let (lanes, batch) = ([nobody()], messages(&nobody(), 1));
    let (ping, mut publish, subscribe) = tokio::join!(
        broker.ping(),
        broker.publish(&batch),
        broker.subscribe(&lanes, 1, Priorities::Weighted)
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for result in [ping, publish.remove(0), subscribe.map(drop)] {
        let error = result.unwrap_err();
        is_config(&error);
        assert!(error.to_string().contains("windlass"), "the user is named: {error}");
        assert!(!format!("{error} {error:?} {broker:?}").contains("s3cret"));
    }
    broker.close().await;
}

#[tokio::test]
async fn missing_credentials_are_for_the_operator() {
    let url = url();
    let url = format!("kafka://{}", url.split_once('@').unwrap().1);
    let broker = windlass_brokers::open(&url).await.unwrap();
    let start = Instant::now();
    let (lanes, batch) = ([nobody()], messages(&nobody(), 1));
    let (ping, mut publish, subscribe) = tokio::join!(
        broker.ping(),
        broker.publish(&batch),
        broker.subscribe(&lanes, 1, Priorities::Weighted)
    );
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for result in [ping, publish.remove(0), subscribe.map(drop)] {
        let error = result.unwrap_err();
        is_config(&error);
        assert!(error.to_string().contains("wants a login (PLAIN)"), "{error}");
    }
    broker.close().await;
}

#[tokio::test]
async fn missing_rights_are_for_the_operator() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let broker = windlass_brokers::open(&url_as("nobody", "nobody")).await.unwrap();
        let start = Instant::now();
        let publish = broker.publish(&messages(&case.lane(), 1)).await.remove(0);
        let subscribe = broker.subscribe(&[case.lane()], 1, Priorities::Weighted).await.map(drop);
        let depth = broker.depth(&case.lane()).await.map(drop);
        for result in [publish, subscribe, depth] {
            let error = result.unwrap_err();
            is_config(&error);
            assert!(error.to_string().contains("lacks a right"), "{error}");
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        broker.close().await;
    })
    .await;
}

#[tokio::test]
async fn brokers_that_are_down_fail_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for host in [unused.to_string(), "no-such-host.invalid:9092".into()] {
        let broker = windlass_brokers::open(&format!("kafka://{host}")).await.unwrap();
        let batch = messages(&nobody(), 3);
        let lanes = [nobody()];
        let start = Instant::now();
        let receive = async {
            let mut subscription = broker.subscribe(&lanes, 10, Priorities::Weighted).await.unwrap();
            assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
            timeout(Duration::from_secs(7), subscription.receive(1)).await.expect("a report").unwrap_err()
        };
        let others = async {
            let (publish, ping, depth) =
                tokio::join!(broker.publish(&batch), broker.ping(), broker.depth(&lanes[0]));
            assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
            assert_eq!(publish.len(), 3);
            let others = [ping.unwrap_err(), depth.unwrap_err()];
            publish.into_iter().map(Result::unwrap_err).chain(others).collect::<Vec<_>>()
        };
        let (receive, others) = tokio::join!(receive, others);
        for error in others.into_iter().chain([receive]) {
            assert!(error.retryable(), "{error:?}");
            assert!(error.to_string().contains(host.split_once(':').unwrap().0), "{error}");
        }
        broker.close().await;
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_at_once() {
    for (query, name) in [
        ("no.such.setting=s3cret", "no.such.setting"),
        ("linger.ms=s3cret", "linger.ms"),
        ("session.timeout.ms=s3cret", "session.timeout.ms"),
        ("enable.auto.commit=true", "enable.auto.commit"),
    ] {
        let error = windlass_brokers::open(&format!("kafka://localhost?{query}")).await.unwrap_err();
        is_config(&error);
        assert!(error.to_string().contains(name), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
}

/// More copies than there are brokers.
#[tokio::test]
async fn a_lane_that_cannot_be_made_is_for_the_operator() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let broker = windlass_brokers::open(&format!("{}&replication=3", url())).await.unwrap();
        let publish = broker.publish(&messages(&case.lane(), 1)).await.remove(0);
        let subscribe = broker.subscribe(&[case.lane()], 1, Priorities::Weighted).await.map(drop);
        for error in [publish.unwrap_err(), subscribe.unwrap_err()] {
            is_config(&error);
            assert!(error.to_string().contains("replication=3"), "{error}");
        }
        broker.close().await;
    })
    .await;
}

/// A topic that somebody else made under a lane's name concerns that lane alone.
#[tokio::test]
async fn a_topic_with_settings_that_do_not_fit_is_for_the_operator() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let taken = case.lane_at(Priority::High);
        make(&admin(), &taken, &[("max.message.bytes", "10")]).await;
        let mut batch = messages(&case.lane(), 3);
        batch.splice(1..1, messages(&taken, 1));
        let answers = case.broker.publish(&batch).await;
        let failed: Vec<usize> = (0..4).filter(|&index| answers[index].is_err()).collect();
        assert_eq!(failed, [1], "answers come in the order of the messages");
        let error = answers.into_iter().nth(1).unwrap().unwrap_err();
        is_config(&error);
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        case.depth_becomes(&case.lane(), 3).await;
    })
    .await;
}

/// A topic deleted and made anew by somebody else begins again at offset 0: neither its publisher nor its subscription
/// may go on from where they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_made_anew_behind_the_driver_is_read_from_its_start() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let mut subscription = case.subscribe(50).await;
        case.publish(20).await;
        let mut seen = 0;
        while seen < 20 {
            let found = within("messages", subscription.receive(20)).await.unwrap();
            seen += found.len();
            subscription.ack(&found.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
        }
        let (admin, name) = (admin(), case.lane().to_string());
        admin.delete_topics(&[&name], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
        make(&admin, &case.lane(), &[]).await;
        let sent = distinct(&case.publish(40).await);
        let mut found = HashSet::new();
        while !found.is_superset(&sent) {
            let some = within("the new messages", subscription.receive(50)).await.unwrap();
            subscription.ack(&some.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
            found.extend(some.iter().map(|delivery| delivery.message.job_id));
        }
    })
    .await;
}

/// P7: a worker that holds a message, and has room for no other, is not taken for dead by its group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_worker_stays_in_its_group() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let url = format!("{}&session.timeout.ms=6000&max.poll.interval.ms=6000", url());
        let broker = windlass_brokers::open(&url).await.unwrap();
        let mut subscription = broker.subscribe(&[case.lane()], 1, Priorities::Weighted).await.unwrap();
        case.publish(2).await;
        let first = within("a message", subscription.receive(1)).await.unwrap();
        // Twice what the group would put up with.
        assert!(
            timeout(Duration::from_secs(12), subscription.receive(1)).await.is_err(),
            "there was no room"
        );
        subscription.ack(&[first[0].tag]).await.unwrap();
        let second = within("the other", subscription.receive(1)).await.unwrap();
        assert_ne!(first[0].message.job_id, second[0].message.job_id);
        subscription.ack(&[second[0].tag]).await.unwrap();
        case.depth_becomes(&case.lane(), 0).await;
        broker.close().await;
    })
    .await;
}

/// The port speaks no TLS.
#[cfg(feature = "kafka-tls")]
#[tokio::test]
async fn a_failed_handshake_is_for_the_operator() {
    let broker = windlass_brokers::open(&format!("{}&security.protocol=sasl_ssl", url())).await.unwrap();
    let batch = messages(&nobody(), 1);
    let (ping, mut publish) = tokio::join!(broker.ping(), broker.publish(&batch));
    for error in [ping.unwrap_err(), publish.remove(0).unwrap_err()] {
        is_config(&error);
    }
    broker.close().await;
}

/// The messages of one ordering key are in one partition, also those that were given back; others are spread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_an_ordering_key_share_a_partition() {
    Case::run(&Kafka, async |case: Case<'_>| {
        let mut sent = messages(&case.lane(), 40);
        for message in &mut sent[..20] {
            message.ordering_key = Some("account/1".parse().unwrap());
        }
        case.publish_all(&sent).await;
        let mut subscription = case.subscribe(100).await;
        let mut found = Vec::new();
        while found.len() < 40 {
            found.extend(within("messages", subscription.receive(100)).await.unwrap());
        }
        let tags: Vec<_> = found.iter().map(|delivery| delivery.tag).collect();
        subscription.release(&tags).await.unwrap();
        drop(subscription);
        let (ordered, others) = partitions(&case.lane(), &sent[..20], 80).await;
        assert_eq!(ordered.len(), 1, "{ordered:?}");
        assert!(others.len() > 1, "{others:?}");
    })
    .await;
}

/// Where the first `count` messages of the lane are: those of the jobs that `ordered` announce, and others.
async fn partitions(lane: &Lane, ordered: &[Message], count: usize) -> (HashSet<i32>, HashSet<i32>) {
    let consumer: StreamConsumer = raw().set("group.id", format!("{lane}-test")).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(&lane.to_string()), Duration::from_secs(10)).unwrap();
    let mut all = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        all.add_partition_offset(&lane.to_string(), partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let ordered = distinct(ordered);
    let (mut theirs, mut others) = (HashSet::new(), HashSet::new());
    for _ in 0..count {
        let record = within("a record", consumer.recv()).await.unwrap();
        let message = Message::decode(record.payload().unwrap()).unwrap();
        if ordered.contains(&message.job_id) { &mut theirs } else { &mut others }.insert(record.partition());
    }
    (theirs, others)
}
