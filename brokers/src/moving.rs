use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use windlass_core::{
    Broker, BrokerError, Capabilities, Delivery, DeliveryTag, Lane, Message, Priorities, Subscription,
};

const PAUSE: Duration = Duration::from_secs(1);

/// Two brokers during the move from one to the other: publishes to the new one and takes from both, so that nothing
/// waits in the old one for a worker that never comes.
///
/// A subscription may hold its capacity at each of them, and each by itself keeps to the priorities.
#[derive(Debug)]
pub struct Moving {
    to: Arc<dyn Broker>,
    from: Arc<dyn Broker>,
}

impl Moving {
    /// A move to `to`. `from` may be gone already.
    #[must_use]
    pub fn new(to: Arc<dyn Broker>, from: Arc<dyn Broker>) -> Self {
        Self { to, from }
    }
}

#[async_trait]
impl Broker for Moving {
    fn capabilities(&self) -> Capabilities {
        let (to, from) = (self.to.capabilities(), self.from.capabilities());
        Capabilities { shared_lanes: to.shared_lanes && from.shared_lanes, ..to }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        self.to.publish(messages).await
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let from = self.from.subscribe(lanes, capacity, priorities).await;
        let from = from.inspect_err(|error| {
            tracing::warn!(%error, "nothing is taken from the old broker (setting broker_from_url)");
        });
        let to = self.to.subscribe(lanes, capacity, priorities).await?;
        Ok(Box::new(MovingSubscription {
            to,
            from: from.ok(),
            pause: None,
            tags: HashMap::new(),
            last_tag: 0,
        }))
    }

    /// What waits in the new one: a lane that is empty there gets its jobs published again, wherever they wait.
    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        self.to.depth(lane).await
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        self.to.delete(lanes).await?;
        self.from.delete(lanes).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.to.ping().await
    }

    async fn close(&self) {
        tokio::join!(self.to.close(), self.from.close());
    }
}

#[derive(Debug)]
struct MovingSubscription {
    to: Box<dyn Subscription>,
    /// `None` once it cannot work any more.
    from: Option<Box<dyn Subscription>>,
    /// After an error of the old one: when to try it again.
    pause: Option<Instant>,
    /// Where a tag comes from, and what it is there.
    tags: HashMap<DeliveryTag, (Side, DeliveryTag)>,
    last_tag: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    To,
    From,
}

impl MovingSubscription {
    fn rename(&mut self, side: Side, mut deliveries: Vec<Delivery>) -> Vec<Delivery> {
        for delivery in &mut deliveries {
            self.last_tag += 1;
            let theirs = std::mem::replace(&mut delivery.tag, DeliveryTag(self.last_tag));
            self.tags.insert(delivery.tag, (side, theirs));
        }
        deliveries
    }

    /// Their own tags of each side. Settled or not, they are not needed again.
    fn theirs(&mut self, tags: &[DeliveryTag]) -> (Vec<DeliveryTag>, Vec<DeliveryTag>) {
        let (mut to, mut from) = (Vec::new(), Vec::new());
        for (side, tag) in tags.iter().filter_map(|tag| self.tags.remove(tag)) {
            if side == Side::To { to.push(tag) } else { from.push(tag) }
        }
        (to, from)
    }

    /// The old broker's troubles are not the worker's: it may be taken down at any time.
    fn note(&self, result: Result<(), BrokerError>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the old broker does not answer (setting broker_from_url)");
        }
    }
}

#[async_trait]
impl Subscription for MovingSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let Some(from) = &mut self.from else {
                let deliveries = self.to.receive(max).await?;
                return Ok(self.rename(Side::To, deliveries));
            };
            let pause = self.pause;
            let receive_from = async {
                if let Some(at) = pause {
                    sleep_until(at).await;
                }
                from.receive(max).await
            };
            // Both may be dropped without loss.
            tokio::select! {
                deliveries = self.to.receive(max) => {
                    let deliveries = deliveries?;
                    return Ok(self.rename(Side::To, deliveries));
                }
                deliveries = receive_from => match deliveries {
                    Ok(deliveries) => return Ok(self.rename(Side::From, deliveries)),
                    Err(error) if error.retryable() => {
                        self.pause = Some(Instant::now() + PAUSE);
                        self.note(Err(error));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "nothing more is taken from the old broker (setting broker_from_url)");
                        self.from = None;
                    }
                }
            }
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let (to, theirs) = self.theirs(tags);
        if let Some(from) = self.from.as_mut().filter(|_| !theirs.is_empty()) {
            let result = from.ack(&theirs).await;
            self.note(result);
        }
        if to.is_empty() { Ok(()) } else { self.to.ack(&to).await }
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        let (to, theirs) = self.theirs(tags);
        if let Some(from) = self.from.as_mut().filter(|_| !theirs.is_empty()) {
            let result = from.release(&theirs).await;
            self.note(result);
        }
        if to.is_empty() { Ok(()) } else { self.to.release(&to).await }
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        if let Some(from) = &mut self.from {
            let result = from.park().await;
            self.note(result);
        }
        self.to.park().await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use windlass_core::{JobId, Priority};

    use super::*;
    use crate::Memory;

    fn message(lane: &Lane) -> Message {
        Message {
            job_id: JobId::new(),
            attempt: 1,
            lane: lane.clone(),
            kind: "k".parse().unwrap(),
            trace: None,
            ordering_key: None,
        }
    }

    #[tokio::test]
    async fn takes_from_both_and_publishes_to_the_new_one() {
        let (old, new) = (Memory::new(), Memory::new());
        let moving = Moving::new(Arc::new(new.attach()), Arc::new(old.attach()));
        let lane = Lane { queue: "q".parse().unwrap(), priority: Priority::Normal };
        let depths = async || (old.depth(&lane).await.unwrap(), new.depth(&lane).await.unwrap());
        old.publish(&[message(&lane), message(&lane)]).await.remove(0).unwrap();
        let newer = [message(&lane), message(&lane)];
        moving.publish(&newer).await.remove(0).unwrap();
        assert_eq!(depths().await, (Some(2), Some(2)));

        let mut subscription =
            moving.subscribe(std::slice::from_ref(&lane), 10, Priorities::Weighted).await.unwrap();
        let mut taken = subscription.receive(10).await.unwrap();
        taken.extend(subscription.receive(10).await.unwrap());
        assert_eq!(taken.len(), 4);
        assert_eq!(depths().await, (Some(0), Some(0)));
        // One of each is acknowledged, one of each given back, where it came from.
        let tags: Vec<_> = taken.iter().map(|delivery| delivery.tag).collect();
        subscription.ack(&[tags[0], tags[2]]).await.unwrap();
        subscription.release(&[tags[1], tags[3]]).await.unwrap();
        drop(subscription);
        assert_eq!(depths().await, (Some(1), Some(1)));

        // The old one may go.
        let mut subscription =
            moving.subscribe(std::slice::from_ref(&lane), 10, Priorities::Weighted).await.unwrap();
        moving.from.close().await;
        let left = subscription.receive(10).await.unwrap();
        assert!(newer.contains(&left[0].message), "{left:?}");
    }
}
