//! Jobs that are over, in a Redis that all instances share. ARCHITECTURE.md says why what is found there is never untrue.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::counter;
use redis::{aio::MultiplexedConnection, cmd, pipe};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_core::{Edition, JobId, JobRecord, Store, StoreError, Timestamp};

use super::{
    SharedReads, SharedRedis, SharedUrlError,
    entry::{self, Entry},
    namespace,
};
use crate::group::{Grouper, Limits};

/// How long a read waits for Redis, which mostly answers within a millisecond.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a write may take, which nobody waits for.
const WRITING: Duration = Duration::from_secs(1);
/// What waits to be written: entries are 32 KiB at most, so 16 MiB.
const WRITE: Limits = Limits { waiting: 512, group: 128, in_flight: 1, gap: Duration::ZERO };
/// What would be true for a shorter time is not written.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long nothing is shared where the store cannot tell its edition.
const USELESS: Duration = Duration::from_secs(60);

/// Where jobs are shared, and for how long.
pub(super) struct Place {
    redis: Arc<SharedRedis>,
    keep: Duration,
}

impl Place {
    pub(super) fn open(url: &str, keep: Duration) -> Result<Self, SharedUrlError> {
        let redis = SharedRedis::open(url, "all reads go to the store until it does")?;
        Ok(Self { redis: Arc::new(redis), keep })
    }
}

/// The shared reads of a client.
pub(crate) struct Sharing {
    redis: Arc<SharedRedis>,
    keep: Duration,
    write: Grouper<Written>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where this system's jobs lie, once that is known.
    namespace: Option<Arc<str>>,
    /// When the store could not tell its edition.
    useless_since: Option<Instant>,
}

struct Written {
    key: String,
    entry: Vec<u8>,
    keep: Duration,
}

impl Sharing {
    /// Writes on `tracker`, until `stop` and what waits then has been written.
    pub(crate) fn start(shared: &SharedReads, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let Place { redis, keep } = &*shared.0;
        let writing = redis.clone();
        let write = Grouper::start(WRITE, tracker, stop, move |group| {
            let redis = writing.clone();
            async move { write_group(&redis, group).await }
        });
        Self { redis: redis.clone(), keep: *keep, write, state: Mutex::default() }
    }

