use std::{fmt, future::IntoFuture, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::{Notify, mpsc::error::TrySendError, oneshot},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use windlass_core::{
    Broker, CancelOutcome, InsertOutcome, Inserted, Job, JobId, JobRecord, Kind, KindInfo, Message, NewJob,
    State, Store, StoreError, Tenant, Timestamp,
};
use windlass_store::VirtualClock;

use crate::{
    ClientError, Enqueue, Envelope, EnvelopeError, ObjectsError, Part, Settings,
    arrivals::Arrivals,
    feed::{self, Feed},
    group::{Grouper, Limits},
    kinds::Kinds,
    publish::{Group, Publisher},
    queue_feed::QueueFeeds,
    reads::{Age, Read, Reads},
    relay::Relay,
    shared::SharedReads,
};

const ACCEPT: Limits = Limits { waiting: 10_000, group: 500, in_flight: 2, gap: Duration::ZERO };
const PUBLISH: Limits = Limits { waiting: 1_000, group: 8, in_flight: 4, gap: Duration::ZERO };
const NOTE: Limits = Limits { waiting: 1_000, group: 500, in_flight: 1, gap: Duration::ZERO };
/// How long the note that a group is confirmed waits for others. Nobody waits for it, while the store is needed just
/// then to claim the group's jobs. Far below the time after which a relay publishes what was not noted.
const NOTE_AFTER: Duration = Duration::from_millis(20);
/// How many jobs are let through in one transaction.
const ARRIVALS: usize = 200;
/// How many of a caller's many jobs are on their way to the store at a time, which leaves room for others.
const UNDER_WAY: usize = 1_000;
/// How often an insert is tried before its callers hear of the failure.
const INSERT_TRIES: u32 = 3;
/// How long jobs may still take to be accepted and published at the end.
const LAST_JOBS: Duration = Duration::from_secs(5);

/// Enqueues jobs and reads their state. Cheap to clone; clones share their connections and background tasks, which
/// end with the last clone, or in good order with [`close`](Self::close).
///
/// ```no_run
/// # use windlass_client::{Client, Settings};
/// # async fn run(job: impl windlass_core::Job) -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect(&Settings::load()?).await?;
/// let id = client.enqueue(job).delay(std::time::Duration::from_secs(60)).await?;
/// println!("{:?}", client.get(id).await?.map(|job| job.state));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    /// On whose behalf it enqueues, unless a job says otherwise.
    tenant: Option<Tenant>,
}

struct Inner {
    store: Arc<dyn Store>,
    broker: Arc<dyn Broker>,
    accept: Grouper<Waiting>,
    reads: Reads,
    feed: Arc<Feed>,
    queue_feeds: Arc<QueueFeeds>,
    kinds: Arc<Kinds>,
    envelope: Envelope,
    clock: Option<VirtualClock>,
    nudge: Arc<Notify>,
    arrivals: Arc<Arrivals>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_with_the_last_clone: DropGuard,
}

/// What rarely needs changing.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// How often the relay looks into the outbox.
    pub relay_interval: Duration,
    /// How long after the broker's confirm a job that still waits in an empty lane is published again.
    pub republish_after: Duration,
    /// How long a job may wait in a lane that is not empty before it is published again.
    pub republish_bound: Duration,
    /// Whether this process publishes what others could not. A tool that comes and goes leaves that to them.
    pub relays: bool,
    /// How much memory, in bytes, may keep jobs that are over, so that reading them again asks the store for no more
    /// than whether an operator has changed any. 0 keeps none.
    pub read_cache: u64,
    /// Where else jobs that are over are kept, for all instances together. By default nowhere.
    pub shared_reads: Option<SharedReads>,
    /// A clock to count delays from instead of this machine's, as in [`StoreOptions`](windlass_store::StoreOptions): for
    /// tests.
    pub clock: Option<VirtualClock>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            relay_interval: Duration::from_millis(500),
            republish_after: Duration::from_secs(30),
            republish_bound: Duration::from_secs(3600),
            relays: true,
            read_cache: 16 * 1024 * 1024,
            shared_reads: None,
            clock: None,
        }
    }
}

