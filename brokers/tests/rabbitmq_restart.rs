//! RabbitMQ killed, wiped, restarted and short of memory under a running process. Each test has a server of its own,
//! started by `scripts/services`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use windlass_brokers::conformance::{messages, until, within};
use windlass_core::{Broker, JobId, Lane, Priority, Subscription};

struct Server {
    dir: TempDir,
    url: String,
}

impl Server {
    async fn up(settings: &'static str) -> Self {
        let dir = TempDir::new().unwrap();
        let lines = services(&dir, "up", settings).await;
        let url =
            lines.split_once("WINDLASS_TEST_RABBITMQ_URL='").and_then(|(_, rest)| rest.split_once('\''));
        Self { url: url.expect("scripts/services prints the URL").0.into(), dir }
    }

    async fn tell(&self, command: &'static str) {
        services(&self.dir, command, "").await;
    }

    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&self.url).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = script(&self.dir, "down").output();
    }
}

async fn services(dir: &TempDir, command: &'static str, settings: &'static str) -> String {
    let mut script = script(dir, command);
    script.arg("rabbitmq").env("WINDLASS_RABBITMQ_CONF", settings).stderr(Stdio::inherit());
    let output = tokio::task::spawn_blocking(move || script.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "scripts/services {command} failed");
    String::from_utf8(output.stdout).unwrap()
}

fn script(dir: &TempDir, command: &str) -> Command {
    let mut script = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services"));
    script.arg(command).arg("--dir").arg(dir.path());
    // How often RabbitMQ looks for messages held too long: by default once a minute.
    script.env("RABBITMQ_SERVER_START_ARGS", "-rabbit channel_tick_interval 500");
    script
}

fn lane() -> Lane {
    Lane { queue: "restart".parse().unwrap(), priority: Priority::Normal }
}

/// Publishes ten messages, and answers with the confirmed ones. A failure has to be quick and retryable.
async fn publish_ten(broker: &dyn Broker) -> HashSet<JobId> {
    let batch = messages(&lane(), 10);
    let start = Instant::now();
    let answers = broker.publish(&batch).await;
    assert!(start.elapsed() < Duration::from_secs(7), "publishing took {:?}", start.elapsed());
    let confirmed = batch.iter().zip(answers).filter_map(|(message, answer)| match answer {
        Ok(()) => Some(message.job_id),
        Err(error) => {
            assert!(error.retryable(), "{error:?}");
            None
        }
    });
    confirmed.collect()
}

/// Receives and acknowledges until all of `expected` have come. Errors on the way are reports of the outage.
async fn receive_all(subscription: &mut dyn Subscription, mut expected: HashSet<JobId>) {
    let all = async {
        while !expected.is_empty() {
            match subscription.receive(100).await {
                Ok(deliveries) => {
                    for delivery in &deliveries {
                        expected.remove(&delivery.message.job_id);
                    }
                    let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
                    subscription.ack(&tags).await.unwrap();
                }
                Err(error) => assert!(error.retryable(), "{error:?}"),
            }
        }
    };
    within("every confirmed message", all).await;
}

/// P1 and P6 rest on this: what was confirmed is there after a kill -9, and neither publisher nor subscription
/// needs the process to start again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_messages_survive_a_kill() {
    let server = Server::up("").await;
    let broker = server.client().await;
    let mut subscription = broker.subscribe(&[lane()], 50).await.unwrap();
    let sent = within("publish", publish_ten(&*broker)).await;
    let made = Instant::now();
    receive_all(&mut *subscription, sent).await;

    // Published while it is killed, in the outage, and after.
    let publisher = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move {
            let (mut confirmed, mut failed_at, mut recovered) = (HashSet::new(), None, 0);
            while recovered < 20 {
                let ten = publish_ten(&*broker).await;
                match ten.len() {
                    10 if failed_at.is_some() => recovered += 1,
                    10 => {}
                    _ => {
                        failed_at.get_or_insert_with(Instant::now);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                confirmed.extend(ten);
            }
            confirmed
        }
    });
    // RabbitMQ writes down that a queue is led by this node up to a second late; a server of one node that is killed
    // before never finds the queue's leader again.
    let settled = || made.elapsed() > Duration::from_secs(3);
    until("some messages", async || settled() && broker.depth(&lane()).await.unwrap() > Some(500)).await;
    server.tell("kill").await;
    assert!(broker.ping().await.unwrap_err().retryable());
    server.tell("start").await;
    let confirmed = within("publishing to work again", publisher).await.unwrap();
    assert!(confirmed.len() > 500);
    receive_all(&mut *subscription, confirmed).await;
    within("ping", broker.ping()).await.unwrap();
    broker.close().await;
}

/// P6: an empty broker in place of the old one is filled again without a restart of the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_broker_gets_its_lanes_back() {
    let server = Server::up("").await;
    let broker = server.client().await;
    let mut subscription = broker.subscribe(&[lane()], 50).await.unwrap();
    let sent = within("publish", publish_ten(&*broker)).await;
    receive_all(&mut *subscription, sent).await;

    server.tell("stop").await;
    until("the loss to be known", async || broker.ping().await.is_err()).await;
    let start = Instant::now();
    assert_eq!(publish_ten(&*broker).await, HashSet::new());
    assert!(start.elapsed() < Duration::from_secs(2), "a known outage took {:?} to tell", start.elapsed());
    server.tell("wipe").await;
    server.tell("start").await;

    let mut sent = HashSet::new();
    until("publishing to work again", async || {
        sent = publish_ten(&*broker).await;
        sent.len() == 10
    })
    .await;
    receive_all(&mut *subscription, sent).await;
    broker.close().await;
}

/// P7: a worker that keeps a message for longer than the broker's patience gets it again, and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_closed_by_the_consumer_timeout_is_replaced() {
    let server = Server::up("consumer_timeout = 1000").await;
    let broker = server.client().await;
    let mut subscription = broker.subscribe(&[lane()], 50).await.unwrap();
    let sent = within("publish", publish_ten(&*broker)).await;
    let first = within("messages", subscription.receive(1)).await.unwrap();
    // Nobody takes the others; they sit in the driver's buffer past the timeout.
    until("the broker to take its messages back", async || broker.depth(&lane()).await.unwrap() == Some(10))
        .await;
    subscription.ack(&[first[0].tag]).await.unwrap();
    receive_all(&mut *subscription, sent).await;

    // Parked, it holds nothing that could time out, and what it holds no more is there for others.
    let sent = within("publish", publish_ten(&*broker)).await;
    subscription.park().await.unwrap();
    let mut other = broker.subscribe(&[lane()], 50).await.unwrap();
    receive_all(&mut *other, sent).await;
    broker.close().await;
}

/// A broker that is short of memory takes no messages. That must not look like a hanging call, and subscriptions
/// must go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_short_of_memory_refuses_soon() {
    let server = Server::up("vm_memory_high_watermark.absolute = 1MB").await;
    let broker = server.client().await;
    let subscription = within("subscribe", broker.subscribe(&[lane()], 50)).await;
    assert!(subscription.is_ok());
    assert_eq!(publish_ten(&*broker).await, HashSet::new());
    let start = Instant::now();
    assert_eq!(publish_ten(&*broker).await, HashSet::new());
    assert!(start.elapsed() < Duration::from_secs(1), "a known shortage took {:?} to tell", start.elapsed());
    within("close", broker.close()).await;
}
