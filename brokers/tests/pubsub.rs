//! Pub/Sub through the conformance suite, and what only Pub/Sub can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use checks::only_this_lane_is_refused;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::publisher_client::PublisherClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::subscriber_client::SubscriberClient;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{
    DeleteSubscriptionRequest, ExpirationPolicy, GetSubscriptionRequest, PublishRequest, PubsubMessage,
    Subscription, Topic,
};
use tokio::time::timeout;
use tonic::transport::Channel;
use windlass_brokers::conformance::{Case, Fixture, messages, until, within};
use windlass_core::{Broker, Lane, Priorities, Priority};

struct PubSub;

fn url() -> String {
    std::env::var("WINDLASS_TEST_PUBSUB_URL")
        .expect("WINDLASS_TEST_PUBSUB_URL is not set: run scripts/test, which starts the servers")
}

/// `host:port` of the emulator.
fn endpoint() -> String {
    let url: url::Url = url().parse().unwrap();
    url.query_pairs().find(|(name, _)| name == "endpoint").unwrap().1.into_owned()
}

/// A way past the driver.
async fn raw() -> (PublisherClient<Channel>, SubscriberClient<Channel>) {
    let channel = Channel::from_shared(format!("http://{}", endpoint())).unwrap().connect().await.unwrap();
    (PublisherClient::new(channel.clone()), SubscriberClient::new(channel))
}

fn topic(lane: &Lane) -> String {
    format!("projects/windlass/topics/{lane}")
}

fn subscription(lane: &Lane) -> String {
    format!("projects/windlass/subscriptions/{lane}")
}

#[async_trait]
impl Fixture for PubSub {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let message = PubsubMessage { data: bytes.into(), ..PubsubMessage::default() };
        let request = PublishRequest { topic: topic(lane), messages: vec![message] };
        raw().await.0.publish(request).await.unwrap();
        true
    }
}

windlass_brokers::broker_conformance!(PubSub);

/// Messages wait for a week, and a subscription for ever.
#[tokio::test]
async fn lanes_are_kept() {
    Case::run(&PubSub, async |case: Case<'_>| {
        case.publish(1).await;
        let request = GetSubscriptionRequest { subscription: subscription(&case.lane()) };
        let found = raw().await.1.get_subscription(request).await.unwrap().into_inner();
        assert_eq!(found.topic, topic(&case.lane()));
        assert_eq!(found.message_retention_duration.unwrap().seconds, 7 * 24 * 60 * 60);
        assert_eq!(found.expiration_policy, Some(ExpirationPolicy { ttl: None }));
        assert_eq!((found.ack_deadline_seconds, found.dead_letter_policy), (30, None));
    })
    .await;
}

/// A prefix keeps lanes apart.
#[tokio::test]
async fn a_prefix_is_another_set_of_lanes() {
    Case::run(&PubSub, async |case: Case<'_>| {
        let other = windlass_brokers::open(&format!("{}&prefix=other-", url())).await.unwrap();
        let mut subscription = other.subscribe(&[case.lane()], 5, Priorities::Weighted).await.unwrap();
        case.publish(1).await;
        assert!(timeout(Duration::from_millis(200), subscription.receive(1)).await.is_err());
        other.publish(&messages(&case.lane(), 1)).await.remove(0).unwrap();
        within("its own message", subscription.receive(1)).await.unwrap();
        drop(subscription);
        other.delete(&[case.lane()]).await.unwrap();
        other.close().await;
    })
    .await;
}

/// A subscription that somebody else made under a lane's name concerns that lane alone, if it would lose messages.
#[tokio::test]
async fn a_subscription_with_other_settings_is_for_the_operator() {
    Case::run(&PubSub, async |case: Case<'_>| {
        let (mut publisher, mut subscriber) = raw().await;
        let taken = case.lane_at(Priority::High);
        publisher.create_topic(Topic { name: topic(&taken), ..Topic::default() }).await.unwrap();
        let made = Subscription {
            name: subscription(&taken),
            topic: topic(&taken),
            ack_deadline_seconds: 10,
            filter: "attributes:mine".into(),
            ..Subscription::default()
        };
        subscriber.create_subscription(made).await.unwrap();

        for error in only_this_lane_is_refused(&case, &taken).await {
            assert!(error.contains(&taken.to_string()), "{error}");
        }
    })
    .await;
}