/// A job that the store has committed, or already had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// When, by the store's clock.
    pub at: Timestamp,
    /// What became of it. Unless it is [`Created`](InsertOutcome::Created), nothing was stored.
    pub outcome: InsertOutcome,
}

type Answer = Result<Accepted, ClientError>;

type Observer = dyn Fn(&NewJob) + Send + Sync;

struct Waiting {
    job: NewJob,
    answer: oneshot::Sender<Answer>,
}

impl Client {
    /// Opens the store and the broker that `settings` name. Neither needs to be reachable yet.
    ///
    /// # Errors
    /// A setting that can never work, such as an unknown URL scheme.
    pub async fn connect(settings: &Settings) -> Result<Self, ClientError> {
        let store = windlass_store::open(settings.store_url.expose(), &settings.store_options()).await?;
        let mut broker = windlass_brokers::open(settings.broker().expose()).await?;
        if let Some(from) = settings.broker_from() {
            let from = windlass_brokers::open(from.expose()).await?;
            broker = Arc::new(windlass_brokers::Moving::new(broker, from));
        }
        let options = ClientOptions { shared_reads: settings.shared_reads()?, ..settings.client_options() };
        Ok(Self::with_envelope(store, broker, options, settings.envelope()?))
    }

    /// A client over an open store and broker. Must be called within a Tokio runtime, where it starts the tasks that
    /// accept, publish and relay.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, broker: Arc<dyn Broker>, options: ClientOptions) -> Self {
        Self::with_envelope(store, broker, options, Envelope::default())
    }

    /// As [`new`](Self::new), with something between what users see and what the store keeps.
    #[must_use]
    pub fn with_envelope(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        options: ClientOptions,
        envelope: Envelope,
    ) -> Self {
        Self::start(store, broker, options, envelope, None)
    }

    /// As [`new`](Self::new), and `observe` sees each job that it makes the store create, before its caller hears of
    /// it: for tests.
    #[must_use]
    pub fn observed(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        options: ClientOptions,
        observe: impl Fn(&NewJob) + Send + Sync + 'static,
    ) -> Self {
        Self::start(store, broker, options, Envelope::default(), Some(Arc::new(observe)))
    }

    fn start(
        store: Arc<dyn Store>,
        broker: Arc<dyn Broker>,
        options: ClientOptions,
        envelope: Envelope,
        observe: Option<Arc<Observer>>,
    ) -> Self {
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let nudge = Arc::new(Notify::new());
        let arrivals = Arc::<Arrivals>::default();
        let publisher = Publisher::new(store.clone(), broker.clone());

        let relay = Relay {
            store: store.clone(),
            broker: broker.clone(),
            publisher: publisher.clone(),
            nudge: nudge.clone(),
            arrivals: arrivals.clone(),
            interval: options.relay_interval,
            verify_after: options.republish_after,
            bound: options.republish_bound,
        };
        if options.relays {
            tasks.spawn(relay.run(stop.clone()));
        }

        // Each of the next two ends once the task before it, which holds the only way in, has ended and its own work is
        // done.
        let noting = publisher.clone();
        let note = Grouper::start(NOTE, &tasks, CancellationToken::new(), move |confirmed| {
            let publisher = noting.clone();
            async move {
                tokio::time::sleep(NOTE_AFTER).await;
                publisher.note(&confirmed, options.republish_after).await;
            }
        });
        let note = Arc::new(note);

        let arrived = Arc::new(Notify::new());
        tasks.spawn(admit(store.clone(), arrived.clone(), nudge.clone(), stop.clone()));

        let publish = Grouper::start(PUBLISH, &tasks, CancellationToken::new(), move |groups| {
            let (publisher, note) = (publisher.clone(), note.clone());
            async move {
                for confirmed in publisher.publish(groups).await {
                    // What is not noted is merely published again.
                    let _ = note.add(confirmed);
                }
            }
        });
        let publish = Arc::new(publish);

        let accepting = store.clone();
        let accept = Grouper::start(ACCEPT, &tasks, stop.clone(), move |group| {
            let (store, publish) = (accepting.clone(), publish.clone());
            let (observe, arrived) = (observe.clone(), arrived.clone());
            async move { accept_group(&*store, &publish, &arrived, observe.as_deref(), group).await }
        });
        let shared = options.shared_reads.as_ref();
        let reads = Reads::start(store.clone(), options.read_cache, shared, &tasks, stop.clone());
        let feed = Arc::new(Feed::default());
        tasks.spawn(feed::run(feed.clone(), store.clone(), stop.clone()));
        let queue_feeds = Arc::new(QueueFeeds::new(store.clone(), tasks.clone(), stop.clone()));
        tasks.close();
        let inner = Inner {
            store,
            broker,
            accept,
            reads,
            feed,
            queue_feeds,
            kinds: Arc::default(),
            envelope,
            clock: options.clock,
            nudge,
            arrivals,
            tasks,
            _stop_with_the_last_clone: stop.clone().drop_guard(),
            stop,
        };
        Self { inner: Arc::new(inner), tenant: None }
    }

    /// The same client, which enqueues on behalf of this tenant, or of none, unless a job or a schedule has one of its own.
    /// That of a handler acts for its job's tenant. What is given to [`accept`](Self::accept) is left as it is.
    #[must_use]
    pub fn on_behalf_of(&self, tenant: Option<Tenant>) -> Self {
        Self { inner: self.inner.clone(), tenant }
    }

    /// On whose behalf it enqueues.
    pub(crate) fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// What lies between what users see and what the store keeps.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.inner.envelope
    }

    /// Whether the object store for large payloads and results takes what is given to it. One that merely does not answer
    /// is waited for, with a warning in the log.
    ///
    /// # Errors
    /// Where someone has to do something about it: a bucket that does not exist, a folder that cannot be written.
    pub async fn check_objects(&self) -> Result<(), ClientError> {
        match self.envelope().check().await {
            Err(error @ ObjectsError::Unavailable(_)) => {
                tracing::warn!(%error, "the object store does not answer yet");
                Ok(())
            }
            answer => Ok(answer.map_err(EnvelopeError::from)?),
        }
    }

    /// The time by the clock from which delays are counted.
    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.as_ref().map_or_else(chrono::Utc::now, VirtualClock::now)
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &Arc<dyn Broker> {
        &self.inner.broker
    }

    /// Enqueues a job: await the answer for its id, after setting what differs from the type's defaults.
    ///
    /// When it is `Ok`, the job is committed (P1).
    pub fn enqueue<J: Job>(&self, job: J) -> Enqueue<J> {
        Enqueue::new(self.clone(), job)
    }

    /// Enqueues many jobs, each with an answer of its own, in their order: one that is refused spoils no other. They share
    /// statements, and are on their way a thousand at a time, so that any number may be given.
    ///
    /// An ordering key does not keep the order among them.
    pub async fn enqueue_all<J: Job>(
        &self,
        jobs: impl IntoIterator<Item = Enqueue<J>>,
    ) -> Vec<Result<JobId, ClientError>> {
        stream::iter(jobs).map(IntoFuture::into_future).buffered(UNDER_WAY).collect().await
    }

    /// Enqueues a job in your own Postgres transaction: it becomes real with your commit, or not at all. Workers see
    /// it within half a second or so of the commit, by the relay.
    ///
    /// # Errors
    /// See [`ClientError`]; also when the store is not Postgres.
    #[cfg(feature = "postgres")]
    pub async fn enqueue_in<J: Job>(
        &self,
        transaction: &mut sqlx::PgConnection,
        job: J,
    ) -> Result<JobId, ClientError> {
        self.enqueue(job).within(transaction).await
    }

    /// Accepts a job in one statement with whatever else is being accepted now. When it is `Ok`, the job is
    /// committed; publishing follows by itself.
    ///
    /// # Errors
    /// [`ClientError::Overloaded`] at once when too much waits; what the store says otherwise. After a retryable
    /// store error the job may have been stored: use an idempotency key where that matters.
    pub async fn accept(&self, mut job: NewJob) -> Result<Accepted, ClientError> {
        self.envelope().seal_job(&mut job).await?;
        let (answer, answered) = oneshot::channel();
        self.inner.accept.add(Waiting { job, answer }).map_err(|refused| match refused {
            TrySendError::Full(_) => ClientError::Overloaded,
            TrySendError::Closed(_) => ClientError::Closed,
        })?;
        answered.await.unwrap_or(Err(ClientError::Closed))
    }

    /// The job with this id, as it is at the time of the call or later. Calls at the same time share a query, and of a job
    /// that is over this process keeps a copy, up to [`read_cache`](ClientOptions::read_cache).
    ///
    /// # Errors
    /// What the store says; also when the result is encrypted under a key that the settings do not have, or in an object
    /// store that they do not name or that does not have it.
    pub async fn get(&self, id: JobId) -> Result<Option<JobRecord>, ClientError> {
        self.read(id, Age::Now).await
    }

    /// As [`get`](Self::get), but where the store has replicas, a job that is not over may be shown as it was as long
    /// ago as they may be behind ([`store_replica_max_lag`](Settings::store_replica_max_lag)). One that has been accepted
    /// is always found, and one shown as over is so.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn get_recent(&self, id: JobId) -> Result<Option<JobRecord>, ClientError> {
        self.read(id, Age::Recent).await
    }

    async fn read(&self, id: JobId, age: Age) -> Result<Option<JobRecord>, ClientError> {
        let read = match self.inner.reads.read(id, age).await {
            // Reading goes on until the process ends.
            Err(ClientError::Closed) => match self.inner.store.get(&[id]).await?.pop() {
                Some(job) => return self.open_record(job).await.map(Some),
                None => Read::Nothing,
            },
            read => read?,
        };
        match read {
            Read::Nothing => Ok(None),
            Read::Kept(job) => Ok(Some(Arc::unwrap_or_clone(job))),
            Read::Stored(job, place) => {
                let opened = match self.open_record(*job).await {
                    Err(_) if place.is_shared() => match self.inner.store.get(&[id]).await?.pop() {
                        Some(job) => self.open_record(job).await?,
                        None => return Ok(None),
                    },
                    opened => opened?,
                };
                let job = Arc::new(opened);
                self.inner.reads.keep(place, &job);
                Ok(Some(Arc::unwrap_or_clone(job)))
            }
        }
    }

    pub(crate) fn reads(&self) -> &Reads {
        &self.inner.reads
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    pub(crate) fn queue_feeds(&self) -> &Arc<QueueFeeds> {
        &self.inner.queue_feeds
    }

    /// A job as users see it.
    pub(crate) async fn open_record(&self, mut job: JobRecord) -> Result<JobRecord, ClientError> {
        if let Some(result) = job.result.take() {
            job.result = Some(self.envelope().open(job.id, Part::Result, result).await?);
        }
        Ok(job)
    }

    /// Calls off a job: at once if it is not running, else by telling its handler.
    ///
    /// # Errors
    /// What the store says.
    pub async fn cancel(&self, id: JobId) -> Result<CancelOutcome, ClientError> {
        Ok(self.inner.store.cancel(id).await?)
    }

    /// What workers have made known of a kind. Answers may be a minute old while the store is asked in the background,
    /// but a kind that has just appeared is found within a second.
    ///
    /// # Errors
    /// What the store says, when it has to be asked.
    pub async fn kind(&self, kind: &Kind) -> Result<Option<Arc<KindInfo>>, ClientError> {
        Ok(self.inner.kinds.get(&self.inner.store, &self.inner.tasks, kind).await?)
    }

    /// The same as it was half a second ago at most, for when the first answer is doubtful.
    ///
    /// # Errors
    /// What the store says, when it has to be asked.
    pub async fn kind_now(&self, kind: &Kind) -> Result<Option<Arc<KindInfo>>, ClientError> {
        Ok(self.inner.kinds.get_fresh(&*self.inner.store, kind).await?)
    }

    /// Tells the relay what a worker has received, by which it knows what was lost on the way.
    #[doc(hidden)]
    pub fn note_arrivals<'a>(&self, messages: impl Iterator<Item = &'a Message>) {
        self.inner.arrivals.note(messages);
    }

    /// Has the relay look into the outbox now: after committing a transaction with
    /// [`enqueue_in`](Self::enqueue_in), or after requeueing.
    pub fn nudge_relay(&self) {
        self.inner.nudge.notify_one();
    }

    /// Takes no more jobs, works off those being accepted and published, and closes the broker's connections. Within twenty
    /// seconds at most, whether store and broker answer or not: what is not published by then waits in the outbox.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        let _ = timeout(LAST_JOBS, self.inner.tasks.wait()).await;
        self.inner.broker.close().await;
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("store", &self.inner.store)
            .field("broker", &self.inner.broker)
            .finish()
    }
}

