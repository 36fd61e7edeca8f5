//! Following queues: for each that someone follows, one task per process looks at its newest jobs and at those that run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, broadcast, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_core::{JobFilter, JobId, QueueName, Standing, State, Store, StoreError, Tenant, Timestamp};

use crate::{Client, ClientError};

/// How often a queue is looked at.
const TICK: Duration = Duration::from_secs(1);
/// The part of the time that may go into looking, one in so many.
const SHARE: u32 = 10;
/// How many jobs one look finds of each sort, the newest and those that run; also how many are asked about in one query.
const PAGE: usize = 1_000;
/// How many jobs that are not over are kept in mind. Older ones show again once they run.
const IN_MIND: usize = 5_000;
/// How many changes are kept for those who do not read them at once.
const BUFFER: usize = 1_000;
/// How much later than its id says a job may be committed, clocks that differ included.
const LATE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Whose jobs of which queue.
type Whose = (QueueName, Option<Tenant>);

/// The queues that someone follows.
#[derive(Debug)]
pub(crate) struct QueueFeeds {
    store: Arc<dyn Store>,
    // Never held across an await.
    feeds: Mutex<HashMap<Whose, Feed>>,
    /// However many queues are followed, the store has one question of theirs at a time.
    turn: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug, Clone)]
struct Feed {
    changes: broadcast::Sender<Standing>,
    ready: watch::Sender<bool>,
}

impl QueueFeeds {
    pub(crate) fn new(store: Arc<dyn Store>, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { store, feeds: Mutex::default(), turn: Semaphore::new(1), tasks, stop }
    }

    fn follow(self: &Arc<Self>, whose: Whose) -> QueueWatch {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let feed = feeds.entry(whose.clone()).or_insert_with(|| {
            let feed = Feed { changes: broadcast::channel(BUFFER).0, ready: watch::channel(false).0 };
            self.tasks.spawn(self.clone().run(whose, feed.clone()));
            feed
        });
        QueueWatch { changes: feed.changes.subscribe(), ready: Some(feed.ready.subscribe()) }
    }

    /// Whether nobody follows any longer; then the next who does begins anew.
    fn forgotten(&self, whose: &Whose) -> bool {
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = feeds.get(whose).is_none_or(|feed| feed.changes.receiver_count() == 0);
        if forgotten {
            feeds.remove(whose);
        }
        forgotten
    }

    async fn run(self: Arc<Self>, whose: Whose, feed: Feed) {
        let mut seen = Seen::new(&whose);
        let mut failing = false;
        loop {
            if self.forgotten(&whose) {
                return;
            }
            let Ok(turn) = self.turn.acquire().await else { return };
            let begun = Instant::now();
            let looked = seen.look(&*self.store).await;
            drop(turn);
            match looked {
                Ok(changes) => {
                    failing = false;
                    // What the first look finds has not changed.
                    let told = if feed.ready.send_replace(true) { changes } else { Vec::new() };
                    for change in told {
                        // Nobody may be left to hear of it.
                        let _ = feed.changes.send(change);
                    }
                }
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(queue = whose.0.as_str(), %error, "a queue cannot be followed; trying again");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(TICK.max(begun.elapsed() * SHARE)) => {}
            }
        }
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner).remove(&whose);
    }
}

/// What is known of a queue's jobs.
struct Seen {
    filter: JobFilter,
    jobs: BTreeMap<JobId, Standing>,
    /// When the newest jobs were last looked at.
    last: Option<Timestamp>,
}

impl Seen {
    fn new((queue, tenant): &Whose) -> Self {
        let filter = JobFilter { queue: Some(queue.clone()), tenant: tenant.clone(), ..JobFilter::default() };
        Self { filter, jobs: BTreeMap::new(), last: None }
    }

    /// What has changed since the last look, in the order of the jobs.
    async fn look(&mut self, store: &dyn Store) -> Result<Vec<Standing>, StoreError> {
        let operations = store.operations();
        let now = chrono::Utc::now();
        // Ids hold the times at which they were made, so that no look goes through the whole table.
        let since = self.last.unwrap_or(now).min(now).checked_sub_signed(LATE).unwrap_or(now);
        let newest = JobFilter { created_after: Some(since), ..self.filter.clone() };
        let running = JobFilter { states: vec![State::Running], ..self.filter.clone() };
        let newest = operations.find(&newest, None, PAGE).await?.ids;
        let running = operations.find(&running, None, PAGE).await?.ids;
        let open = self.jobs.values().filter(|job| !job.state.is_terminal()).map(|job| job.id);
        let mut ids: Vec<JobId> = newest.iter().copied().chain(running).chain(open).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut now_seen = BTreeMap::new();
        for page in ids.chunks(PAGE) {
            now_seen.extend(operations.standing(page).await?.into_iter().map(|job| (job.id, job)));
        }
        let changed = |job: &&Standing| self.jobs.get(&job.id) != Some(*job);
        let changes = now_seen.values().filter(changed).copied().collect();
        // Those that are over stay as long as a look may find them again.
        let oldest = JobId::least_at(since);
        now_seen.retain(|id, job| !job.state.is_terminal() || *id >= oldest);
        while now_seen.len() > IN_MIND + PAGE {
            now_seen.pop_first();
        }
        self.jobs = now_seen;
        self.last = Some(now);
        Ok(changes)
    }
}

/// What happens to the jobs of a queue, from [`Client::watch_queue`].
#[derive(Debug)]
pub struct QueueWatch {
    changes: broadcast::Receiver<Standing>,
    /// Until it has been told.
    ready: Option<watch::Receiver<bool>>,
}

/// What there is to tell of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueNews {
    /// From here on, changes are told: first of all, once.
    Ready,
    /// A job is new, or stands elsewhere.
    Job(Standing),
    /// So many changes were not read in time, and are gone.
    Lagged(u64),
}

impl QueueWatch {
    /// The next news. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when the client has been closed.
    pub async fn next(&mut self) -> Result<QueueNews, ClientError> {
        if let Some(ready) = &mut self.ready {
            ready.wait_for(|ready| *ready).await.map_err(|_| ClientError::Closed)?;
            self.ready = None;
            return Ok(QueueNews::Ready);
        }
        match self.changes.recv().await {
            Ok(job) => Ok(QueueNews::Job(job)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Ok(QueueNews::Lagged(missed)),
            Err(broadcast::error::RecvError::Closed) => Err(ClientError::Closed),
        }
    }
}

impl Client {
    /// Follows the jobs of a queue, or those of one tenant. However many do in this process, one task for each queue looks
    /// once a second at its newest jobs and at those that run: what came and went in between is skipped, and so is an old
    /// job that is over before a look has found it running. Who does not read what is told loses the oldest of it, and
    /// [hears](QueueNews::Lagged) of that.
    ///
    /// ```no_run
    /// # use windlass_client::{Client, ClientError, QueueNews};
    /// # async fn follow(client: Client) -> Result<(), ClientError> {
    /// let mut watch = client.watch_queue("mail".parse()?, None);
    /// loop {
    ///     if let QueueNews::Job(job) = watch.next().await? {
    ///         println!("{} is {}", job.id, job.state);
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch_queue(&self, queue: QueueName, tenant: Option<Tenant>) -> QueueWatch {
        self.queue_feeds().follow((queue, tenant))
    }
}
