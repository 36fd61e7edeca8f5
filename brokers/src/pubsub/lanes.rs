//! Lanes as a topic with one subscription, both under the lane's name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::{ExpirationPolicy, Subscription};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};
use tokio::time::Instant;
use windlass_core::Lane;

use super::LEASE;
use super::client::Client;
use super::problem::Problem;

/// How long a lane is taken to exist. Publishing to a topic without a subscription succeeds, and the messages are
/// gone: nothing but asking tells of a subscription that somebody deleted.
const RECHECK: Duration = Duration::from_secs(300);
/// The longest that every project may have, in seconds: 7 days.
const RETENTION: i64 = 7 * 24 * 60 * 60;
/// What a subscription's topic is called once that was deleted.
const DELETED: &str = "_deleted-topic_";

/// The lanes that this process has to do with.
pub(super) struct Lanes {
    pub(super) client: Arc<Client>,
    entries: Mutex<HashMap<Lane, Arc<Entry>>>,
}

#[derive(Default)]
struct Entry {
    /// Which life of the lane is the present one: a lane that was lost and made anew knows nothing of old messages.
    epoch: AtomicU64,
    /// When the lane of an epoch was last seen. Publishing holds the lock for reading and making the lane for
    /// writing, so that no message gets to a topic which is there again before its subscription is. Other processes may
    /// still publish in that moment; what they lose, the store publishes again.
    seen: Arc<RwLock<Option<Seen>>>,
}

#[derive(Clone, Copy)]
struct Seen {
    epoch: u64,
    at: Instant,
}

/// A lane that exists, and is not made anew by this process while this is held.
pub(super) struct Place {
    pub(super) epoch: u64,
    _there: OwnedRwLockReadGuard<Option<Seen>>,
}

impl Lanes {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, entries: Mutex::default() }
    }

    /// Sees to it that `lane` exists.
    pub(super) async fn place(&self, lane: &Lane) -> Result<Place, Problem> {
        let entry = self.entry(lane);
        loop {
            let there = Arc::clone(&entry.seen).read_owned().await;
            if let Some(seen) = entry.fresh(*there) {
                return Ok(Place { epoch: seen.epoch, _there: there });
            }
            drop(there);
            let mut seen = entry.seen.write().await;
            if entry.fresh(*seen).is_none() {
                self.make(lane, &entry).await?;
                *seen = Some(Seen { epoch: entry.epoch(), at: Instant::now() });
            }
        }
    }

    /// Which life of `lane` is the present one.
    pub(super) fn epoch(&self, lane: &Lane) -> u64 {
        self.entry(lane).epoch()
    }

    /// The lane of `epoch` is not there any more.
    pub(super) fn lost(&self, lane: &Lane, epoch: u64) {
        self.entry(lane).end(epoch);
    }

    pub(super) async fn delete(&self, lane: &Lane) -> Result<(), Problem> {
        let gone = |answer| match answer {
            Err(Problem::NotFound(_)) => Ok(()),
            answer => answer,
        };
        // The topic first: nothing is confirmed that no subscription would get.
        let address = &self.client.address;
        gone(self.client.delete_topic(address.topic(lane)).await)?;
        gone(self.client.delete_subscription(address.subscription(lane)).await)?;
        self.lost(lane, self.epoch(lane));
        Ok(())
    }

    async fn make(&self, lane: &Lane, entry: &Entry) -> Result<(), Problem> {
        let address = &self.client.address;
        let (topic, name) = (address.topic(lane), address.subscription(lane));
        // Others may be making it too, or deleting it.
        for _ in 0..5 {
            match self.client.get_subscription(name.clone()).await {
                Ok(found) if found.topic == topic => return fits(&found, lane),
                Ok(found) if found.topic == DELETED => {
                    match self.client.delete_subscription(name.clone()).await {
                        Ok(()) | Err(Problem::NotFound(_)) => {}
                        Err(problem) => return Err(problem),
                    }
                }
                Ok(_) => return Err(taken(lane, "belongs to another topic")),
                Err(Problem::NotFound(_)) => {}
                Err(problem) => return Err(problem),
            }
            entry.end(entry.epoch());
            match self.client.create_topic(topic.clone()).await {
                Ok(()) | Err(Problem::Exists) => {}
                Err(problem) => return Err(problem.no_project(address)),
            }
            match self.client.create_subscription(settings(name.clone(), topic.clone())).await {
                Ok(()) => return Ok(()),
                Err(Problem::Exists | Problem::NotFound(_)) => {}
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::Outage(format!("the lane {lane} is being deleted time and again")))
    }

    fn entry(&self, lane: &Lane) -> Arc<Entry> {
        // Held for this look only.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(lane) {
            return Arc::clone(entry);
        }
        Arc::clone(entries.entry(lane.clone()).or_default())
    }
}

impl Entry {
    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    fn end(&self, epoch: u64) {
        // Does nothing when somebody else was first to notice.
        let _ = self.epoch.compare_exchange(epoch, epoch + 1, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn fresh(&self, seen: Option<Seen>) -> Option<Seen> {
        seen.filter(|seen| seen.epoch == self.epoch() && seen.at.elapsed() < RECHECK)
    }
}

fn settings(name: String, topic: String) -> Subscription {
    Subscription {
        name,
        topic,
        ack_deadline_seconds: LEASE,
        message_retention_duration: Some(prost_types::Duration { seconds: RETENTION, nanos: 0 }),
        // Never, however long nobody works: by default after a month.
        expiration_policy: Some(ExpirationPolicy { ttl: None }),
        ..Subscription::default()
    }
}

/// Refuses what would take messages away or keep them from us. All else, as its deadline, may be as the operator
/// likes it.
fn fits(found: &Subscription, lane: &Lane) -> Result<(), Problem> {
    let pushes = found.push_config.as_ref().is_some_and(|push| !push.push_endpoint.is_empty());
    let exports = found.bigquery_config.is_some()
        || found.bigtable_config.is_some()
        || found.cloud_storage_config.is_some();
    let how = if pushes || exports {
        "sends its messages elsewhere"
    } else if !found.filter.is_empty() || !found.message_transforms.is_empty() {
        "filters or changes messages"
    } else if found.dead_letter_policy.is_some() {
        "has a dead-letter topic, which messages that full workers give back would end in"
    } else if found.detached {
        "is detached from its topic"
    } else {
        return Ok(());
    };
    Err(taken(lane, how))
}

fn taken(lane: &Lane, how: &str) -> Problem {
    Problem::config(
        format!("broker_url: the subscription for {lane} exists there and {how}"),
        "delete that subscription (unfinished jobs are published again) or use another prefix",
    )
}
