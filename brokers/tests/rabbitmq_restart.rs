//! RabbitMQ killed, wiped, restarted, impatient and short of memory under a running process, each time a server of
//! the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;
#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use checks::receive;
use server::OwnServer;
use windlass_brokers::conformance::{Server, messages, until, within};
use windlass_core::{Broker, BrokerError, Delivery, DeliveryTag, Lane, Priorities, Priority};

windlass_brokers::broker_outage_conformance!(OwnServer::start("rabbitmq", &[]).await);

fn lane() -> Lane {
    Lane { queue: "restart".parse().unwrap(), priority: Priority::Normal }
}

async fn publish_ten(broker: &dyn Broker) {
    for answer in within("publish", broker.publish(&messages(&lane(), 10))).await {
        answer.unwrap();
    }
}

fn tags(deliveries: &[Delivery]) -> Vec<DeliveryTag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

/// A user who may log in, and read and write what others have made, but make nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_for_the_operator() {
    const RIGHTS: &str = "default_permissions.configure = ^$\n\
                  default_permissions.read = .*\n\
                  default_permissions.write = .*";
    let server = OwnServer::start("rabbitmq", &[("WINDLASS_RABBITMQ_CONF", RIGHTS)]).await;
    let broker = server.client().await;
    within("ping", broker.ping()).await.unwrap();
    let start = Instant::now();
    let publish = broker.publish(&messages(&lane(), 1)).await.remove(0);
    let subscribe = broker.subscribe(&[lane()], 1, Priorities::Weighted).await.map(drop);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for result in [publish, subscribe] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("broker_url") && text.contains("lacks a right"), "{text}");
        assert!(text.contains("configure"), "{text}");
    }
    broker.close().await;
}

/// P7: a worker that keeps a message for longer than the broker's patience gets it again, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_closed_by_the_consumer_timeout_is_replaced() {
    // How often RabbitMQ looks for messages held too long: by default once a minute.
    let server = OwnServer::start(
        "rabbitmq",
        &[
            ("WINDLASS_RABBITMQ_CONF", "consumer_timeout = 1000"),
            ("RABBITMQ_SERVER_START_ARGS", "-rabbit channel_tick_interval 500"),
        ],
    )
    .await;
    let broker = server.client().await;
    let mut subscription = broker.subscribe(&[lane()], 50, Priorities::Weighted).await.unwrap();
    publish_ten(&*broker).await;
    let first = receive(&mut *subscription, 1).await;
    // Nobody takes the others; they sit in the driver's buffer past the timeout.
    until("the broker to take its messages back", async || broker.depth(&lane()).await.unwrap() == Some(10))
        .await;
    subscription.ack(&tags(&first)).await.unwrap();
    let again = receive(&mut *subscription, 10).await;
    subscription.ack(&tags(&again)).await.unwrap();

    // Parked, it holds nothing that could time out, and what it holds no more is there for others.
    publish_ten(&*broker).await;
    subscription.park().await.unwrap();
    let mut other = broker.subscribe(&[lane()], 50, Priorities::Weighted).await.unwrap();
    receive(&mut *other, 10).await;
    broker.close().await;
}

/// A broker that is short of memory takes no messages. That must not look like a hanging call, and subscriptions
/// must go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_short_of_memory_refuses_soon() {
    let settings = &[("WINDLASS_RABBITMQ_CONF", "vm_memory_high_watermark.absolute = 1MB")];
    let server = OwnServer::start("rabbitmq", settings).await;
    let broker = server.client().await;
    let subscription = within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await;
    assert!(subscription.is_ok());
    let refused = async || {
        let start = Instant::now();
        for answer in within("publish", broker.publish(&messages(&lane(), 10))).await {
            assert!(answer.unwrap_err().retryable());
        }
        start.elapsed()
    };
    assert!(refused().await < Duration::from_secs(7));
    let took = refused().await;
    assert!(took < Duration::from_secs(1), "a known shortage took {took:?} to tell");
    within("close", broker.close()).await;
}
