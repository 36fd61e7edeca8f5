//! A process: a runtime of its own with a client, and a worker unless it is an API. Killed, it is gone with all that it
//! was about to do; standing still, it does nothing while time goes on, and then finds it late.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::value::to_raw_value;
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    time::{Instant, advance, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, ClientError, ClientOptions, Settings};
use windlass_core::{ClaimedJob, StoreError};
use windlass_worker::{Context, JobError, Worker, WorkerOptions};

use crate::{
    broker::SimBroker,
    store::{Line, SimStore, Work},
    workload::{Deed, Task, Wish},
    world::{DEADLINE, End, Ms, ProcessState, Run, Side, Trouble, Wire, World, timestamp},
};

/// What the settings of a seed's processes are.
#[derive(Debug, Clone)]
pub struct Setup {
    pub lease: Duration,
    pub grace: Duration,
    pub republish_after: Duration,
    pub concurrency: usize,
    pub crash_limit: u32,
    /// Whether the broker can tell how many messages wait.
    pub counts: bool,
}

/// How long a handler that was told to stop may take.
pub const ABORT_AFTER: Duration = Duration::from_millis(500);
/// How long a job may wait in a lane that is not empty.
pub const REPUBLISH_BOUND: Duration = Duration::from_secs(10);

pub type Wishes = Arc<Mutex<VecDeque<(Ms, Wish)>>>;

/// What a process is for.
#[derive(Debug, Clone)]
pub enum Role {
    Api(Wishes),
    Worker,
}

pub struct Process {
    pub number: usize,
    pub role: Role,
    runtime: Runtime,
    wire: Wire,
    /// Up to when it has lived.
    lived: Ms,
    /// Until when it stands still.
    pub stands_until: Ms,
    stop: CancellationToken,
    pub stopping: bool,
    ended: Arc<AtomicBool>,
    killed: Arc<Notify>,
}

/// How a process is after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Goes,
    /// It has ended by itself.
    Over,
    /// One of its handlers has taken it down.
    Killed,
}

#[async_trait]
impl Line for Wire {
    async fn carry(&self, what: &(dyn Fn() -> String + Send + Sync), work: Work) -> Result<(), StoreError> {
        let errand = Box::new(move |state: &mut crate::world::State, told: Option<&mut String>| {
            state.tables.now = timestamp(state.now);
            work(&mut state.tables, told);
        });
        self.call(Side::Store, what, errand).await.map_err(|trouble| match trouble {
            Trouble::Unavailable => StoreError::Unavailable("the connection was lost".into()),
            Trouble::Timeout => StoreError::Timeout(DEADLINE),
        })
    }

    /// Handlers are not told their fence, so it comes with the payload.
    fn mark(&self, job: &mut ClaimedJob) {
        let mut task: Task = serde_json::from_str(job.payload.get()).unwrap();
        task.fence = job.fence;
        job.payload = to_raw_value(&task).unwrap();
    }
}

impl Process {
    /// Starts a process.
    pub fn start(world: &Arc<World>, role: Role, setup: &Setup, now: Ms) -> Self {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let killed = Arc::<Notify>::default();
        let number = {
            let mut state = world.lock();
            let process = ProcessState {
                alive: true,
                died: None,
                cut: [0; 2],
                pauses: Vec::new(),
                killed: killed.clone(),
            };
            state.processes.push(process);
            let number = state.processes.len() - 1;
            state.note(now, || format!("p{number} starts: {}", role.name()));
            number
        };
        let (stop, ended) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let wire = runtime.block_on(async {
            let wire = Wire { world: world.clone(), process: number, began: (now, Instant::now()) };
            let (wire_in, setup, role) = (wire.clone(), setup.clone(), role.clone());
            let (stop, ended) = (stop.clone(), ended.clone());
            tokio::spawn(async move {
                match role {
                    Role::Worker => Box::pin(work(wire_in, setup, stop)).await,
                    Role::Api(wishes) => serve(wire_in, setup, stop, wishes).await,
                }
                ended.store(true, Ordering::SeqCst);
            });
            wire
        });
        let (lived, stands_until, stopping) = (now, 0, false);
        Self { number, role, runtime, wire, lived, stands_until, stop, stopping, ended, killed }
    }