/// Lets jobs that were just accepted through their gates, if those are open. What fails here, or is accepted in a user's
/// own transaction, is left to the leader among the workers.
async fn admit(store: Arc<dyn Store>, arrived: Arc<Notify>, nudge: Arc<Notify>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = arrived.notified() => {}
        }
        loop {
            match store.follow_up(ARRIVALS).await {
                Ok(0) => break,
                Ok(done) => {
                    nudge.notify_one();
                    if done < ARRIVALS {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "waiting jobs are left to the leader");
                    break;
                }
            }
        }
    }
}

async fn accept_group(
    store: &dyn Store,
    publish: &Grouper<Group>,
    arrived: &Notify,
    observe: Option<&Observer>,
    group: Vec<Waiting>,
) {
    let (jobs, answers): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.job, w.answer)).unzip();
    match insert(store, &jobs).await {
        Ok(inserted) => settle(publish, arrived, observe, &jobs, answers, &inserted),
        // Something in the group is more than the store can take. The others must not suffer for it.
        Err(error) if !error.retryable() && jobs.len() > 1 => {
            for (job, answer) in jobs.iter().zip(answers) {
                match insert(store, std::slice::from_ref(job)).await {
                    Ok(inserted) => {
                        settle(publish, arrived, observe, std::slice::from_ref(job), vec![answer], &inserted)
                    }
                    Err(error) => drop(answer.send(Err(error.into()))),
                }
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for answer in answers {
                // The caller may have gone.
                let _ = answer.send(Err(ClientError::Store(error.clone())));
            }
        }
    }
}