    /// Those of these jobs that Redis has, as they are at the time of the call or later, and the store's edition at such a
    /// time. `None`: Redis is not there, or the store cannot tell its edition.
    pub(crate) async fn look(
        &self,
        store: &dyn Store,
        ids: &[JobId],
    ) -> Result<Option<(Edition, HashMap<JobId, JobRecord>)>, StoreError> {
        let namespace = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.useless_since.is_some_and(|since| since.elapsed() < USELESS) {
                return Ok(None);
            }
            state.namespace.clone()
        };
        let Some(connection) = self.redis.standing() else { return Ok(None) };
        // Side by side where it is known under which names to ask.
        let (edition, found) = match &namespace {
            Some(namespace) => {
                let asked = tokio::join!(self.edition(store), self.fetch(connection.clone(), namespace, ids));
                (asked.0?, asked.1)
            }
            None => (self.edition(store).await?, None),
        };
        let Some(edition) = edition else { return Ok(None) };
        let now: Arc<str> = self::namespace(&edition.system).into();
        let found = match namespace == Some(now.clone()) {
            true => found,
            false => {
                self.state.lock().unwrap_or_else(PoisonError::into_inner).namespace = Some(now.clone());
                self.fetch(connection, &now, ids).await
            }
        };
        let jobs = found.map(|found| believe(&edition, &now, ids, &found)).unwrap_or_default();
        Ok(Some((edition, jobs)))
    }

    /// Has a job that is over written, if it is one to be kept. It must have been read after the edition was.
    pub(crate) fn keep(&self, edition: &Edition, job: &JobRecord) {
        let since = |at: Timestamp| (edition.at - at).to_std().ok();
        let Some(over_for) = job.finished_at.filter(|_| job.state.is_terminal()).and_then(since) else {
            return;
        };
        let result_left = match job.result_until {
            Some(until) => (until - edition.at).to_std().unwrap_or_default(),
            None => Duration::MAX,
        };
        // As in this process: no longer than it has been over, so that what its last attempt had yet to say is not missed
        // for long. By one clock, the store's.
        let keep = self.keep.min(over_for).min(result_left);
        if keep < SHORTEST {
            return;
        }
        let key = entry::key(&namespace(&edition.system), job.id);
        if let Some(entry) = entry::write(edition, &key, job)
            && self.write.add(Written { key, entry, keep }).is_err()
        {
            counter!("windlass_shared_writes_total", "outcome" => "dropped").increment(1);
        }
    }

    /// The store's edition. `None`: it cannot tell.
    async fn edition(&self, store: &dyn Store) -> Result<Option<Edition>, StoreError> {
        counter!("windlass_read_queries_total").increment(1);
        let reason = match store.operations().edition().await {
            Ok(Some(edition)) => return Ok(Some(edition)),
            Err(error) if error.retryable() => return Err(error),
            Err(error) => error.to_string(),
            Ok(None) => "it is of another kind than Postgres".into(),
        };
        tracing::warn!(
            reason,
            "the store cannot tell whether what it says may be shared: reads go to the store for a minute (setting \
             shared_read_cache)"
        );
        self.state.lock().unwrap_or_else(PoisonError::into_inner).useless_since = Some(Instant::now());
        Ok(None)
    }

    /// What lies where these jobs have their places, in their order.
    async fn fetch(
        &self,
        mut connection: MultiplexedConnection,
        namespace: &str,
        ids: &[JobId],
    ) -> Option<Vec<Option<Vec<u8>>>> {
        let mut get = cmd("MGET");
        for id in ids {
            get.arg(entry::key(namespace, *id));
        }
        let found = self.redis.answer(PATIENCE, get.query_async(&mut connection)).await;
        if found.is_none() {
            let count = ids.len().try_into().unwrap_or(u64::MAX);
            counter!("windlass_shared_reads_total", "outcome" => "error").increment(count);
        }
        found
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing")
            .field("redis", &self.redis)
            .field("keep", &self.keep)
            .finish_non_exhaustive()
    }
}

/// What is true of what was found.
fn believe(
    edition: &Edition,
    namespace: &str,
    ids: &[JobId],
    found: &[Option<Vec<u8>>],
) -> HashMap<JobId, JobRecord> {
    let (mut misses, mut errors) = (0, 0);
    let mut jobs = HashMap::new();
    for (id, bytes) in ids.iter().zip(found) {
        let entry = bytes.as_ref().map(|bytes| entry::read(edition, &entry::key(namespace, *id), *id, bytes));
        match entry {
            Some(Entry::True(job)) => drop(jobs.insert(*id, *job)),
            Some(Entry::Old) | None => misses += 1,
            Some(Entry::Garbage) => errors += 1,
        }
    }
    if errors > 0 {
        tracing::debug!(
            errors,
            "Redis has jobs that no process of this system has written so; the store is asked"
        );
    }
    let hits = jobs.len().try_into().unwrap_or(u64::MAX);
    for (outcome, count) in [("hit", hits), ("miss", misses), ("error", errors)] {
        if count > 0 {
            counter!("windlass_shared_reads_total", "outcome" => outcome).increment(count);
        }
    }
    jobs
}

async fn write_group(redis: &Arc<SharedRedis>, group: Vec<Written>) {
    let count = group.len().try_into().unwrap_or(u64::MAX);
    let stored = match redis.standing() {
        Some(mut connection) => {
            let mut all = pipe();
            for Written { key, entry, keep } in group {
                let millis = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
                all.cmd("SET").arg(key).arg(entry).arg("PX").arg(millis).ignore();
            }
            let writing = async {
                match all.query_async::<()>(&mut connection).await {
                    Ok(()) => Ok(true),
                    // It answers, and will not have it, as one that is full. What it has can be read.
                    Err(error) if error.code().is_some() => {
                        tracing::debug!(%error, "Redis does not keep jobs for shared reads");
                        Ok(false)
                    }
                    Err(error) => Err(error),
                }
            };
            redis.answer(WRITING, writing).await
        }
        None => None,
    };
    let outcome = if stored == Some(true) { "stored" } else { "failed" };
    counter!("windlass_shared_writes_total", "outcome" => outcome).increment(count);
}