    /// Lets it live until then.
    pub fn live(&mut self, until: Ms) -> Life {
        if self.stands_until > until {
            return Life::Goes;
        }
        let (wire, killed) = (&self.wire, &self.killed);
        // While it stood still its clock has gone on, and whatever it waited for is there at once.
        let missed = self.stands_until.saturating_sub(self.lived);
        let end = wire.began.1 + Duration::from_millis(until - wire.began.0);
        let dies = self.runtime.block_on(async {
            if missed > 0 {
                advance(Duration::from_millis(missed)).await;
            }
            tokio::select! {
                biased;
                () = killed.notified() => true,
                () = sleep_until(end) => false,
            }
        });
        self.lived = until;
        if dies {
            Life::Killed
        } else if self.ended.load(Ordering::SeqCst) {
            Life::Over
        } else {
            Life::Goes
        }
    }

    /// By kill -9.
    pub fn crash(self) {
        let at = self.runtime.block_on(async { self.wire.now() });
        let number = self.number;
        let mut state = self.wire.world.lock();
        state.note(at, || format!("p{number} is dead"));
        state.bury(number, at);
        drop(state);
        drop(self.runtime);
    }

    /// Asks it to stop in good order.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.stop.cancel();
    }
}

impl Role {
    fn name(&self) -> &'static str {
        match self {
            Self::Api(_) => "an API",
            Self::Worker => "a worker",
        }
    }
}

fn client(wire: &Wire, setup: &Setup) -> Client {
    let options = ClientOptions {
        republish_after: setup.republish_after,
        republish_bound: REPUBLISH_BOUND,
        relay_interval: Duration::from_secs(1),
        read_cache: 0,
        ..ClientOptions::default()
    };
    let (store, broker) = (SimStore::new(wire.clone()), SimBroker::new(wire.clone(), setup.counts));
    Client::new(Arc::new(store), Arc::new(broker), options)
}

/// A worker's main.
async fn work(wire: Wire, setup: Setup, stop: CancellationToken) {
    let client = client(&wire, &setup);
    let mut options = WorkerOptions::from(&Settings::default());
    options.concurrency = setup.concurrency;
    options.buffer = setup.concurrency;
    options.label = format!("p{}", wire.process);
    options.lease = setup.lease;
    options.grace = setup.grace;
    options.abort_after = ABORT_AFTER;
    options.crash_limit = setup.crash_limit;
    let handling = wire.clone();
    let worker = Worker::new(client.clone(), options)
        .handle(move |task: Task, context: Context| run(handling.clone(), task, context));
    if let Err(error) = Box::pin(worker.run_until(stop)).await {
        let outrage = format!("the worker p{} ended: {error}", wire.process);
        wire.world.lock().book.outrages.push(outrage);
    }
    client.close().await;
}

/// An API's main: it does what it is asked for, as far as the store lets it.
async fn serve(wire: Wire, setup: Setup, stop: CancellationToken, wishes: Wishes) {
    let client = client(&wire, &setup);
    loop {
        let next = wishes.lock().unwrap().front().map(|(at, _)| *at);
        // Where there is none, another may be put back.
        let pause = next.map_or(200, |at| at.saturating_sub(wire.now()));
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = sleep(Duration::from_millis(pause)) => {}
        }
        let due = wishes.lock().unwrap().pop_front_if(|(at, _)| *at <= wire.now());
        if let Some((_, wish)) = due {
            let again = Again { wire: wire.clone(), wish: Some(wish.clone()), wishes: wishes.clone() };
            tokio::spawn(fulfil(wire.clone(), client.clone(), wish, again));
        }
    }
    client.close().await;
}

