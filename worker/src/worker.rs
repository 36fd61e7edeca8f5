use std::{
    any::TypeId,
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, Settings};
use windlass_core::{
    BrokerError, Job, Kind, KindInfo, Lane, Limit, LimitName, NewWorker, Priorities, QueueName, Schedule,
    ScheduleDefinition, StoreError,
};

use crate::{
    BatchHandler, BatchOptions, BlockingHandler, Handler, HandlerLayer, Handling, WorkerError,
    completer::Completer, context::States, heartbeat, intake, maintenance, middleware::Layers, pauses,
    run::Registered, schedule, session::Session,
};

/// How long the end of a worker may wait for what its handlers have said last to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// For how long a worker that starts asks a broker again that does not answer, since it may be about to. A call takes up
/// to five seconds more, so that the process has ended within ten.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// How long the end of a client may take whose broker does not answer.
const GOODBYE: Duration = Duration::from_secs(3);

/// A worker process: handlers, and the loop that feeds them.
///
/// ```no_run
/// # use windlass_worker::{Context, JobError, State, Worker, WorkerError};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct SendEmail {}
/// # impl windlass_core::Job for SendEmail { const KIND: &'static str = "email.send"; }
/// # struct Mailer;
/// async fn send_email(job: SendEmail, ctx: Context, mailer: State<Mailer>) -> Result<String, JobError> {
///     Ok(format!("sent in attempt {}", ctx.attempt()))
/// }
///
/// # async fn run() -> Result<(), WorkerError> {
/// Worker::from_env().await?.state(Mailer).handle(send_email).run().await
/// # }
/// ```
pub struct Worker {
    client: Client,
    options: WorkerOptions,
    states: States,
    handlers: HashMap<Kind, Handling>,
    layers: Layers,
    kinds: Vec<KindInfo>,
    needs: Vec<(Kind, TypeId, &'static str)>,
    pub(crate) schedules: Vec<ScheduleDefinition>,
    pub(crate) limits: Vec<(LimitName, Limit)>,
    /// The first thing wrong with the handlers, told when the worker is run.
    problem: Option<WorkerError>,
}

/// How a worker works. Made from [`Settings`], where each is explained.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// How many jobs run at a time.
    pub concurrency: usize,
    /// How many more are claimed ahead.
    pub buffer: usize,
    /// Which queues it takes from; none means those of its kinds.
    pub queues: Vec<QueueName>,
    /// How it divides itself among the priorities of jobs.
    pub priorities: Priorities,
    /// A name for people.
    pub label: String,
    /// A silence of this length costs it its jobs.
    pub lease: Duration,
    /// On shutdown, how long running handlers may still take.
    pub grace: Duration,
    /// How long a handler that was told to stop may take to do so before it is dropped.
    pub abort_after: Duration,
    /// A job that has taken this many workers down is `dead`.
    pub crash_limit: u32,
}

impl From<&Settings> for WorkerOptions {
    fn from(settings: &Settings) -> Self {
        Self {
            concurrency: settings.worker_concurrency,
            buffer: settings.worker_buffer.unwrap_or(settings.worker_concurrency.min(100)),
            queues: settings.worker_queues.clone(),
            priorities: settings.worker_priorities,
            label: settings.worker_label.clone().unwrap_or_else(host_name),
            lease: settings.worker_lease,
            grace: settings.worker_grace,
            abort_after: settings.worker_abort_after,
            crash_limit: settings.worker_crash_limit,
        }
    }
}

