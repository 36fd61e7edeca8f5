use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use windlass_core::{Broker, BrokerError, Lane, OutboxGroup, Store, StoreError};

use crate::{
    arrivals::Arrivals,
    publish::{Group, Publisher},
};

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
    /// What this process has received, if a worker runs in it.
    pub(crate) arrivals: Arc<Arrivals>,
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
                    Ok(waiting) => match self.look(&group, waiting) {
                        Look::Lost { verify_after } => verify_after,
                        Look::Waits { verify_after } => {
                            // Failing, the group is merely looked at sooner.
                            let _ = self.store.outbox_published(&[group.id], verify_after).await;
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

    /// What has become of a published group, when so many messages wait in its lane.
    fn look(&self, group: &OutboxGroup, waiting: Option<u64>) -> Look {
        // The older a backlog, the longer the pauses, or a long one would be read through all the time.
        let verify_after = group.age.clamp(self.verify_after, self.verify_after * 10);
        match waiting {
            Some(0) => Look::Lost { verify_after: self.verify_after },
            // Ever longer pauses between the repeats keep them from adding to a long backlog, part of which others may be
            // slower to work off.
            Some(_) => {
                let passed_over = self.arrivals.passed_over(group, self.verify_after);
                let first = if passed_over { self.verify_after } else { self.bound };
                if has_doubled(first, group.age, verify_after * 2) {
                    Look::Lost { verify_after }
                } else {
                    Look::Waits { verify_after }
                }
            }
            // The broker cannot count, so only time tells.
            None => Look::Lost { verify_after: group.age.max(self.verify_after) },
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
}

/// What the relay finds when it looks at a published group.
enum Look {
    /// Its messages must be taken for lost.
    Lost { verify_after: Duration },
    /// They are waiting for their turn.
    Waits { verify_after: Duration },
}

/// Whether `age` has come to `bound`, twice that, four times that and so on within the time `since` then.
fn has_doubled(bound: Duration, age: Duration, since: Duration) -> bool {
    let bound = bound.max(Duration::from_millis(1));
    let doublings = (age.as_millis() / bound.as_millis()).checked_ilog2();
    doublings.is_some_and(|times| {
        bound.as_secs_f64() * 2f64.powi(times as i32) > age.as_secs_f64() - since.as_secs_f64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_repeats_of_a_backlog_double_their_pauses() {
        let pause = Duration::from_secs(300);
        let looks = (1..=600).map(|times| pause * times);
        let repeats: Vec<u64> =
            looks.filter(|age| has_doubled(HOUR, *age, pause)).map(|age| age.as_secs() / 3600).collect();
        assert_eq!(repeats, [1, 2, 4, 8, 16, 32]);
    }

    #[test]
    fn a_look_that_comes_late_still_finds_a_doubling() {
        let pause = Duration::from_secs(300);
        assert!(has_doubled(HOUR, HOUR * 2 + pause + Duration::from_secs(20), pause * 2));
        assert!(!has_doubled(HOUR, HOUR - Duration::from_secs(1), pause * 2));
        assert!(!has_doubled(HOUR, HOUR * 3, pause * 2));
    }
}