/// Whoever asked and got no answer asks again, sooner or later.
async fn fulfil(wire: Wire, client: Client, wish: Wish, again: Again) {
    let done = match wish {
        Wish::Accept(job) => {
            let id = job.id;
            wire.world.lock().book.sent.insert(id);
            let accepted = client.accept(*job).await;
            if accepted.is_ok() {
                wire.world.lock().book.accepted.insert(id);
            }
            accepted.map(drop)
        }
        Wish::Cancel(id) => {
            wire.world.lock().book.cancels.insert(id);
            client.cancel(id).await.map(drop)
        }
    };
    match done {
        Ok(()) => again.not(),
        Err(ClientError::Store(error)) if error.retryable() => {}
        Err(ClientError::Closed) => {}
        Err(error) => {
            wire.world.lock().book.outrages.push(format!("the API refused a job: {error}"));
            again.not();
        }
    }
}

/// Puts a wish back when it was not fulfilled, also by the process's end.
struct Again {
    wire: Wire,
    wish: Option<Wish>,
    wishes: Wishes,
}

impl Again {
    fn not(mut self) {
        self.wish = None;
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        let Some(wish) = self.wish.take() else { return };
        // No draw of luck: in which order a dying process drops what it is about is anybody's guess.
        let id = wish.job();
        let at = self.wire.world.lock().now + 100 + (id.as_uuid().as_u128() * 97 % 1_400) as Ms;
        let mut wishes = self.wishes.lock().unwrap();
        let place = wishes.partition_point(|(other, wish)| (*other, wish.job()) <= (at, id));
        wishes.insert(place, (at, wish));
    }
}

/// The handler of all jobs.
async fn run(wire: Wire, task: Task, context: Context) -> Result<(), JobError> {
    let running = Running::begin(wire, &task, &context);
    let (takes, deed) = task.runs[running.nth.min(task.runs.len() - 1)];
    let told = context.cancelled();
    tokio::select! {
        biased;
        () = told.cancelled(), if task.heeds => {
            running.end(End::Stopped);
            return Err(JobError::retry("told to stop"));
        }
        () = sleep(Duration::from_millis(takes)) => {}
    }
    match deed {
        Deed::Succeed => {
            running.end(End::Succeeded);
            Ok(())
        }
        Deed::Fail => {
            running.end(End::Failed);
            Err(JobError::retry("it failed"))
        }
        Deed::Panic => {
            running.end(End::Failed);
            // As a panic does, but not on the test's standard error.
            std::panic::resume_unwind(Box::new("it panicked"))
        }
        Deed::Discard => {
            running.end(End::Discarded);
            Err(JobError::discard("it is hopeless"))
        }
        Deed::RetryAfter(after) => {
            running.end(End::Failed);
            Err(JobError::retry_after(Duration::from_millis(after), "later"))
        }
        Deed::Snooze(after) => {
            running.end(End::Snoozed);
            Err(JobError::snooze(Duration::from_millis(after)))
        }
        Deed::Crash => {
            running.kill();
            std::future::pending().await
        }
    }
}

/// A run of a handler, written down for the checker when it begins and when it ends.
struct Running {
    wire: Wire,
    place: usize,
    /// How many runs of this job there were before.
    nth: usize,
}

impl Running {
    fn begin(wire: Wire, task: &Task, context: &Context) -> Self {
        let mut state = wire.world.lock();
        let (job, now) = (context.job_id(), wire.now());
        let nth = state.book.runs.iter().filter(|run| run.job == job).count();
        state.book.runs.push(Run {
            job,
            fence: task.fence,
            attempt: context.attempt(),
            max_attempts: context.max_attempts(),
            process: wire.process,
            begun: now,
            ended: None,
        });
        let place = state.book.runs.len() - 1;
        state.note(now, || format!("p{} runs {job}, fence {}", wire.process, task.fence));
        drop(state);
        Self { wire, place, nth }
    }

    fn end(&self, how: End) {
        let mut state = self.wire.world.lock();
        let run = &mut state.book.runs[self.place];
        if run.ended.is_some() {
            return;
        }
        let now = self.wire.now();
        run.ended = Some((now, how));
        let (job, fence) = (run.job, run.fence);
        state.note(now, || format!("p{} has run {job}, fence {fence}: {how:?}", self.wire.process));
    }

    fn kill(&self) {
        self.wire.world.lock().processes[self.wire.process].killed.notify_one();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