/// Asks the broker whether it answers. No call is cut off: its end says more, and some go on in threads of their own.
async fn broker_answers(client: &Client) -> Result<(), BrokerError> {
    let until = Instant::now() + FIRST_ANSWER;
    loop {
        match client.broker().ping().await {
            Err(error) if error.retryable() && Instant::now() < until => {}
            answer => return answer,
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn host_name() -> String {
    let name = std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map(|name| name.trim().to_owned()).ok().filter(|name| !name.is_empty()).unwrap_or("worker".into())
}

impl Worker {
    /// A worker on the store and broker that the [settings](Settings) name.
    ///
    /// # Errors
    /// Settings that cannot work, a store that does not answer or whose schema does not fit, and a broker that does not
    /// answer within seconds. Whatever started the process is to start it again; once it runs, it waits out every outage.
    pub async fn from_env() -> Result<Self, WorkerError> {
        let settings = Settings::load()?;
        let client = Client::connect(&settings).await?;
        client.store().ping().await?;
        if let Err(error) = broker_answers(&client).await {
            // The libraries of some brokers must not be at work when the process ends.
            let _ = timeout(GOODBYE, client.close()).await;
            return Err(match error {
                BrokerError::Config { .. } => error.into(),
                error => WorkerError::BrokerSilent { url: settings.broker(), error },
            });
        }
        client.check_objects().await?;
        Ok(Self::new(client, (&settings).into()))
    }

    /// A worker on this client's store and broker.
    #[must_use]
    pub fn new(client: Client, options: WorkerOptions) -> Self {
        Self {
            client,
            options,
            states: States::default(),
            handlers: HashMap::new(),
            layers: Layers::default(),
            kinds: Vec::new(),
            needs: Vec::new(),
            schedules: Vec::new(),
            limits: Vec::new(),
            problem: None,
        }
    }

    /// Adds something that handlers get by asking for [`State<T>`](crate::State): one of each type.
    #[must_use]
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.add(state);
        self
    }

    /// Adds the handler of a kind.
    #[must_use]
    pub fn handle<A, H: Handler<A>>(self, handler: H) -> Self {
        self.handle_with(Handling::of(handler))
    }

    /// Adds the handler of a kind that may block its thread: it runs on a thread of its own, off the async ones.
    #[must_use]
    pub fn handle_blocking<A, H: BlockingHandler<A>>(self, handler: H) -> Self {
        self.handle_with(Handling::blocking(handler))
    }

    /// Has this job made again and again: the schedule is kept in the store when the worker starts, and fires once per tick
    /// for the whole fleet. The newest definition of a name wins; one that an operator has switched off stays off, and one that
    /// is no longer in the code goes on until an operator deletes it.
    #[must_use]
    pub fn schedule<J: Job>(mut self, schedule: Schedule, job: J) -> Self {
        let problem = match schedule::definition(schedule, &job) {
            Ok(definition) => {
                let twice = self.schedules.iter().any(|other| other.name == definition.name);
                let name = definition.name.clone();
                self.schedules.push(definition);
                twice.then_some(WorkerError::TwoSchedules(name))
            }
            Err(problem) => Some(problem),
        };
        self.problem = self.problem.or(problem);
        self
    }

    /// Defines a limit that jobs may name, for the whole fleet. The word of the worker that started last counts, as would
    /// an operator's.
    #[must_use]
    pub fn limit(mut self, name: &str, limit: Limit) -> Self {
        let problem = match name.parse::<LimitName>() {
            Ok(name) => match limit.check() {
                Ok(()) => {
                    self.limits.push((name, limit));
                    None
                }
                Err((field, rule)) => {
                    Some(WorkerError::Limit { name: name.to_string(), problem: format!("{field} {rule}") })
                }
            },
            Err(error) => Some(WorkerError::Limit { name: name.to_owned(), problem: error.to_string() }),
        };
        self.problem = self.problem.or(problem);
        self
    }

    /// Adds the handler of a kind that takes many jobs at once.
    ///
    /// A batch counts as one among those running, however many jobs are in it. Those that gather hold no place among
    /// the running ones; the worker claims `max_size` jobs more than its concurrency and buffer say, so that they take no
    /// room from others either.
    #[must_use]
    pub fn handle_batch<A, H: BatchHandler<A>>(self, handler: H, options: BatchOptions) -> Self {
        self.handle_with(Handling::batch(handler, options))
    }

    /// Adds a handler with settings of its own.
    #[must_use]
    pub fn handle_with(mut self, mut handling: Handling) -> Self {
        let needs = std::mem::take(&mut handling.needs);
        let problem = match &handling.kind {
            Ok(info) => {
                let kind = info.kind.clone();
                self.needs.extend(needs.into_iter().map(|(id, name)| (kind.clone(), id, name)));
                self.kinds.push(info.clone());
                let twice = self.handlers.insert(kind.clone(), handling).is_some();
                twice.then_some(WorkerError::TwoHandlers(kind))
            }
            Err((payload, error)) => Some(WorkerError::Name { payload, error: error.clone() }),
        };
        self.problem = self.problem.or(problem);
        self
    }

    /// Has it deliver webhooks as well: at least one worker of the fleet must, or nobody is told anything. If the setting
    /// `worker_queues` names its queues, `windlass.webhooks` must be among them.
    #[cfg(feature = "webhooks")]
    #[must_use]
    pub fn deliver_webhooks(self, sender: crate::WebhookSender) -> Self {
        self.state(sender).handle(crate::webhooks::deliver)
    }

    /// Puts a layer around every handler, inside of those added before; see [`middleware`](crate::middleware).
    #[must_use]
    pub fn layer(mut self, layer: impl HandlerLayer) -> Self {
        self.layers.add(layer);
        self
    }

    /// Runs until SIGTERM or SIGINT, then stops in good order: takes nothing more, lets handlers finish within the
    /// grace, gives the rest back. A second signal ends the process at once. Closes the client.
    ///
    /// # Errors
    /// What keeps the worker from starting, or from ever going on.
    pub async fn run(self) -> Result<(), WorkerError> {
        let stop = CancellationToken::new();
        let client = self.client.clone();
        let signals = stop_by_signal(stop.clone()).map_err(WorkerError::Signals)?;
        let ran = self.run_until(stop).await;
        client.close().await;
        signals.abort();
        ran
    }

    /// Runs until `stop` is cancelled, then stops in good order. For programs that run more than a worker.
    ///
    /// # Errors
    /// What keeps the worker from starting, or from ever going on.
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), WorkerError> {
        self.checked()?.run(stop).await
    }

    /// Says what is wrong before anything runs, and not once per job.
    pub(crate) fn checked(mut self) -> Result<Running, WorkerError> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.kinds.is_empty() {
            return Err(WorkerError::NoHandler);
        }
        if let Some((kind, _, state)) = self.needs.into_iter().find(|(_, id, _)| !self.states.has(*id)) {
            return Err(WorkerError::MissingState { kind, state });
        }
        if self.options.queues.is_empty() {
            let queues: BTreeSet<_> = self.kinds.iter().map(|info| info.queue.clone()).collect();
            self.options.queues = queues.into_iter().collect();
        }
        let running = Arc::new(Semaphore::new(self.options.concurrency));
        let gathers: usize = self.handlers.values().map(Handling::gathers).sum();
        let (layers, abort_after) = (self.layers, self.options.abort_after);
        let handlers = self.handlers.into_iter();
        let handlers =
            handlers.map(|(kind, handling)| (kind, handling.ready(&layers, abort_after, &running)));
        Ok(Running {
            handlers: Arc::new(handlers.collect()),
            places: self.options.concurrency + self.options.buffer + gathers,
            running,
            client: self.client,
            options: self.options,
            states: Arc::new(self.states),
            kinds: self.kinds,
            schedules: self.schedules,
            limits: self.limits,
            #[cfg(feature = "testing")]
            sessions: watch::Sender::new(None),
        })
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("options", &self.options)
            .field("kinds", &self.kinds)
            .finish_non_exhaustive()
    }
}

