use std::collections::HashSet;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};
use windlass_core::{Broker, JobId, Lane, Priorities, Priority, Subscription};

use super::support::{messages, until, within};

/// A server of the test's own, to be stopped, killed and emptied.
#[async_trait]
pub trait Server: Send + Sync {
    /// A new client of the server.
    async fn client(&self) -> Arc<dyn Broker>;

    /// Does this to the server, and waits until it is done.
    async fn order(&self, order: Order);

    /// Whether this server keeps anything beyond its process, whatever the kind of broker promises: emulators do not.
    fn keeps_data(&self) -> bool {
        true
    }
}

/// What can be done to a [`Server`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Starts it again on the same port with the data it has.
    Start,
    /// Stops it in good order.
    Stop,
    /// `kill -9`.
    Kill,
    /// Empties the data of the stopped server.
    Wipe,
    /// Waits until a kill cannot undo what the server has told its clients. RabbitMQ needs it: see `settled_rabbitmq` in
    /// `scripts/services.d`.
    Settle,
}

/// Makes one test of each behaviour under outages, each on a [`Server`] of its own that the expression gives.
///
/// ```ignore
/// windlass_brokers::broker_outage_conformance!(MyServer::start().await);
/// ```
#[macro_export]
macro_rules! broker_outage_conformance {
    ($server:expr) => {
        $crate::broker_outage_conformance! { @each $server;
            confirmed_messages_survive_a_kill
            a_wiped_broker_gets_its_lanes_back
        }
    };
    (@each $server:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let server = $server;
                $crate::conformance::$name(&server).await;
            }
        )*
    };
}

/// A lane on a server that has no other.
fn lane() -> Lane {
    Lane { queue: "outage".parse().unwrap(), priority: Priority::Normal }
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
                    let _ = subscription.ack(&tags).await;
                }
                Err(error) => assert!(error.retryable(), "{error:?}"),
            }
        }
    };
    within("every confirmed message", all).await;
}

/// Publishes until the broker takes all of ten again.
async fn recovered(broker: &dyn Broker) -> HashSet<JobId> {
    loop {
        let sent = publish_ten(broker).await;
        if sent.len() == 10 {
            return sent;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// P1 and P6 rest on this: what was confirmed is there after a kill -9, and neither publisher nor subscription
/// needs the process to start again.
pub async fn confirmed_messages_survive_a_kill(server: &dyn Server) {
    let broker = server.client().await;
    assert!(
        broker.capabilities().persistent,
        "the driver declares that nothing survives, which this would disprove"
    );
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await.unwrap();
    let sent = within("publish", recovered(&*broker)).await;
    receive_all(&mut *subscription, sent).await;
    server.order(Order::Settle).await;

    // Published while it is killed, in the outage, and after.
    let published = Arc::new(AtomicUsize::new(0));
    let publisher = tokio::spawn({
        let (broker, published) = (Arc::clone(&broker), Arc::clone(&published));
        async move {
            let (mut confirmed, mut failed, mut recovered) = (HashSet::new(), false, HashSet::new());
            while recovered.len() < 200 {
                let ten = publish_ten(&*broker).await;
                published.fetch_add(ten.len(), Ordering::Relaxed);
                if ten.len() < 10 {
                    failed = true;
                    sleep(Duration::from_millis(20)).await;
                }
                (if failed { &mut recovered } else { &mut confirmed }).extend(ten);
            }
            (confirmed, recovered)
        }
    });
    until("some messages", async || published.load(Ordering::Relaxed) > 500).await;
    server.order(Order::Kill).await;
    assert!(broker.ping().await.unwrap_err().retryable());
    server.order(Order::Start).await;
    let (confirmed, recovered) = within("publishing to work again", publisher).await.unwrap();
    assert!(confirmed.len() > 500);
    let expected = if server.keeps_data() { &confirmed | &recovered } else { recovered };
    receive_all(&mut *subscription, expected).await;
    within("ping", broker.ping()).await.unwrap();
    broker.close().await;
}

/// P6: an empty broker in place of the old one is filled again without a restart of the process.
pub async fn a_wiped_broker_gets_its_lanes_back(server: &dyn Server) {
    let broker = server.client().await;
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await.unwrap();
    let sent = within("publish", recovered(&*broker)).await;
    receive_all(&mut *subscription, sent).await;

    server.order(Order::Stop).await;
    until("the loss to be known", async || broker.ping().await.is_err()).await;
    assert_eq!(publish_ten(&*broker).await, HashSet::new());
    server.order(Order::Wipe).await;
    server.order(Order::Start).await;

    let sent = within("publishing to work again", recovered(&*broker)).await;
    receive_all(&mut *subscription, sent).await;
    broker.close().await;
}
