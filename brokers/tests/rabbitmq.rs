//! RabbitMQ through the conformance suite, and what only RabbitMQ can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checks::{changed, fails_soon, only_this_lane_is_refused, refuses};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use windlass_brokers::conformance::{Case, Fixture, within};
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

#[tokio::test]
async fn wrong_credentials_and_vhosts_are_for_the_operator() {
    for url in
        [changed(&url(), Some(("nobody", "s3cret")), None), changed(&url(), None, Some("/no-such-vhost"))]
    {
        refuses(&url).await;
        let broker = windlass_brokers::open(&url).await.unwrap();
        assert!(matches!(broker.ping().await, Err(BrokerError::Config { .. })));
        broker.close().await;
    }
}

#[tokio::test]
async fn a_broker_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails_soon(&format!("amqp://guest:guest@{unused}"), Duration::from_secs(5)).await;
}

/// A queue that somebody else made under a lane's name concerns that lane alone.
#[tokio::test]
async fn a_queue_with_other_settings_is_for_the_operator() {
    Case::run(&RabbitMq, async |case: Case<'_>| {
        let (_connection, channel) = raw().await;
        let taken = case.lane_at(Priority::High);
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(taken.to_string().into(), options, FieldTable::default()).await.unwrap();

        for error in only_this_lane_is_refused(&case, &taken).await {
            assert!(error.contains(&taken.to_string()), "{error}");
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
