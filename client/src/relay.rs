use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use windlass_core::{Broker, BrokerError, Lane, OutboxGroup, Store, StoreError};

use crate::publish::{Group, Publisher};

/// Groups taken from the outbox at a time.
const BATCH: usize = 16;

/// Publishes what the fast path could not: groups of a process that died, of a user's own transaction, of requeued
/// jobs, of a broker's outage, and those whose messages a broker has lost.
///
/// Runs in every process that can publish; the store deals each group to one of them at a time.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) publisher: Publisher,
    pub(crate) nudge: Arc<Notify>,
    /// How often to look.
    pub(crate) interval: Duration,
    /// When a confirmed group is looked at again.
    pub(crate) verify_after: Duration,
    /// After how long a job is published again although its lane is not empty.
    pub(crate) bound: Duration,
}

impl Relay {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut rng = fastrand::Rng::new();
        let mut store_down = false;
        loop {
            // Jitter keeps many processes from looking all at once.
            let pause = self.interval.mul_f64(0.75 + rng.f64() / 2.0);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.nudge.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
            match self.relay(&stop).await {
                Ok(()) => {
                    if std::mem::take(&mut store_down) {
                        tracing::info!("the outbox can be read again");
                    }
                }
                Err(error) if !store_down => {
                    store_down = true;
                    tracing::warn!(%error, "the outbox cannot be read; trying again");
                }
                Err(_) => {}
            }
        }
    }

    /// Works off what is due now.
    async fn relay(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            let groups = self.store.outbox_take(BATCH).await?;
            let full = groups.len() == BATCH;
            self.relay_groups(groups).await;
            if !full {
                break;
            }
        }
        Ok(())
    }

    async fn relay_groups(&self, groups: Vec<OutboxGroup>) {
        let mut depths = HashMap::new();
        // By when to look again: few different times, so few batches.
        let mut batches: BTreeMap<Duration, Vec<Group>> = BTreeMap::new();
        for group in groups {
            let verify_after = if group.published {
                match self.depths(&group, &mut depths).await {
                    Ok(waiting) => match self.lost(&group, waiting) {
                        Some(verify_after) => verify_after,
                        None => {
                            self.look_again_later(&group).await;
                            continue;
                        }
                    },
                    // The broker cannot tell now, and could not take messages either.
                    Err(_) => continue,
                }
            } else {
                self.verify_after
            };
            let ready = Group { outbox: Some(group.id), messages: group.messages };
            batches.entry(verify_after).or_default().push(ready);
        }
        for (verify_after, batch) in batches {
            let confirmed = self.publisher.publish(batch).await;
            self.publisher.note(&confirmed, verify_after).await;
        }
    }

    /// Whether the messages of a published group must be taken for lost, and then when to look again.
    fn lost(&self, group: &OutboxGroup, waiting: Option<u64>) -> Option<Duration> {
        match waiting {
            Some(0) => Some(self.verify_after),
            // A long backlog. Ever longer pauses keep the repeats from adding to it.
            Some(_) => (group.age >= self.bound).then(|| group.age.max(self.verify_after)),
            // The broker cannot count, so only time tells.
            None => Some(group.age.max(self.verify_after)),
        }
    }

    /// The messages waiting in the emptiest of the group's lanes.
    async fn depths(
        &self,
        group: &OutboxGroup,
        known: &mut HashMap<Lane, Option<u64>>,
    ) -> Result<Option<u64>, BrokerError> {
        let mut least = None;
        for message in &group.messages {
            let depth = match known.get(&message.lane) {
                Some(depth) => *depth,
                None => {
                    let depth = self.broker.depth(&message.lane).await?;
                    known.insert(message.lane.clone(), depth);
                    depth
                }
            };
            match depth {
                None => return Ok(None),
                Some(depth) => least = Some(least.map_or(depth, |l: u64| l.min(depth))),
            }
        }
        Ok(least)
    }

    /// The older a backlog, the longer the pauses, or a long one would be read through all the time.
    async fn look_again_later(&self, group: &OutboxGroup) {
        let pause = group.age.clamp(self.verify_after, self.verify_after * 10);
        // Failing, the group is merely looked at sooner.
        let _ = self.store.outbox_published(&[group.id], pause).await;
    }
}