/// Inserts, and repeats it when the connection was lost: the ids make the repeat harmless.
async fn insert(store: &dyn Store, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
    let mut tries = 1;
    loop {
        match store.insert(jobs).await {
            Err(StoreError::Unavailable(_)) if tries < INSERT_TRIES => tries += 1,
            answer => return answer,
        }
    }
}

/// Answers the callers, and hands on for publishing what is queued now.
fn settle(
    publish: &Grouper<Group>,
    arrived: &Notify,
    observe: Option<&Observer>,
    jobs: &[NewJob],
    answers: Vec<oneshot::Sender<Answer>>,
    inserted: &Inserted,
) {
    let mut messages = Vec::with_capacity(jobs.len());
    let mut created = 0;
    for ((job, answer), outcome) in jobs.iter().zip(answers).zip(&inserted.outcomes) {
        let outcome = match *outcome {
            // The key is ours: an earlier try of this very insert did commit.
            InsertOutcome::Existing(id) if id == job.id => {
                InsertOutcome::Created(job.first_state(inserted.at))
            }
            outcome => outcome,
        };
        match outcome {
            InsertOutcome::Created(State::Queued) => messages.push(job.message()),
            InsertOutcome::Created(State::Waiting) => arrived.notify_one(),
            _ => {}
        }
        if matches!(outcome, InsertOutcome::Created(_)) {
            created += 1;
            observe.inspect(|observe| observe(job));
        }
        let _ = answer.send(Ok(Accepted { at: inserted.at, outcome }));
    }
    metrics::counter!("windlass_jobs_accepted_total").increment(created);
    if !messages.is_empty() {
        // When too much waits for the broker, the group is left to the relay.
        let _ = publish.add(Group { outbox: inserted.outbox, messages });
    }
}
