use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use windlass_core::{
    Broker, BrokerError, Delivery, DeliveryTag, JobId, Lane, Message, Priorities, Priority, QueueName,
    Subscription,
};

use super::Fixture;

/// Long enough for a busy machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deletes the lanes, as often as it takes a server that others keep busy.
async fn delete(broker: &dyn Broker, lanes: &[Lane]) -> Result<(), BrokerError> {
    loop {
        match broker.delete(lanes).await {
            Err(error) if error.retryable() => sleep(Duration::from_millis(100)).await,
            answer => return answer,
        }
    }
}

/// One test's queue, and a client.
#[derive(Clone)]
pub struct Case<'a> {
    /// The way to the broker.
    pub fixture: &'a dyn Fixture,
    /// A client that outlives the test.
    pub broker: Arc<dyn Broker>,
    /// A queue that nobody else uses.
    pub queue: QueueName,
}

impl<'a> Case<'a> {
    /// Runs `test` on a queue of its own, and deletes that afterwards.
    pub async fn run<F: Future<Output = ()>>(fixture: &'a dyn Fixture, test: impl FnOnce(Case<'a>) -> F) {
        let broker = fixture.client().await;
        let queue: QueueName = format!("t-{}", JobId::new()).parse().unwrap();
        let case = Case { fixture, broker: Arc::clone(&broker), queue: queue.clone() };
        let result = AssertUnwindSafe(test(case)).catch_unwind().await;
        let lanes: Vec<Lane> = Lane::of(&queue).collect();
        let deleted = within("delete", delete(&*broker, &lanes)).await;
        broker.close().await;
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        deleted.expect("deleting the lanes after the test");
    }

    /// The queue's lane at normal priority.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.lane_at(Priority::Normal)
    }

    /// The queue's lane at `priority`.
    #[must_use]
    pub fn lane_at(&self, priority: Priority) -> Lane {
        Lane { queue: self.queue.clone(), priority }
    }

    /// Publishes `count` new messages to the normal lane; all must be confirmed.
    pub async fn publish(&self, count: usize) -> Vec<Message> {
        let messages = messages(&self.lane(), count);
        self.publish_all(&messages).await;
        messages
    }

    /// Publishes `messages`; all must be confirmed.
    pub async fn publish_all(&self, messages: &[Message]) {
        for answer in within("publish", self.broker.publish(messages)).await {
            answer.expect("publish");
        }
    }

    /// A subscription of the case's own client to the normal lane.
    pub async fn subscribe(&self, capacity: usize) -> Box<dyn Subscription> {
        self.broker.subscribe(&[self.lane()], capacity, Priorities::Weighted).await.expect("subscribe")
    }

    /// How deep `lane` is, unless the driver declares that it cannot tell, which must then be so.
    pub async fn depth(&self, lane: &Lane) -> Option<u64> {
        let depth = within("depth", self.broker.depth(lane)).await.expect("depth");
        assert_eq!(depth.is_some(), self.broker.capabilities().depth, "what the driver declares of depth");
        depth
    }

    /// Waits until `lane` is this deep. Passes where the broker cannot tell.
    pub async fn depth_becomes(&self, lane: &Lane, depth: u64) {
        until(&format!("depth of {lane} to become {depth}"), async || {
            self.depth(lane).await.is_none_or(|found| found == depth)
        })
        .await;
    }
}

/// New messages for `lane`, all different.
#[must_use]
pub fn messages(lane: &Lane, count: usize) -> Vec<Message> {
    let message = |_| Message {
        job_id: JobId::new(),
        attempt: 1,
        lane: lane.clone(),
        kind: "test.kind".parse().unwrap(),
        trace: None,
        ordering_key: None,
    };
    (0..count).map(message).collect()
}

/// The jobs that `messages` announce.
pub fn distinct<'a>(messages: impl IntoIterator<Item = &'a Message>) -> HashSet<JobId> {
    messages.into_iter().map(|message| message.job_id).collect()
}

/// The jobs that `deliveries` announce.
pub(super) fn jobs(deliveries: &[Delivery]) -> HashSet<JobId> {
    distinct(deliveries.iter().map(|delivery| &delivery.message))
}

/// What to settle `deliveries` by.
pub(super) fn tags(deliveries: &[Delivery]) -> Vec<DeliveryTag> {
    deliveries.iter().map(|delivery| delivery.tag).collect()
}

/// Receives until there are `count`, and fails if there are more.
pub(super) async fn receive(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let what = format!("message {} of {count}", all.len() + 1);
        let some = within(&what, subscription.receive(count - all.len())).await.expect("receive");
        all.extend(some);
    }
    assert_eq!(all.len(), count, "receive answered with more than asked for");
    all
}

/// Receives exactly `expected`, through a subscription beside one that holds `held` of the same lane. Where lanes are
/// not shared, what is held may come as well, and what is expected more than once; repetitions are acknowledged.
pub(super) async fn receive_beside_holder(
    case: &Case<'_>,
    subscription: &mut dyn Subscription,
    expected: &HashSet<JobId>,
    held: &HashSet<JobId>,
) -> Vec<Delivery> {
    if case.broker.capabilities().shared_lanes {
        let found = receive(subscription, expected.len()).await;
        assert_eq!(jobs(&found), *expected);
        return found;
    }
    let mut found = Vec::new();
    while found.len() < expected.len() {
        for delivery in within("what others may take", subscription.receive(100)).await.expect("receive") {
            let job = delivery.message.job_id;
            if expected.contains(&job) && !jobs(&found).contains(&job) {
                found.push(delivery);
            } else {
                assert!(
                    expected.contains(&job) || held.contains(&job),
                    "a message that was settled came again"
                );
                subscription.ack(&[delivery.tag]).await.expect("ack");
            }
        }
    }
    found
}

/// Checks that nothing comes for a moment. Only ever an addition to a check that needs no time.
pub(super) async fn receives_nothing(subscription: &mut dyn Subscription) {
    if let Ok(found) = timeout(Duration::from_millis(200), subscription.receive(10)).await {
        panic!("nothing should come, but {:?} did", found.map(|found| found.len()));
    }
}

/// Awaits `future`, and fails saying `what` when that takes far too long.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Waits until `condition` holds, and fails saying `what` when that takes far too long.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
