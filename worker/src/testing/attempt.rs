use std::{
    fmt,
    future::{Future, IntoFuture},
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::value::to_raw_value;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, ClientError, ClientOptions};
use windlass_core::{
    ClaimId, Job, KindInfo, NewJob, NewWorker, QueueName, StoreError, TraceParent, WorkerId,
};
use windlass_store::StoreOptions;

use super::TestError;
use crate::{
    Context, Handler, Handling, JobError,
    context::{Around, States},
    middleware::Layers,
    run::{Run, guarded, on_thread},
};

/// An attempt of a job with this payload: set what differs from an ordinary first one, then `.await` it.
pub fn attempt<J: Job>(payload: J) -> NewAttempt<J> {
    NewAttempt {
        payload,
        number: 1,
        max_attempts: J::MAX_ATTEMPTS,
        queue: None,
        labels: Vec::new(),
        trace: None,
        states: States::default(),
    }
}

/// An attempt about to begin; see [`attempt`].
#[must_use = "nothing begins before this is awaited"]
#[derive(Debug)]
pub struct NewAttempt<J> {
    payload: J,
    number: u32,
    max_attempts: u32,
    queue: Option<QueueName>,
    labels: Vec<(String, String)>,
    trace: Option<TraceParent>,
    states: States,
}

impl<J: Job> NewAttempt<J> {
    /// Which attempt of its job it is, counted from 1.
    pub fn number(mut self, attempt: u32) -> Self {
        self.number = attempt;
        self
    }

    /// How many attempts the job has.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Which queue the job came from.
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Adds a label to the job.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// The trace that the enqueue was part of.
    pub fn trace(mut self, trace: TraceParent) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Adds a state, as [`Worker::state`](crate::Worker::state) does.
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.states.add(state);
        self
    }

    async fn begin(self) -> Result<TestAttempt<J>, TestError> {
        let folder = tempfile::tempdir().map_err(TestError::Folder)?;
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let store = windlass_store::open(&url, &StoreOptions::default()).await?;
        store.migrate().await?;
        let broker = windlass_brokers::open("memory:").await.map_err(ClientError::from)?;
        let enqueued = Arc::new(Mutex::new(Vec::new()));
        let seen = enqueued.clone();
        let client = Client::observed(store.clone(), broker, ClientOptions::default(), move |job| {
            lock(&seen).push(job.clone());
        });

        let mut job =
            NewJob::new(J::KIND.parse()?, to_raw_value(&self.payload).map_err(ClientError::Payload)?);
        job.queue = match self.queue {
            Some(queue) => queue,
            None => J::QUEUE.parse()?,
        };
        (job.max_attempts, job.trace) = (self.max_attempts, self.trace);
        job.labels = self.labels.into_iter().collect();
        let kind = KindInfo {
            queue: job.queue.clone(),
            max_attempts: job.max_attempts,
            ..KindInfo::new(job.kind.clone())
        };
        let (id, worker) = (job.id, WorkerId::new());
        client.accept(job).await?;
        lock(&enqueued).clear();
        // It is running in the store as well, for what handlers do to their own job.
        let lease = Duration::from_secs(24 * 3600);
        store.register(&NewWorker { id: worker, label: "test".into(), lease, kinds: vec![kind] }).await?;
        let claimed = store.claim(worker, ClaimId::new(), &[id]).await?.pop();
        let mut claimed =
            claimed.ok_or_else(|| StoreError::Unexpected("the test's own job was not there".into()))?;
        claimed.attempt = self.number;
        let token = CancellationToken::new();
        let (states, notes) = (Arc::new(self.states), Arc::default());
        let around = Around { worker, client, states, notes, result_ttl: J::RESULT_TTL };
        let context = Context::gated(claimed, around, &token, None);
        Ok(TestAttempt { context, token, enqueued, payload: PhantomData, _folder: folder })
    }
}

impl<J: Job> IntoFuture for NewAttempt<J> {
    type Output = Result<TestAttempt<J>, TestError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

/// An attempt for handlers to be called with, on an embedded store and broker of its own, which end with it. No worker
/// takes what the handler enqueues.
pub struct TestAttempt<J> {
    context: Context,
    token: CancellationToken,
    enqueued: Arc<Mutex<Vec<NewJob>>>,
    payload: PhantomData<fn() -> J>,
    _folder: TempDir,
}

impl<J: Job> TestAttempt<J> {
    /// The context for a handler that is called as a plain function; its states are made by `State::from(…)`.
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// Tells the handler to stop, as a cancellation request, a timeout or a shutdown would: its token is cancelled. Nobody
    /// drops it here if it does not.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    /// Calls a handler as a worker does, and answers its result as JSON.
    ///
    /// # Errors
    /// The handler's; also a payload that is not read back, a state that was not added, a panic.
    pub async fn run<A, H: Handler<A, Job = J>>(&self, handler: H) -> Result<serde_json::Value, JobError> {
        self.run_with(Handling::of(handler)).await
    }

    /// As [`run`](Self::run), for any handler of the payload's kind, in its layers: a blocking one, or one of batches,
    /// which gets this job alone. Timeouts are left to [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// As [`run`](Self::run); also a handler of another kind.
    pub async fn run_with(&self, handling: Handling) -> Result<serde_json::Value, JobError> {
        match &handling.kind {
            Ok(info) if info.kind == *self.context.kind() => {}
            Ok(info) => {
                let (handled, kind) = (&info.kind, self.context.kind());
                return Err(JobError::discard(format!(
                    "the handler is for {handled}, the attempt of {kind}"
                )));
            }
            Err((payload, error)) => return Err(JobError::discard(format!("{payload}: {error}"))),
        }
        let handling = handling.alone();
        let registered =
            handling.ready(&Layers::default(), Duration::from_secs(5), &Arc::new(Semaphore::new(1)));
        let value = match registered.run {
            Run::Async(handler) => guarded(handler, self.context()).await,
            Run::Blocking(handler) => on_thread(handler, self.context(), ()).await,
            Run::Service(service) => service.run(self.context()).await,
        };
        Ok(match value? {
            Some(json) => serde_json::from_str(json.get())?,
            None => serde_json::Value::Null,
        })
    }

    /// The payloads of this kind that were enqueued through the context's client so far, in their order.
    ///
    /// # Errors
    /// A payload that is not read back.
    pub fn enqueued<K: Job>(&self) -> Result<Vec<K>, serde_json::Error> {
        let jobs = lock(&self.enqueued);
        let of_kind = jobs.iter().filter(|job| job.kind.as_str() == K::KIND);
        of_kind.map(|job| serde_json::from_str(job.payload.get())).collect()
    }

    /// All that was enqueued through the context's client so far, in its order, with queue, delay, labels and whatever
    /// else.
    #[must_use]
    pub fn all_enqueued(&self) -> Vec<NewJob> {
        lock(&self.enqueued).clone()
    }
}

fn lock(jobs: &Mutex<Vec<NewJob>>) -> MutexGuard<'_, Vec<NewJob>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<J> fmt::Debug for TestAttempt<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestAttempt").field("context", &self.context).finish_non_exhaustive()
    }
}
