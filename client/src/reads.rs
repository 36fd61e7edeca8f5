//! Reads of single jobs: those asked for at the same time share a query, and jobs that are over are kept in memory.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use moka::{Expiry, sync::Cache};
use tokio::sync::{mpsc::error::TrySendError, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_core::{JobId, JobRecord, Store, StoreError, Timestamp};

use crate::{
    ClientError,
    group::{Grouper, Limits},
};

const READ: Limits = Limits { waiting: 100_000, group: 1_000, in_flight: 2 };

/// Bounds on how long a job that is over is kept in memory: as long as it has been over. So what its last attempt had yet
/// to say is not missed for long, nor the end of a result that is not kept as long as its job.
const KEPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Reads of single jobs.
#[derive(Debug)]
pub(crate) struct Reads {
    ask: Grouper<Asked>,
    shelf: Arc<Shelf>,
}

#[derive(Debug)]
struct Asked {
    id: JobId,
    answer: oneshot::Sender<Result<Read, ClientError>>,
}

/// What a read has found.
#[derive(Debug)]
pub(crate) enum Read {
    /// There is no such job.
    Nothing,
    /// As it was handed to [`keep`](Reads::keep).
    Kept(Arc<JobRecord>),
    /// As it came from the store, to be opened, and then to be [kept](Reads::keep).
    Stored(Box<JobRecord>, Place),
}

/// Where a job may be kept: under a revision that was known before it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place(u64);

impl Reads {
    /// Keeps up to `room` bytes of jobs that are over.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        room: u64,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let shelf = Arc::new(Shelf::new(room));
        let reading = shelf.clone();
        let ask = Grouper::start(READ, tracker, stop, move |group| {
            let (store, shelf) = (store.clone(), reading.clone());
            async move { read_group(&*store, &shelf, group).await }
        });
        Self { ask, shelf }
    }

    /// Reads a job as it is at the time of the call or later.
    pub(crate) async fn read(&self, id: JobId) -> Result<Read, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.ask.add(Asked { id, answer }).map_err(|refused| match refused {
            TrySendError::Full(_) => ClientError::Overloaded,
            TrySendError::Closed(_) => ClientError::Closed,
        })?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }

    /// Keeps a job that is over for those who read it next.
    pub(crate) fn keep(&self, place: Place, job: &Arc<JobRecord>) {
        if job.state.is_terminal() {
            self.shelf.jobs.insert(job.id, Kept { revision: place.0, job: job.clone() });
        }
    }
}

/// Jobs that are over. What is kept of one is true while the store's revision is the one it was read under.
#[derive(Debug)]
struct Shelf {
    jobs: Cache<JobId, Kept>,
    /// The newest revision this process has seen; [`UNKNOWN`] before the first.
    revision: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

#[derive(Debug, Clone)]
struct Kept {
    revision: u64,
    job: Arc<JobRecord>,
}

impl Shelf {
    fn new(room: u64) -> Self {
        let jobs = Cache::builder()
            .max_capacity(room)
            .weigher(|_, kept: &Kept| weight(&kept.job))
            .expire_after(Fading)
            .build();
        Self { jobs, revision: AtomicU64::new(UNKNOWN) }
    }

    async fn newest_revision(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let revision = store.operations().revision().await?;
        metrics::counter!("windlass_read_queries_total").increment(1);
        self.revision.store(revision, Ordering::Relaxed);
        Ok(revision)
    }
}

/// The memory that a job takes, more or less, in bytes.
fn weight(job: &JobRecord) -> u32 {
    let result = job.result.as_ref().map_or(0, |result| result.get().len());
    let errors: usize = job.errors.iter().map(|error| 100 + error.message.len()).sum();
    let labels: usize = job.labels.iter().map(|(name, value)| 100 + name.len() + value.len()).sum();
    u32::try_from(600 + result + errors + labels).unwrap_or(u32::MAX)
}

struct Fading;

impl Expiry<JobId, Kept> for Fading {
    fn expire_after_create(&self, _: &JobId, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(over_for(&kept.job).clamp(KEPT.0, KEPT.1))
    }

    fn expire_after_update(
        &self,
        id: &JobId,
        kept: &Kept,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(id, kept, now)
    }
}

/// How long the job has been over, by this machine's clock.
fn over_for(job: &JobRecord) -> Duration {
    let since = job.finished_at.map(|at| Timestamp::from(std::time::SystemTime::now()) - at);
    since.and_then(|since| since.to_std().ok()).unwrap_or_default()
}

async fn read_group(store: &dyn Store, shelf: &Shelf, group: Vec<Asked>) {
    // A caller that has gone need not be answered.
    let group: Vec<Asked> = group.into_iter().filter(|asked| !asked.answer.is_closed()).collect();
    match look(store, shelf, &group).await {
        Ok((kept, stored, place)) => {
            for Asked { id, answer } in group {
                let read = match (kept.get(&id), stored.get(&id)) {
                    (Some(job), _) => Read::Kept(job.clone()),
                    (None, Some(job)) => Read::Stored(Box::new(job.clone()), place),
                    (None, None) => Read::Nothing,
                };
                let source = if matches!(read, Read::Kept(_)) { "memory" } else { "store" };
                metrics::counter!("windlass_reads_total", "source" => source).increment(1);
                let _ = answer.send(Ok(read));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for asked in group {
                let _ = asked.answer.send(Err(ClientError::Store(error.clone())));
            }
        }
    }
}

type Looked = (HashMap<JobId, Arc<JobRecord>>, HashMap<JobId, JobRecord>, Place);

/// What is kept and still true, and from the store what is not.
async fn look(store: &dyn Store, shelf: &Shelf, group: &[Asked]) -> Result<Looked, StoreError> {
    let mut kept: HashMap<JobId, Kept> =
        group.iter().filter_map(|asked| Some((asked.id, shelf.jobs.get(&asked.id)?))).collect();
    let known = shelf.revision.load(Ordering::Relaxed);
    // Asked after the callers have, so that whatever they know to have happened is in it. To file what is read now, an
    // older one does as well.
    let revision = match kept.is_empty() && known != UNKNOWN {
        true => known,
        false => shelf.newest_revision(store).await?,
    };
    kept.retain(|_, kept| kept.revision == revision);
    let mut ids: Vec<JobId> =
        group.iter().map(|asked| asked.id).filter(|id| !kept.contains_key(id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut stored = HashMap::new();
    if !ids.is_empty() {
        metrics::counter!("windlass_read_queries_total").increment(1);
        stored.extend(store.get(&ids).await?.into_iter().map(|job| (job.id, job)));
    }
    let kept = kept.into_iter().map(|(id, kept)| (id, kept.job)).collect();
    Ok((kept, stored, Place(revision)))
}
