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
use windlass_core::{Edition, JobId, JobRecord, Store, StoreError, Timestamp};

use crate::{
    ClientError,
    group::{Grouper, Limits},
    shared::{SharedReads, Sharing},
};

/// The gap bounds what polls cost the store, however many there are: some hundreds of queries a second. One that comes alone
/// does not wait.
const READ: Limits = Limits { waiting: 100_000, group: 1_000, in_flight: 2, gap: Duration::from_millis(5) };

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
    age: Age,
    answer: oneshot::Sender<Result<Read, ClientError>>,
}

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// As the job is at the time of the call or later.
    Now,
    /// A job that is not over may be shown as it was as long ago as a replica may be behind.
    Recent,
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
pub(crate) struct Place {
    revision: u64,
    shared: bool,
}

impl Place {
    /// Whether another instance has read it from the store. What it refers to there may be gone by now.
    pub(crate) fn is_shared(self) -> bool {
        self.shared
    }
}

impl Reads {
    /// Keeps up to `room` bytes of jobs that are over, and others where all instances have them.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        room: u64,
        shared: Option<&SharedReads>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let sharing = shared.map(|shared| Sharing::start(shared, tracker, stop.clone()));
        let shelf = Arc::new(Shelf::new(room, sharing));
        let reading = shelf.clone();
        let ask = Grouper::start(READ, tracker, stop, move |group| {
            let (store, shelf) = (store.clone(), reading.clone());
            async move { read_group(&*store, &shelf, group).await }
        });
        Self { ask, shelf }
    }

    pub(crate) async fn read(&self, id: JobId, age: Age) -> Result<Read, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.ask.add(Asked { id, age, answer }).map_err(|refused| match refused {
            TrySendError::Full(_) => ClientError::Overloaded,
            TrySendError::Closed(_) => ClientError::Closed,
        })?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }

    /// Those of these jobs that exist, as recent as [`Age::Recent`] wants it.
    pub(crate) async fn recent(
        &self,
        store: &dyn Store,
        ids: &[JobId],
    ) -> Result<HashMap<JobId, JobRecord>, StoreError> {
        let found = self.shelf.replicated(store, ids, None).await?;
        let mut jobs: HashMap<JobId, JobRecord> =
            found.into_iter().map(|(id, found)| (id, found.job)).collect();
        let rest: Vec<JobId> = ids.iter().copied().filter(|id| !jobs.contains_key(id)).collect();
        if !rest.is_empty() {
            jobs.extend(store.get(&rest).await?.into_iter().map(|job| (job.id, job)));
        }
        Ok(jobs)
    }

    /// Keeps a job that is over for those who read it next.
    pub(crate) fn keep(&self, place: Place, job: &Arc<JobRecord>) {
        if job.state.is_terminal() {
            self.shelf.jobs.insert(job.id, Kept { revision: place.revision, job: job.clone() });
        }
    }
}

/// Jobs that are over. What is kept of one is true while the store's revision is the one it was read under.
#[derive(Debug)]
struct Shelf {
    jobs: Cache<JobId, Kept>,
    /// The newest revision this process has seen; [`UNKNOWN`] before the first.
    revision: AtomicU64,
    sharing: Option<Sharing>,
}

const UNKNOWN: u64 = u64::MAX;

#[derive(Debug, Clone)]
struct Kept {
    revision: u64,
    job: Arc<JobRecord>,
}

impl Shelf {
    fn new(room: u64, sharing: Option<Sharing>) -> Self {
        let jobs = Cache::builder()
            .max_capacity(room)
            .weigher(|_, kept: &Kept| weight(&kept.job))
            .expire_after(Fading)
            .build();
        Self { jobs, revision: AtomicU64::new(UNKNOWN), sharing }
    }

    async fn newest_revision(&self, store: &dyn Store) -> Result<u64, StoreError> {
        let revision = store.operations().revision().await?;
        metrics::counter!("windlass_read_queries_total").increment(1);
        self.revision.store(revision, Ordering::Relaxed);
        Ok(revision)
    }

    /// What all instances have of these jobs, with the store's edition; nothing where nothing is shared just now.
    async fn shared(&self, store: &dyn Store, ids: &[JobId]) -> Result<Option<Shared<'_>>, StoreError> {
        let (Some(sharing), false) = (&self.sharing, ids.is_empty()) else { return Ok(None) };
        let Some((edition, jobs)) = sharing.look(store, ids).await? else { return Ok(None) };
        self.revision.store(edition.revision, Ordering::Relaxed);
        Ok(Some(Shared { sharing, edition, jobs }))
    }

    /// What a replica has of these jobs. One that is over stays so unless an operator says otherwise, which the replica may
    /// not know yet: that is checked by the store's revision, if it has not been asked for `now`.
    async fn replicated(
        &self,
        store: &dyn Store,
        ids: &[JobId],
        now: Option<u64>,
    ) -> Result<HashMap<JobId, Found>, StoreError> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let Some((mut jobs, revision)) = ask_replica(store, ids).await else { return Ok(HashMap::new()) };
        if jobs.iter().any(|job| job.state.is_terminal()) {
            let now = match now {
                Some(now) => now,
                None => self.newest_revision(store).await?,
            };
            jobs.retain(|job| !job.state.is_terminal() || revision >= now);
        }
        let found = |job: JobRecord| (job.id, Found { job, revision, source: "replica" });
        Ok(jobs.into_iter().map(found).collect())
    }
}

