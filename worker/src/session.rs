use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_client::{Client, Part};
use windlass_core::{ClaimId, ClaimedJob, Finish, JobId, Kind, Outcome, WorkerId};

use crate::{
    JobError,
    completer::Ended,
    context::States,
    executor::{self, Ending},
    meters::Meters,
    notes::Notes,
    run::{Nature, Registered},
};

/// How long a job of a newer version is left to newer workers before one that cannot read it may meet it again.
const NEWER: Duration = Duration::from_secs(5);
/// How long a job waits whose payload's object store does not work. The attempt does not count.
const OUTAGE: Duration = Duration::from_secs(5);

/// Which attempt of which job.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    id: JobId,
    fence: u32,
    attempt: u32,
    max_attempts: u32,
}

/// One registration of the worker with the store: it lasts until shutdown, or until the lease is lost, and then the
/// worker goes on with a new one.
pub(crate) struct Session {
    pub(crate) id: WorkerId,
    pub(crate) client: Client,
    pub(crate) handlers: Arc<HashMap<Kind, Registered>>,
    pub(crate) states: Arc<States>,
    /// Take nothing more, and give back what has not started.
    pub(crate) stop: CancellationToken,
    /// The grace is over: tell running handlers to stop.
    pub(crate) abort: CancellationToken,
    /// The jobs are no longer ours: drop everything, record nothing.
    pub(crate) lost: CancellationToken,
    /// Places for claimed jobs: those running and those in the buffer.
    pub(crate) places: Arc<Semaphore>,
    /// Places for running handlers. Shared by all sessions, since a blocking handler may outlive its own.
    pub(crate) running: Arc<Semaphore>,
    /// The attempts under way.
    pub(crate) attempts: TaskTracker,
    /// Where attempts that have ended are recorded.
    pub(crate) ended: mpsc::UnboundedSender<Ended>,
    /// Other jobs wait for one that has ended.
    pub(crate) follow_up: Arc<Notify>,
    /// What attempts say of themselves.
    pub(crate) notes: Arc<Notes>,
    meters: Meters,
    /// The tokens of the claimed jobs, for cancellation requests. Locked for single operations only.
    tokens: Mutex<HashMap<JobId, CancellationToken>>,
    /// The claims that are under way, or brought jobs and are not closed. Locked for single operations only.
    claims: Mutex<HashSet<ClaimId>>,
    /// Kinds of which jobs of a newer version have been met.
    newer: Mutex<HashSet<Kind>>,
    /// A blocking handler outlives the session, so its job must stay under the lease.
    left_behind: AtomicBool,
}

impl Session {
    #[allow(clippy::too_many_arguments, reason = "each is a part of the worker that the session shares")]
    pub(crate) fn new(
        client: Client,
        handlers: Arc<HashMap<Kind, Registered>>,
        states: Arc<States>,
        places: usize,
        running: Arc<Semaphore>,
        stop: CancellationToken,
        abort: CancellationToken,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        Self {
            id: WorkerId::new(),
            client,
            handlers,
            states,
            stop,
            abort,
            lost: CancellationToken::new(),
            places: Arc::new(Semaphore::new(places)),
            running,
            attempts: TaskTracker::new(),
            ended,
            follow_up: Arc::default(),
            notes: Arc::default(),
            meters: Meters::new(),
            tokens: Mutex::default(),
            claims: Mutex::default(),
            newer: Mutex::default(),
            left_behind: AtomicBool::new(false),
        }
    }

    /// Starts the attempt of a claimed job, which begins once there is a place among the running ones.
    pub(crate) fn start(self: &Arc<Self>, claim: ClaimId, job: ClaimedJob, place: OwnedSemaphorePermit) {
        let session = self.clone();
        let token = CancellationToken::new();
        self.lock_tokens().insert(job.id, token.clone());
        self.attempts.spawn(async move {
            let (id, fence, followed) = (job.id, job.fence, job.followed);
            let ending = session.attempt(job, token).await;
            session.lock_tokens().remove(&id);
            let finish = match ending {
                Ending::Outcome(outcome) => Some(Finish { id, fence, outcome }),
                Ending::Committed => None,
                Ending::Abandoned => return,
            };
            // The completer ends after all attempts have.
            let _ = session.ended.send(Ended::Attempt { claim, finish, followed });
            drop(place);
        });
    }

