use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::FutureExt as _;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    Context, JobError,
    batch::Batches,
    gate::Grip,
    run::{Value, panicked},
};

/// Where the jobs of a kind with a batch handler wait for company.
///
/// They hold their claims there, and no place among the running handlers; a batch takes one place when it leaves, however
/// many jobs are in it. So nothing that runs ever waits for a job that gathers, and what gathers waits only for the
/// clock and then for a place, which those that run give back by themselves: no circle. That the gathering takes no
/// claims away from other kinds is seen to by the worker, which claims so many more.
pub(crate) struct Gathering {
    batches: Batches,
    abort_after: Duration,
    running: Arc<Semaphore>,
    /// Locked for single operations only.
    waiting: Mutex<Waiting>,
    full: Notify,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Joined>,
    /// Whether a task looks after them: there is one as long as there are any, and one timer with it.
    attended: bool,
}

struct Joined {
    at: Instant,
    slot: Arc<Slot>,
}

/// A job's place in a batch.
pub(crate) struct Slot {
    context: Context,
    answer: Mutex<Option<Answer>>,
    /// It has left the gathering: for a batch, or because nobody waits for it.
    left: AtomicBool,
    /// It has its outcome, or nobody waits for it any more.
    over: CancellationToken,
}

struct Answer {
    outcome: oneshot::Sender<Result<Value, JobError>>,
    grip: Option<Grip>,
}

