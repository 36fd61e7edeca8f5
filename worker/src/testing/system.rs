use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use windlass_client::{Client, ClientError, ClientOptions, Settings};
use windlass_core::{Job, JobFilter, JobRecord, Kind, QueueName, State, Timestamp};
use windlass_store::{StoreOptions, VirtualClock};

use super::{TestError, TestJob, TestJobs, jobs::told};
use crate::{
    Worker, WorkerError, WorkerOptions, handler::read, maintenance::catch_up, schedule, session::Session,
};

/// How long, in real time, what is due at one instant may take, unless the test says otherwise.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pauses between looks at what still runs.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(10);
/// The worker must not lose its jobs by a jump of the clock.
const LEASE: Duration = Duration::from_secs(1000 * 365 * 86_400);
/// Jobs read at once.
const PAGE: usize = 1000;

/// A whole system for a test: a store and a broker of its own that need no server, the user's own worker, and a clock that
/// stands still unless the test moves it.
///
/// The worker is a real one, and does what it does in production: jobs that are due at the same time run side by side,
/// in layers and batches if there are any, with retries, schedules, limits, workflows and expiry by the clock. A job that the
/// worker would not take, since it has no handler for its kind or does not look into its queue, stays as it was enqueued, as does
/// one of a paused queue.
///
/// The clock is that of the store, and of delays that are enqueued. What goes on *within* an attempt takes real time:
/// `tokio::time::sleep` in a handler, its timeout, the `max_wait` of a batch, a `RateLayer`. Tokio's paused time does not help
/// there, since the store works on threads of its own that it does not know of: its calls would time out. Let handlers
/// take such times from a `State`, and give them short ones in tests.
pub struct TestSystem {
    client: Client,
    clock: VirtualClock,
    kinds: BTreeSet<Kind>,
    queues: BTreeSet<QueueName>,
    worker: Option<RunningWorker>,
    patience: Duration,
    _folder: TempDir,
}

struct RunningWorker {
    task: AbortOnDropHandle<Result<(), WorkerError>>,
    sessions: watch::Receiver<Option<Arc<Session>>>,
}

impl TestSystem {
    /// A system whose clock shows the present, with the worker that `configure` makes of an empty one. Without any handler,
    /// jobs are enqueued and not run.
    ///
    /// # Errors
    /// As for [`Worker::run`]; also when there is no place for the store.
    pub async fn start(configure: impl FnOnce(Worker) -> Worker) -> Result<Self, TestError> {
        Self::start_at(chrono::Utc::now(), configure).await
    }

    /// As [`start`](Self::start), with a clock that shows `time`, to the microsecond.
    ///
    /// # Errors
    /// As for [`start`](Self::start).
    pub async fn start_at(
        time: Timestamp,
        configure: impl FnOnce(Worker) -> Worker,
    ) -> Result<Self, TestError> {
        let folder = tempfile::tempdir().map_err(TestError::Folder)?;
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let clock = VirtualClock::at(time);
        let options = StoreOptions { clock: Some(clock.clone()), ..StoreOptions::default() };
        let store = windlass_store::open(&url, &options).await?;
        store.migrate().await?;
        let broker = windlass_brokers::open("memory:").await.map_err(ClientError::from)?;
        let options = ClientOptions { clock: Some(clock.clone()), ..ClientOptions::default() };
        let client = Client::new(store, broker, options);

        let options =
            WorkerOptions { lease: LEASE, label: "test".into(), ..WorkerOptions::from(&Settings::default()) };
        let mut worker = configure(Worker::new(client.clone(), options));
        schedule::put(&client, std::mem::take(&mut worker.schedules), &CancellationToken::new())
            .await
            .map_err(TestError::Worker)?;
        for (name, limit) in &worker.limits {
            client.store().operations().set_limit(name, *limit).await?;
        }
        let mut system = Self {
            client,
            clock,
            kinds: BTreeSet::new(),
            queues: BTreeSet::new(),
            worker: None,
            patience: PATIENCE,
            _folder: folder,
        };
        match worker.checked() {
            Err(WorkerError::NoHandler) => {}
            Err(error) => return Err(TestError::Worker(error)),
            Ok(running) => {
                system.kinds = running.kinds.iter().map(|info| info.kind.clone()).collect();
                system.queues = running.options.queues.iter().cloned().collect();
                let mut sessions = running.sessions.subscribe();
                let mut task = AbortOnDropHandle::new(tokio::spawn(running.run(CancellationToken::new())));
                tokio::select! {
                    ready = sessions.wait_for(Option::is_some) => drop(ready),
                    ended = &mut task => return Err(match ended {
                        Ok(Err(error)) => TestError::Worker(error),
                        _ => TestError::WorkerEnded,
                    }),
                }
                system.worker = Some(RunningWorker { task, sessions });
            }
        }
        Ok(system)
    }