/// A worker whose parts have been checked.
pub(crate) struct Running {
    client: Client,
    pub(crate) options: WorkerOptions,
    states: Arc<States>,
    handlers: Arc<HashMap<Kind, Registered>>,
    pub(crate) kinds: Vec<KindInfo>,
    schedules: Vec<ScheduleDefinition>,
    limits: Vec<(LimitName, Limit)>,
    running: Arc<Semaphore>,
    /// How many jobs may be claimed: those running, in the buffer, and gathering.
    places: usize,
    /// Tells the testing kit of each session that is ready.
    #[cfg(feature = "testing")]
    pub(crate) sessions: watch::Sender<Option<Arc<Session>>>,
}

impl Running {
    /// Runs until `stop` is cancelled, then stops in good order.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), WorkerError> {
        schedule::put(&self.client, std::mem::take(&mut self.schedules), &stop).await?;
        while !stop.is_cancelled() {
            self.session(&stop).await?;
        }
        Ok(())
    }

    /// One registration, from its beginning to shutdown or the loss of the lease.
    async fn session(&self, stop: &CancellationToken) -> Result<(), WorkerError> {
        let options = &self.options;
        let (ended, endings) = mpsc::unbounded_channel();
        let abort = CancellationToken::new();
        let places = self.places;
        let session = Arc::new(Session::new(
            self.client.clone(),
            self.handlers.clone(),
            self.states.clone(),
            places,
            self.running.clone(),
            stop.clone(),
            abort.clone(),
            ended,
        ));
        let Some(registered) = self.register(&session, stop).await? else { return Ok(()) };
        #[cfg(feature = "testing")]
        self.sessions.send_replace(Some(session.clone()));
        // Should this future be dropped, what it has started ends, as without a lease.
        let _lost_with_us = session.lost.clone().drop_guard();

        let lanes: Vec<Lane> = options.queues.iter().flat_map(Lane::of).collect();
        let last = CancellationToken::new();
        let _last_with_us = last.clone().drop_guard();
        let mut duties = JoinSet::new();
        duties.spawn(heartbeat::run(session.clone(), options.lease, registered));
        duties.spawn(maintenance::run(session.clone(), options.crash_limit));
        duties.spawn(maintenance::follow_up(session.clone()));
        let notes = tokio::spawn(session.notes.clone().run(self.client.store().clone(), last.clone()));
        let mut completer = tokio::spawn(Completer::new(session.clone(), endings).run(last.clone()));
        let (pauses, paused) = watch::channel(BTreeSet::new());
        duties.spawn(pauses::run(session.clone(), pauses));
        let mut intake = tokio::spawn(intake::run(
            session.clone(),
            lanes.clone(),
            options.priorities,
            places.max(lanes.len()),
            paused,
        ));

        // Until it is time to stop, nothing but intake may end. Should something panic, the session is given up: its
        // jobs are rescued, and a new session begins.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Err(error) = &mut intake => {
                tracing::error!(%error, "taking messages panicked; giving up the lease");
                session.lost.cancel();
            }
            Err(error) = &mut completer => {
                tracing::error!(%error, "recording outcomes panicked; giving up the lease");
                session.lost.cancel();
            }
            Some(Err(error)) = duties.join_next() => {
                tracing::error!(%error, "a part of the worker panicked; giving up the lease");
                session.lost.cancel();
            }
            () = session.lost.cancelled() => {}
        }
        self.wind_down(&session, intake, &abort).await;
        last.cancel();
        if !completer.is_finished() {
            let _ = completer.await;
        }
        // The last words are worth a moment, not more.
        let _ = tokio::time::timeout(LAST_WORDS, notes).await;
        // Heartbeats have gone on until everything was recorded.
        duties.shutdown().await;
        if session.lost.is_cancelled() {
            // The next one is not to hit a struggling store at once.
            sleep(Duration::from_millis(200)).await;
        } else if session.holds_nothing()
            && let Err(error) = self.client.store().deregister(session.id).await
        {
            tracing::warn!(%error, "the worker could not say goodbye; its lease will run out");
        }
        Ok(())
    }

    /// Makes the session known to the store, however often that takes. `None`: stopped meanwhile.
    async fn register(
        &self,
        session: &Session,
        stop: &CancellationToken,
    ) -> Result<Option<Instant>, WorkerError> {
        let worker = NewWorker {
            id: session.id,
            label: self.options.label.clone(),
            lease: self.options.lease,
            kinds: self.kinds.clone(),
        };
        let mut failing = false;
        loop {
            let sent = Instant::now();
            match self.introduce(&worker).await {
                Ok(()) => {
                    let (id, label, queues) = (worker.id, worker.label, &self.options.queues);
                    tracing::info!(worker = %id, label, ?queues, concurrency = self.options.concurrency, "worker started");
                    return Ok(Some(sent));
                }
                Err(error @ StoreError::Config { .. }) => return Err(error.into()),
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the worker cannot register; trying again");
                    }
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    async fn introduce(&self, worker: &NewWorker) -> Result<(), StoreError> {
        let store = self.client.store();
        for (name, limit) in &self.limits {
            store.operations().set_limit(name, *limit).await?;
        }
        store.register(worker).await
    }

    /// Waits for intake and all attempts to end: by themselves within the grace, then by being told to.
    async fn wind_down(&self, session: &Session, intake: JoinHandle<()>, abort: &CancellationToken) {
        let ended = async {
            // It has been polled to its end already if it panicked.
            if !intake.is_finished() {
                let _ = intake.await;
            }
            session.attempts.close();
            session.attempts.wait().await;
        };
        tokio::pin!(ended);
        let running = session.attempts.len();
        if running > 0 && !session.lost.is_cancelled() {
            tracing::info!(jobs = running, grace = ?self.options.grace, "waiting for handlers to finish");
        }
        tokio::select! {
            biased;
            () = &mut ended => return,
            () = session.lost.cancelled() => {}
            () = sleep(self.options.grace) => {
                tracing::warn!(jobs = session.attempts.len(), "the grace is over; handlers are told to stop");
                abort.cancel();
            }
        }
        ended.await;
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT, and ends the process at the second, for when something hangs. The task
/// that does it may be aborted. For programs that run more than a worker.
///
/// # Errors
/// When the system lets nobody listen for signals.
pub fn stop_by_signal(stop: CancellationToken) -> std::io::Result<JoinHandle<()>> {
    #[cfg(unix)]
    let mut signals = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    Ok(tokio::spawn(async move {
        for count in 1.. {
            #[cfg(unix)]
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
            #[cfg(not(unix))]
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            if count > 1 {
                tracing::warn!(
                    "ended by a second signal; what was running is rescued once its lease runs out"
                );
                std::process::exit(1);
            }
            tracing::info!("shutting down; a second signal ends at once");
            stop.cancel();
        }
    }))
}