impl Slot {
    fn new(context: Context, outcome: oneshot::Sender<Result<Value, JobError>>) -> Self {
        let grip = context.gate().map(|gate| gate.grip());
        let answer = Mutex::new(Some(Answer { outcome, grip }));
        Self { context, answer, left: AtomicBool::new(false), over: CancellationToken::new() }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Gives the job its outcome, unless it has one.
    pub(crate) fn settle(&self, outcome: Result<Value, JobError>) {
        if let Some(answer) = self.lock_answer().take() {
            // The attempt must find it at work no more.
            drop(answer.grip);
            let _ = answer.outcome.send(outcome);
            self.over.cancel();
        }
    }

    /// Whether it still gathers; from here on it does not.
    fn leave(&self) -> bool {
        !self.left.swap(true, Ordering::AcqRel)
    }

    /// Whether it is in the hands of a batch now. `false`: it has left, or its attempt has been given up.
    fn begin(&self) -> bool {
        let begins = self.leave() && self.context.gate().is_none_or(|gate| gate.begin());
        if !begins {
            self.let_go();
        }
        begins
    }

    /// Nothing is at work on it.
    fn let_go(&self) {
        self.lock_answer().take();
    }

    fn is_settled(&self) -> bool {
        self.lock_answer().is_none()
    }

    /// Until it is over, or was told to stop.
    async fn told(&self) {
        match self.context.gate() {
            Some(gate) => tokio::select! {
                () = self.over.cancelled() => {}
                () = gate.told().cancelled() => {}
            },
            None => self.over.cancelled().await,
        }
    }

    fn lock_answer(&self) -> MutexGuard<'_, Option<Answer>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropped with the attempt: the job leaves the gathering, or its batch hears that nobody waits for it.
struct Attending(Arc<Slot>);

impl Drop for Attending {
    fn drop(&mut self) {
        if self.0.leave() {
            self.0.let_go();
        }
        self.0.over.cancel();
    }
}

impl Gathering {
    pub(crate) fn new(batches: Batches, abort_after: Duration, running: Arc<Semaphore>) -> Self {
        Self { batches, abort_after, running, waiting: Mutex::default(), full: Notify::new() }
    }

    /// Joins the next batch, and waits for the outcome there.
    pub(crate) async fn join(self: Arc<Self>, context: Context) -> Result<Value, JobError> {
        let (outcome, ended) = oneshot::channel();
        let slot = Arc::new(Slot::new(context, outcome));
        let _attending = Attending(slot.clone());
        self.add(slot);
        // The slot answers before it is dropped.
        ended.await.unwrap_or_else(|_| Err(JobError::retry("the batch gave no answer")))
    }

    fn add(self: &Arc<Self>, slot: Arc<Slot>) {
        let mut waiting = self.lock_waiting();
        waiting.jobs.push(Joined { at: Instant::now(), slot });
        if waiting.jobs.len() >= self.batches.options.max_size {
            self.full.notify_one();
        }
        if !std::mem::replace(&mut waiting.attended, true) {
            tokio::spawn(self.clone().attend());
        }
    }

    /// Sends batches on their way as long as jobs wait.
    async fn attend(self: Arc<Self>) {
        while self.gathered().await {
            // Meanwhile more may join.
            let Ok(place) = self.running.clone().acquire_owned().await else { return };
            let slots = self.take();
            if !slots.is_empty() {
                tokio::spawn(self.clone().run(slots, place));
            }
        }
    }

    /// Until a batch is full, or its first job has waited for long enough. `false`: nothing waits.
    async fn gathered(&self) -> bool {
        loop {
            let Some((size, until)) = self.look() else { return false };
            if size >= self.batches.options.max_size || until.is_some_and(|until| until <= Instant::now()) {
                return true;
            }
            let time = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {}
                () = self.full.notified() => {}
            }
        }
    }

    /// How many wait, and until when. `None`: nothing, and nobody looks after it any more.
    fn look(&self) -> Option<(usize, Option<Instant>)> {
        let mut waiting = self.lock_waiting();
        waiting.jobs.retain(|joined| !joined.slot.left.load(Ordering::Acquire));
        let Some(first) = waiting.jobs.first() else {
            waiting.attended = false;
            return None;
        };
        // A wait beyond the clock is for ever.
        Some((waiting.jobs.len(), first.at.checked_add(self.batches.options.max_wait)))
    }

    /// Takes those who are to go; from here on, their handler has begun.
    fn take(&self) -> Vec<Arc<Slot>> {
        let mut waiting = self.lock_waiting();
        let mut slots = Vec::new();
        let mut left = std::mem::take(&mut waiting.jobs).into_iter();
        while slots.len() < self.batches.options.max_size
            && let Some(joined) = left.next()
        {
            if joined.slot.begin() {
                slots.push(joined.slot);
            }
        }
        waiting.jobs = left.collect();
        slots
    }

    /// Runs one batch to its end.
    async fn run(self: Arc<Self>, slots: Vec<Arc<Slot>>, _place: OwnedSemaphorePermit) {
        let kind = slots.first().map(|slot| slot.context.kind().to_string());
        let span = tracing::info_span!("batch", kind, jobs = slots.len());
        let slots = Unsettled(slots);
        let cancelled = CancellationToken::new();
        let run = self.batches.run.clone();
        let (given, token) = (slots.0.clone(), cancelled.clone());
        let running = AssertUnwindSafe(async move { run(given, token).await }).catch_unwind();
        let ended = async {
            tokio::select! {
                biased;
                ended = running => Some(ended),
                () = self.stopped(&slots.0, &cancelled) => {
                    tracing::warn!("the batch handler did not stop in time and is dropped");
                    None
                }
            }
        };
        let error = match ended.instrument(span).await {
            Some(Ok(Ok(()))) => JobError::retry(
                "the batch handler left this job without an outcome; call succeed or fail on each",
            ),
            Some(Ok(Err(error))) => error,
            Some(Err(panic)) => panicked(&*panic),
            None => return,
        };
        slots.0.iter().for_each(|slot| slot.settle(Err(error.clone())));
    }

    /// Until the handler has had its time to stop, or nobody waits for any of its jobs.
    async fn stopped(&self, slots: &[Arc<Slot>], cancelled: &CancellationToken) {
        for slot in slots {
            slot.told().await;
        }
        cancelled.cancel();
        let abandoned = async {
            for slot in slots {
                slot.over.cancelled().await;
            }
            // All have their outcomes: the handler may clean up.
            if slots.iter().all(|slot| slot.is_settled()) {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = abandoned => {}
            () = sleep(self.abort_after) => {}
        }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that each job of a batch gets an answer, however the batch ends.
struct Unsettled(Vec<Arc<Slot>>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        for slot in &self.0 {
            slot.settle(Err(JobError::retry("the batch was stopped before this job had an outcome")));
        }
    }
}