    /// Lets what is due at one instant take so much real time, instead of a minute, before it is taken for endless.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The client, to enqueue jobs and whatever else the program does with it.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What the clock shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Runs everything that is due now, what that enqueues for now, and so on, and comes back when nothing is left to do
    /// before the clock moves.
    ///
    /// # Errors
    /// [`TestError::Restless`] when that takes more real time than the [patience](Self::patience), naming the jobs at work: a handler that hangs,
    /// or jobs that enqueue each other for ever.
    pub async fn drain(&self) -> Result<(), TestError> {
        let started = Instant::now();
        let mut pause = FIRST_LOOK;
        let mut before = None;
        loop {
            self.look_after_worker().await?;
            let done = catch_up(&self.client).await?;
            let active = self.active().await?;
            if done == 0 && active.is_empty() {
                // The worker may have done something between the two looks, and left something to do: so twice the same.
                let now = Some(self.picture().await?);
                if now == before {
                    return Ok(());
                }
                before = now;
                continue;
            }
            before = None;
            if started.elapsed() > self.patience {
                return Err(TestError::Restless(restless(self.patience, &active)));
            }
            // Messages that were dropped while a queue was paused, say, come again.
            self.client.nudge_relay();
            sleep(pause).await;
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Moves the clock on, and runs what falls due, everything at its own time: retries, delays, schedules, expiry. A job that
    /// fails and is retried after ten minutes has run seven times after an hour, the schedules between as often as
    /// they should.
    ///
    /// # Errors
    /// As for [`drain`](Self::drain), which may take its time at each of these instants.
    pub async fn advance(&self, by: Duration) -> Result<(), TestError> {
        let by = chrono::TimeDelta::from_std(by).ok();
        let end = by.and_then(|by| self.now().checked_add_signed(by)).unwrap_or(Timestamp::MAX_UTC);
        self.advance_to(end).await
    }

    /// As [`advance`](Self::advance), to this instant. One that has passed already moves nothing.
    ///
    /// # Errors
    /// As for [`advance`](Self::advance).
    pub async fn advance_to(&self, end: Timestamp) -> Result<(), TestError> {
        self.drain().await?;
        while self.now() < end {
            let next = self.next_due().await?.filter(|next| *next < end);
            self.clock.set(next.unwrap_or(end));
            self.drain().await?;
        }
        Ok(())
    }

    /// All jobs of this kind, whatever has become of them, in the order in which they were enqueued.
    ///
    /// # Errors
    /// A payload that does not fit the type.
    pub async fn jobs<J: Job>(&self) -> Result<TestJobs<J>, TestError> {
        let filter = JobFilter { kind: Some(J::KIND.parse()?), ..JobFilter::default() };
        let records = self.find(&filter).await?;
        let ids: Vec<_> = records.iter().map(|job| job.id).collect();
        let mut payloads: HashMap<_, _> = self.client.payloads(&ids).await?.into_iter().collect();
        let jobs = records.into_iter().filter_map(|record| Some((payloads.remove(&record.id)?, record)));
        let jobs = jobs.map(|(payload, record)| match read(record.version, &payload) {
            Ok(payload) => Ok(TestJob { payload, record }),
            Err(error) => {
                Err(TestError::Payload { kind: J::KIND, id: record.id, problem: error.to_string() })
            }
        });
        Ok(TestJobs(jobs.collect::<Result<_, _>>()?))
    }

    /// All jobs of every kind, in the order in which they were enqueued.
    ///
    /// # Errors
    /// What the store says.
    pub async fn all_jobs(&self) -> Result<Vec<JobRecord>, TestError> {
        self.find(&JobFilter::default()).await
    }

    async fn find(&self, filter: &JobFilter) -> Result<Vec<JobRecord>, TestError> {
        let (mut jobs, mut before) = (Vec::new(), None);
        loop {
            let page = self.client.jobs(filter, before, PAGE).await?;
            jobs.extend(page.jobs);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        jobs.reverse();
        Ok(jobs)
    }

    /// What a worker does by real time: it hears of cancellation requests, and writes what its handlers have said.
    async fn look_after_worker(&self) -> Result<(), TestError> {
        let Some(worker) = &self.worker else { return Ok(()) };
        if worker.task.is_finished() {
            return Err(TestError::WorkerEnded);
        }
        let session = worker.sessions.borrow().clone();
        if let Some(session) = session {
            let store = self.client.store();
            // A session that has been given up is unknown there, and followed by another one.
            if let Ok(reply) = store.heartbeat(session.id).await {
                reply.cancel.into_iter().for_each(|id| session.cancel(id));
            }
            session.notes.flush(&**store).await?;
        }
        Ok(())
    }

    /// The jobs that run, or that the worker is about to take.
    async fn active(&self) -> Result<Vec<JobRecord>, TestError> {
        let filter = JobFilter { states: vec![State::Queued, State::Running], ..JobFilter::default() };
        let mut active = self.find(&filter).await?;
        if !active.is_empty() {
            let queues = self.client.store().operations().queues().await?;
            let paused: BTreeSet<_> =
                queues.into_iter().filter(|queue| queue.paused).map(|queue| queue.name).collect();
            active.retain(|job| {
                let taken = self.kinds.contains(&job.kind) && self.queues.contains(&job.queue);
                job.state == State::Running || (taken && !paused.contains(&job.queue))
            });
        }
        Ok(active)
    }

    /// What changes with whatever happens.
    async fn picture(&self) -> Result<Vec<impl PartialEq + use<>>, TestError> {
        let jobs = self.all_jobs().await?;
        let shown = |job: JobRecord| (job.id, job.state, job.attempt, job.run_at, job.errors.len());
        Ok(jobs.into_iter().map(shown).collect())
    }

    /// The next instant at which something is to be done.
    async fn next_due(&self) -> Result<Option<Timestamp>, TestError> {
        let store = self.client.store();
        let schedules = store.timetable().schedules().await?;
        let mut times: Vec<_> = schedules.into_iter().filter(|s| s.enabled).map(|s| s.next_at).collect();
        let states = State::UNFINISHED.to_vec();
        for job in self.find(&JobFilter { states, ..JobFilter::default() }).await? {
            times.extend([job.run_at, job.expires_at, job.deadline]);
        }
        let start = store.operations().next_start().await?;
        let start = start.and_then(|left| chrono::TimeDelta::from_std(left).ok());
        times.push(start.and_then(|left| self.now().checked_add_signed(left)));
        Ok(times.into_iter().flatten().filter(|time| *time > self.now()).min())
    }
}

fn restless(patience: Duration, active: &[JobRecord]) -> String {
    const SHOWN: usize = 10;
    let jobs = active.iter().take(SHOWN).map(|job| format!("\n  {}", told(job)));
    let more = if active.len() > SHOWN { "\n  …" } else { "" };
    format!(
        "after {patience:?} of real time, {} jobs are at work:{}{more}",
        active.len(),
        jobs.collect::<String>()
    )
}

impl fmt::Debug for TestSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestSystem")
            .field("now", &self.now())
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}
