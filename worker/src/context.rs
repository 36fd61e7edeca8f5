use std::{
    any::{Any, TypeId, type_name},
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use windlass_client::Client;
use windlass_core::{ClaimedJob, JobId, Kind, QueueName, Tenant, TraceParent, WorkerId};

use crate::{
    JobError,
    gate::Gate,
    notes::{Notes, Voice},
};

/// The attempt that a handler runs: what it is, when to stop, and the way to the rest of the system. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    job: ClaimedJob,
    around: Around,
    told: CancellationToken,
    /// The handler's own, a child of `told`: what it does with it calls nothing off. Most never ask for it.
    token: OnceLock<CancellationToken>,
    completion: AtomicU8,
    gate: Option<Box<Gate>>,
    voice: Voice,
}

/// What is around an attempt.
pub(crate) struct Around {
    pub(crate) worker: WorkerId,
    pub(crate) client: Client,
    pub(crate) states: Arc<States>,
    pub(crate) notes: Arc<Notes>,
    /// How long its result is kept, if not as the worker's setting says.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "for the handler's own transaction"))]
    pub(crate) result_ttl: Option<Duration>,
}

/// How far the handler's own transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Completion {
    /// There is none: the worker records the outcome.
    Ordinary,
    /// It has begun, and nothing of it is real.
    Begun,
    /// It is committed, and the job's success with it.
    Committed,
}

impl Context {
    /// The attempt of a handler that is called directly, told to stop by `token`.
    pub(crate) fn new(job: ClaimedJob, around: Around, token: &CancellationToken) -> Self {
        Self::make(job, around, token.clone(), None)
    }

    /// The attempt of a handler behind a gate, at which its place among the running ones is kept.
    pub(crate) fn gated(
        job: ClaimedJob,
        around: Around,
        token: &CancellationToken,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let gate = Gate::new(token.child_token(), permit);
        let told = gate.told().clone();
        Self::make(job, around, told, Some(Box::new(gate)))
    }

    fn make(job: ClaimedJob, mut around: Around, told: CancellationToken, gate: Option<Box<Gate>>) -> Self {
        let voice = Voice::new(around.notes.clone(), &job);
        if job.tenant.is_some() {
            around.client = around.client.on_behalf_of(job.tenant.clone());
        }
        let completion = AtomicU8::new(Completion::Ordinary as u8);
        Self { inner: Arc::new(Inner { job, around, told, token: OnceLock::new(), completion, gate, voice }) }
    }

    /// The job's id: the same in every attempt, so a good idempotency key for whatever the handler calls.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.inner.job.id
    }

    /// Which attempt this is, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.job.attempt
    }

    /// How many attempts may be started.
    #[must_use]
    pub fn max_attempts(&self) -> u32 {
        self.inner.job.max_attempts
    }

    /// The job's kind.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.inner.job.kind
    }

    /// The job's queue.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.inner.job.queue
    }

    /// The job's labels.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.inner.job.labels
    }

    /// The job's payload as it is stored.
    #[must_use]
    pub fn payload(&self) -> &RawValue {
        &self.inner.job.payload
    }

    /// The trace that the enqueue was part of.
    #[must_use]
    pub fn trace(&self) -> Option<&TraceParent> {
        self.inner.job.trace.as_ref()
    }

    /// Cancelled when the handler shall come to an end: on a cancellation request, a timeout, or at the end of a
    /// shutdown's grace. A handler that does not is dropped after
    /// [`abort_after`](crate::WorkerOptions::abort_after), 5 seconds by default; a blocking one cannot be dropped, and
    /// should look here now and then.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.inner.token.get_or_init(|| self.inner.told.child_token())
    }

    /// On whose behalf the job runs.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.inner.job.tenant.as_ref()
    }

    /// The client, to enqueue more jobs: on behalf of the job's tenant, unless they say otherwise.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.around.client
    }

    pub(crate) fn voice(&self) -> &Voice {
        &self.inner.voice
    }

    pub(crate) fn job(&self) -> &ClaimedJob {
        &self.inner.job
    }

    pub(crate) fn gate(&self) -> Option<&Gate> {
        self.inner.gate.as_deref()
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn worker(&self) -> WorkerId {
        self.inner.around.worker
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn result_ttl(&self) -> Option<Duration> {
        self.inner.around.result_ttl
    }

    pub(crate) fn completion(&self) -> Completion {
        match self.inner.completion.load(Ordering::Acquire) {
            1 => Completion::Begun,
            2 => Completion::Committed,
            _ => Completion::Ordinary,
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn set_completion(&self, completion: Completion) {
        // A commit stays one, whatever the handler begins after it.
        self.inner.completion.fetch_max(completion as u8, Ordering::AcqRel);
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (job, worker) = (&self.inner.job, &self.inner.around.worker);
        f.debug_struct("Context")
            .field("job", &job.id)
            .field("attempt", &job.attempt)
            .field("worker", worker)
            .finish()
    }
}

/// What a handler can have as an argument after its payload.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    note = "a handler takes its payload first, then any of `Context` and `State<T>`"
)]
pub trait FromContext: Sized {
    /// Makes the argument for one attempt.
    ///
    /// # Errors
    /// Ends the attempt.
    fn from_context(context: &Context) -> Result<Self, JobError>;

    /// The state that must have been added to the worker, if any; checked when it starts.
    fn needs() -> Option<(TypeId, &'static str)> {
        None
    }
}

impl FromContext for Context {
    fn from_context(context: &Context) -> Result<Self, JobError> {
        Ok(context.clone())
    }
}

/// Something that was added to the worker by `.state(…)`, shared by all handlers that ask for it.
pub struct State<T>(Arc<T>);

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<T> for State<T> {
    /// For calling a handler as a plain function in a test.
    fn from(state: T) -> Self {
        Self(Arc::new(state))
    }
}

impl<T: fmt::Debug> fmt::Debug for State<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Send + Sync + 'static> FromContext for State<T> {
    fn from_context(context: &Context) -> Result<Self, JobError> {
        let state = context.inner.around.states.get::<T>();
        // The worker has checked at its start that it is there.
        state.map(Self).ok_or_else(|| JobError::retry(format!("no State<{}>", type_name::<T>())))
    }

    fn needs() -> Option<(TypeId, &'static str)> {
        Some((TypeId::of::<T>(), type_name::<T>()))
    }
}

/// The states of a worker, one per type.
#[derive(Debug, Default)]
pub(crate) struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn add<T: Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(state));
    }

    pub(crate) fn has(&self, id: TypeId) -> bool {
        self.0.contains_key(&id)
    }

    fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|state| state.downcast().ok())
    }
}