    async fn attempt(&self, mut job: ClaimedJob, token: CancellationToken) -> Ending {
        // Intake only claims kinds with a handler.
        let Some(handler) = self.handlers.get(&job.kind) else { return Ending::Outcome(Outcome::Released) };
        // Counted from when the claim was sent, so never too late.
        let deadline = job.time_left.and_then(|left| Instant::now().checked_add(left));
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            // The store sees to its end.
            return Ending::Outcome(Outcome::Released);
        }
        if job.version > handler.version {
            self.note_newer(&job);
            return Ending::Outcome(Outcome::Snoozed { after: NEWER });
        }
        match self.client.envelope().open(job.id, Part::Payload, job.payload).await {
            Ok(payload) => job.payload = payload,
            Err(error) if error.is_outage() => {
                tracing::warn!(job_id = %job.id, %error, retry_in = ?OUTAGE, "the payload cannot be fetched now");
                return Ending::Outcome(Outcome::Snoozed { after: OUTAGE });
            }
            Err(error) => {
                let (attempt, rng) = (job.attempt, &mut fastrand::Rng::new());
                let error = JobError::retry(format!("the payload cannot be read: {error}"));
                return Ending::Outcome(error.outcome(attempt, job.max_attempts, &handler.retry, rng));
            }
        }
        let attempt =
            Numbers { id: job.id, fence: job.fence, attempt: job.attempt, max_attempts: job.max_attempts };
        if handler.nature == Nature::Batch {
            return self.run(handler, job, attempt, deadline, &token, None).await;
        }
        let permit = tokio::select! {
            biased;
            () = self.lost.cancelled() => return Ending::Abandoned,
            () = self.stop.cancelled() => return Ending::Outcome(Outcome::Released),
            () = token.cancelled() => return Ending::Outcome(Outcome::Cancelled),
            // The store sees to its end.
            () = executor::at(deadline) => return Ending::Outcome(Outcome::Released),
            permit = self.running.clone().acquire_owned() => permit,
        };
        // Nobody closes the semaphore.
        let Ok(permit) = permit else { return Ending::Outcome(Outcome::Released) };
        self.run(handler, job, attempt, deadline, &token, Some(permit)).await
    }

    async fn run(
        &self,
        handler: &Registered,
        job: ClaimedJob,
        attempt: Numbers,
        deadline: Option<Instant>,
        token: &CancellationToken,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Ending {
        let meter = self.meters.begin();
        let ending = executor::execute(self, handler, job, deadline, token, permit).await;
        let ending = self.sealed(handler, attempt, ending).await;
        meter.ended(&ending);
        ending
    }

    /// An ending as the store keeps it. A result that it may not keep makes the job dead: another attempt would most likely
    /// return the same. While the object store does not take a large one, the job waits here for it, as outcomes wait for
    /// the store; but when the worker is to end, such an attempt has failed.
    async fn sealed(&self, handler: &Registered, attempt: Numbers, ending: Ending) -> Ending {
        let Ending::Outcome(Outcome::Succeeded { result, keep }) = ending else { return ending };
        let (envelope, id) = (self.client.envelope(), attempt.id);
        let mut outcome = match envelope.seal_result(id, result, keep) {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(job_id = %id, %error, "the result cannot be kept; the job is dead");
                return Ending::Outcome(Outcome::Dead { error: error.to_string() });
            }
        };
        let mut failing = false;
        let mut pause = Duration::from_millis(50);
        loop {
            let error = tokio::select! {
                biased;
                moved = envelope.move_out_result(id, attempt.fence, &mut outcome) => match moved {
                    Ok(()) => return Ending::Outcome(outcome),
                    Err(error) => error,
                },
                () = self.lost.cancelled() => return Ending::Abandoned,
            };
            if self.abort.is_cancelled() {
                let error = JobError::retry(format!("it succeeded, but its result cannot be kept: {error}"));
                let rng = &mut fastrand::Rng::new();
                return Ending::Outcome(error.outcome(
                    attempt.attempt,
                    attempt.max_attempts,
                    &handler.retry,
                    rng,
                ));
            }
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(job_id = %id, %error, "the result cannot be kept; trying again");
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
                () = self.abort.cancelled() => {}
                () = self.lost.cancelled() => return Ending::Abandoned,
            }
        }
    }

    fn note_newer(&self, job: &ClaimedJob) {
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        if newer.insert(job.kind.clone()) {
            tracing::warn!(
                kind = %job.kind, version = job.version,
                "jobs of this kind are of a newer version than this worker knows; they are left to newer workers"
            );
        }
    }

    /// Passes a cancellation request on to the handler. Repeats, and jobs that have just ended, do nothing.
    pub(crate) fn cancel(&self, id: JobId) {
        if let Some(token) = self.lock_tokens().get(&id) {
            token.cancel();
        }
    }

    /// A claim is made.
    pub(crate) fn opens(&self, claim: ClaimId) {
        self.lock_claims().insert(claim);
    }

    /// A claim has brought nothing, or is closed.
    pub(crate) fn closes(&self, claim: ClaimId) {
        self.lock_claims().remove(&claim);
    }

    pub(crate) fn knows(&self, claim: ClaimId) -> bool {
        self.lock_claims().contains(&claim)
    }

    fn lock_claims(&self) -> std::sync::MutexGuard<'_, HashSet<ClaimId>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn leave_behind(&self) {
        self.left_behind.store(true, Ordering::Relaxed);
    }

    /// Whether all it ran has ended.
    pub(crate) fn holds_nothing(&self) -> bool {
        !self.left_behind.load(Ordering::Relaxed)
    }

    fn lock_tokens(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, CancellationToken>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
