//! RabbitMQ through the conformance suite, and what only RabbitMQ can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::Arc;

use async_trait::async_trait;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use windlass_brokers::conformance::{Case, Fixture, messages, within};
use windlass_core::{Broker, BrokerError, Lane, Priority};

struct RabbitMq;

fn url() -> String {
    std::env::var("WINDLASS_TEST_RABBITMQ_URL")
        .expect("WINDLASS_TEST_RABBITMQ_URL is not set: run scripts/test, which starts the servers")
}

/// A channel past the driver.
async fn raw() -> (Connection, Channel) {
    let connection = Connection::connect(&url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[async_trait]
impl Fixture for RabbitMq {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let (_connection, channel) = raw().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let name = lane.to_string().into();
        let publish = channel.basic_publish(
            "".into(),
            name,
            BasicPublishOptions::default(),
            bytes,
            BasicProperties::default(),
        );
        assert!(publish.await.unwrap().await.unwrap().is_ack());
        true
    }
}

windlass_brokers::broker_conformance!(RabbitMq);

/// `url` with another user, password or path.
fn changed(user_info: Option<(&str, &str)>, path: Option<&str>) -> String {
    let mut url: url::Url = url().parse().unwrap();
    if let Some((user, password)) = user_info {
        url.set_username(user).unwrap();
        url.set_password(Some(password)).unwrap();
    }
    if let Some(path) = path {
        url.set_path(path);
    }
    url.into()
}

#[tokio::test]
async fn wrong_credentials_and_vhosts_are_for_the_operator() {
    let lane = Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal };
    for url in [changed(Some(("nobody", "s3cret")), None), changed(None, Some("/no-such-vhost"))] {
        let broker = windlass_brokers::open(&url).await.unwrap();
        let publish = broker.publish(&messages(&lane, 1)).await.remove(0);
        let subscribe = broker.subscribe(std::slice::from_ref(&lane), 1).await.map(drop);
        for result in [broker.ping().await, publish, subscribe] {
            let error = result.unwrap_err();
            assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
            assert!(error.to_string().contains("broker_url"), "{error}");
            assert!(!format!("{error} {error:?} {broker:?}").contains("s3cret"));
        }
        broker.close().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = windlass_brokers::open(&format!("amqp://guest:guest@{unused}")).await.unwrap();
    let lane = Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal };
    let start = std::time::Instant::now();
    for answer in broker.publish(&messages(&lane, 3)).await {
        let error = answer.unwrap_err();
        assert!(error.retryable() && error.to_string().contains(&unused.to_string()), "{error}");
    }
    assert!(broker.ping().await.unwrap_err().retryable());
    assert!(broker.depth(&lane).await.unwrap_err().retryable());
    let mut subscription = broker.subscribe(&[lane], 10).await.unwrap();
    assert!(subscription.receive(1).await.unwrap_err().retryable());
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    broker.close().await;
}

/// A queue that somebody else made under a lane's name concerns that lane alone.
#[tokio::test]
async fn a_queue_with_other_settings_is_for_the_operator() {
    Case::run(&RabbitMq, async |case: Case<'_>| {
        let (_connection, channel) = raw().await;
        let taken = case.lane_at(Priority::High);
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(taken.to_string().into(), options, FieldTable::default()).await.unwrap();

        let mut batch = messages(&case.lane(), 3);
        batch.splice(1..1, messages(&taken, 1));
        let answers = case.broker.publish(&batch).await;
        let failed: Vec<usize> = (0..4).filter(|&index| answers[index].is_err()).collect();
        assert_eq!(failed, [1], "answers come in the order of the messages");
        let errors = [
            answers.into_iter().nth(1).unwrap().unwrap_err(),
            case.broker.subscribe(&[case.lane(), taken.clone()], 5).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
            assert!(error.to_string().contains("broker_url"), "{error}");
            assert!(error.to_string().contains(&taken.to_string()), "{error}");
        }
        case.depth_becomes(&case.lane(), 3).await;
    })
    .await;
}

/// A queue deleted and made anew at once leaves the broker with a consumer it never serves. An idle subscription
/// finds out by itself.
#[tokio::test]
async fn a_forgotten_consumer_is_noticed() {
    Case::run(&RabbitMq, async |case: Case<'_>| {
        let mut subscription = case.subscribe(5).await;
        let (_connection, channel) = raw().await;
        let name: lapin::types::ShortString = case.lane().to_string().into();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::MAX));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_delete(name.clone(), QueueDeleteOptions::default()).await.unwrap();
        channel.queue_declare(name, options, arguments).await.unwrap();
        case.publish(3).await;
        let mut found = 0;
        while found < 3 {
            found += within("the messages", subscription.receive(3)).await.unwrap().len();
        }
    })
    .await;
}

/// Lanes survive the broker: durable quorum queues, persistent messages.
#[tokio::test]
async fn lanes_are_quorum_queues() {
    Case::run(&RabbitMq, async |case: Case<'_>| {
        case.publish(1).await;
        let (_connection, channel) = raw().await;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
        let error =
            channel.queue_declare(case.lane().to_string().into(), options, arguments).await.unwrap_err();
        assert!(error.to_string().contains("x-queue-type"), "{error}");
        assert!(error.to_string().contains("quorum"), "{error}");
    })
    .await;
}