/// P7: a message that is not settled stays with its worker for longer than any deadline.
#[tokio::test]
async fn a_message_in_hand_does_not_come_again() {
    Case::run(&PubSub, async |case: Case<'_>| {
        let (mut publisher, mut subscriber) = raw().await;
        publisher.create_topic(Topic { name: topic(&case.lane()), ..Topic::default() }).await.unwrap();
        let made = Subscription {
            name: subscription(&case.lane()),
            topic: topic(&case.lane()),
            ack_deadline_seconds: 10,
            ..Subscription::default()
        };
        subscriber.create_subscription(made).await.unwrap();
        case.publish(2).await;
        // One handed out and one in the driver's hands.
        let mut holder = case.subscribe(4).await;
        let held = within("a message", holder.receive(1)).await.unwrap();
        let mut other = case.subscribe(4).await;
        let again = timeout(Duration::from_secs(13), other.receive(2)).await;
        assert!(again.is_err(), "{again:?}");
        holder.ack(&[held[0].tag]).await.unwrap();
        drop(holder);
        assert_eq!(within("the one given back", other.receive(2)).await.unwrap().len(), 1);
    })
    .await;
}

/// A topic without its subscription loses what is published to it. Whoever pulls notices first.
#[tokio::test]
async fn a_lost_subscription_is_made_anew() {
    Case::run(&PubSub, async |case: Case<'_>| {
        let mut taker = case.subscribe(5).await;
        case.publish(1).await;
        within("the message", taker.receive(1)).await.unwrap();
        let (_, mut subscriber) = raw().await;
        let name = subscription(&case.lane());
        subscriber
            .delete_subscription(DeleteSubscriptionRequest { subscription: name.clone() })
            .await
            .unwrap();
        until("the subscription to be there again", async || {
            raw()
                .await
                .1
                .get_subscription(GetSubscriptionRequest { subscription: name.clone() })
                .await
                .is_ok()
        })
        .await;
        case.publish(3).await;
        let mut found = 0;
        while found < 3 {
            found += within("the messages", taker.receive(3)).await.unwrap().len();
        }
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let broker = windlass_brokers::open(&format!("pubsub://windlass?endpoint={unused}")).await.unwrap();
    let lane = Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal };
    let start = Instant::now();
    for answer in broker.publish(&messages(&lane, 3)).await {
        let error = answer.unwrap_err();
        assert!(error.retryable() && error.to_string().contains(&unused.to_string()), "{error}");
    }
    assert!(broker.ping().await.unwrap_err().retryable());
    assert!(broker.delete(std::slice::from_ref(&lane)).await.unwrap_err().retryable());
    let mut subscription = broker.subscribe(&[lane], 10, Priorities::Weighted).await.unwrap();
    assert!(subscription.receive(1).await.unwrap_err().retryable());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    broker.close().await;
}

/// A connection over which nothing comes any more, as after a change of network, is not waited for until the system
/// gives it up.
#[tokio::test]
async fn a_connection_that_hangs_is_given_up() {
    Case::run(&PubSub, async |case: Case<'_>| {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = listener.local_addr().unwrap();
        let server = endpoint();
        let (hang, hangs) = tokio::sync::watch::channel(false);
        // The first connection hangs once it is told to; later ones do not.
        tokio::spawn(async move {
            let mut first = Some(hangs);
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, hangs) = (server.clone(), first.take());
                tokio::spawn(async move {
                    let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
                    let forward = tokio::io::copy_bidirectional(&mut client, &mut server);
                    let Some(mut hangs) = hangs else { return drop(forward.await) };
                    tokio::select! {
                        _ = forward => return,
                        _ = hangs.wait_for(|hangs| *hangs) => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        let broker = windlass_brokers::open(&format!("pubsub://windlass?endpoint={way}")).await.unwrap();
        broker.publish(&messages(&case.lane(), 1)).await.remove(0).unwrap();
        hang.send(true).unwrap();
        let start = Instant::now();
        let error = broker.publish(&messages(&case.lane(), 1)).await.remove(0).unwrap_err();
        assert!(
            error.retryable() && start.elapsed() < Duration::from_secs(7),
            "{error} {:?}",
            start.elapsed()
        );
        broker.publish(&messages(&case.lane(), 1)).await.remove(0).unwrap();
        broker.close().await;
    })
    .await;
}