/// What all instances have of some jobs.
struct Shared<'a> {
    sharing: &'a Sharing,
    edition: Edition,
    jobs: HashMap<JobId, JobRecord>,
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
        let left = kept.job.result_until.map(|until| until - Timestamp::from(std::time::SystemTime::now()));
        let left = left.map_or(Duration::MAX, |left| left.to_std().unwrap_or_default());
        Some(over_for(&kept.job).clamp(KEPT.0, KEPT.1).min(left))
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
        Ok((kept, stored)) => {
            for Asked { id, answer, .. } in group {
                let (read, source) = match (kept.get(&id), stored.get(&id)) {
                    (Some(job), _) => (Read::Kept(job.clone()), "memory"),
                    (None, Some(found)) => {
                        let place = Place { revision: found.revision, shared: found.source == SHARED };
                        (Read::Stored(Box::new(found.job.clone()), place), found.source)
                    }
                    (None, None) => (Read::Nothing, STORE),
                };
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

const STORE: &str = "store";
const SHARED: &str = "shared";

/// A job as it was read.
struct Found {
    job: JobRecord,
    /// Known before it was read, to whom it was read from.
    revision: u64,
    source: &'static str,
}

type Looked = (HashMap<JobId, Arc<JobRecord>>, HashMap<JobId, Found>);

/// What is kept and still true, and what is not from where all instances have it, from a replica or the store.
async fn look(store: &dyn Store, shelf: &Shelf, group: &[Asked]) -> Result<Looked, StoreError> {
    let mut kept: HashMap<JobId, Kept> =
        group.iter().filter_map(|asked| Some((asked.id, shelf.jobs.get(&asked.id)?))).collect();
    let known = shelf.revision.load(Ordering::Relaxed);
    let mut shared =
        shelf.shared(store, &ids(group.iter().filter(|asked| !kept.contains_key(&asked.id)))).await?;
    // Asked after the callers have, so that whatever they know to have happened is in it. To file what is read now, an
    // older one does as well.
    let now = match &shared {
        Some(shared) => Some(shared.edition.revision),
        None if kept.is_empty() && known != UNKNOWN => None,
        None => Some(shelf.newest_revision(store).await?),
    };
    kept.retain(|_, kept| Some(kept.revision) == now);

    let mut stored = HashMap::new();
    if let Some(Shared { edition, jobs, .. }) = &mut shared {
        let found = |job: JobRecord| (job.id, Found { job, revision: edition.revision, source: SHARED });
        stored.extend(std::mem::take(jobs).into_values().map(found));
    }
    let lacking = |asked: &&Asked| !kept.contains_key(&asked.id) && !stored.contains_key(&asked.id);
    let recent = ids(group.iter().filter(|asked| asked.age == Age::Recent).filter(lacking));
    stored.extend(shelf.replicated(store, &recent, now).await?);
    // Where one id is asked for both ways, those who want the newest get it.
    let wanted = |asked: &&Asked| {
        let found = stored.get(&asked.id);
        let suits = |found: &Found| asked.age == Age::Recent || found.source == SHARED;
        !kept.contains_key(&asked.id) && !found.is_some_and(suits)
    };
    let rest = ids(group.iter().filter(wanted));
    if !rest.is_empty() {
        metrics::counter!("windlass_read_queries_total").increment(1);
        let revision = now.unwrap_or(known);
        let found = store.get(&rest).await?.into_iter();
        stored.extend(found.map(|job| (job.id, Found { job, revision, source: STORE })));
    }
    if let Some(Shared { sharing, edition, .. }) = &shared {
        let fresh = |found: &&Found| found.source != SHARED && found.revision == edition.revision;
        stored.values().filter(fresh).for_each(|found| sharing.keep(edition, &found.job));
    }
    let kept = kept.into_iter().map(|(id, kept)| (id, kept.job)).collect();
    Ok((kept, stored))
}

fn ids<'a>(asked: impl Iterator<Item = &'a Asked>) -> Vec<JobId> {
    let mut ids: Vec<JobId> = asked.map(|asked| asked.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// What a replica has of these jobs, and the revision it knew before it was asked for them. Nothing where no replica is
/// near enough, or it fails.
async fn ask_replica(store: &dyn Store, ids: &[JobId]) -> Option<(Vec<JobRecord>, u64)> {
    let replica = store.replica()?;
    let read = async {
        let revision = replica.operations().revision().await?;
        Ok((replica.get(ids).await?, revision))
    };
    read.await.inspect_err(passed_over).ok()
}

/// Asks a replica that is near enough; and the store where there is none, or it fails.
macro_rules! recently {
    ($client:expr, |$store:ident| $ask:expr) => {{
        let replica = $client.store().replica();
        let answer = match &replica {
            Some($store) => $ask.await.inspect_err($crate::reads::passed_over).ok(),
            None => None,
        };
        match answer {
            Some(answer) => Ok(answer),
            None => {
                let $store = $client.store();
                $ask.await
            }
        }
    }};
}
pub(crate) use recently;

/// A replica has failed at a read, which the store itself does now.
pub(crate) fn passed_over(error: &StoreError) {
    tracing::debug!(%error, "a replica failed at a read; the primary does it");
    metrics::counter!("windlass_replica_failures_total").increment(1);
}
