use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use windlass_core::RetryPolicy;

use crate::{Context, JobError, batch::Batches, gathering::Gathering, middleware::HandlerService};

/// What an attempt gives: the handler's value as JSON, `None` for `()`.
pub type Value = Option<Box<RawValue>>;

pub(crate) type AsyncFn = Arc<dyn Fn(Context) -> BoxFuture<'static, Result<Value, JobError>> + Send + Sync>;
pub(crate) type BlockingFn = Arc<dyn Fn(Context) -> Result<Value, JobError> + Send + Sync>;

/// A handler that is ready to run.
pub(crate) struct Registered {
    pub(crate) run: Run,
    pub(crate) nature: Nature,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    /// How long results are kept, if not as the worker's setting says.
    pub(crate) result_ttl: Option<Duration>,
    /// The newest form of the payload that it can read.
    pub(crate) version: u16,
    /// How long it may take to stop once it is told to, before it is dropped.
    pub(crate) abort_after: Duration,
}

/// How an attempt comes to its handler: straight, or through layers and the gathering of batches.
pub(crate) enum Run {
    Async(AsyncFn),
    Blocking(BlockingFn),
    Service(HandlerService),
}

/// What kind of handler is at the end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Dropping it ends it.
    Async,
    /// Its thread cannot be dropped.
    Blocking,
    /// It is shared with other jobs, and sees to its end itself. The batch takes a place among those running, its jobs
    /// take none.
    Batch,
}

/// A handler without its types.
pub(crate) enum Code {
    Async(AsyncFn),
    Blocking(BlockingFn),
    Batch(Batches),
}

impl Code {
    pub(crate) fn nature(&self) -> Nature {
        match self {
            Self::Async(_) => Nature::Async,
            Self::Blocking(_) => Nature::Blocking,
            Self::Batch(_) => Nature::Batch,
        }
    }

    /// The service that layers are put around, innermost. Batches count among the `running` handlers.
    pub(crate) fn into_service(self, abort_after: Duration, running: &Arc<Semaphore>) -> HandlerService {
        match self {
            Self::Async(handler) => HandlerService::new(move |context| {
                let handler = handler.clone();
                async move {
                    begin(&context)?;
                    guarded(handler, context).await
                }
                .boxed()
            }),
            Self::Blocking(handler) => HandlerService::new(move |context| {
                let handler = handler.clone();
                async move {
                    begin(&context)?;
                    let grip = context.gate().map(|gate| gate.grip());
                    on_thread(handler, context, grip).await
                }
                .boxed()
            }),
            Self::Batch(batches) => {
                let gathering = Arc::new(Gathering::new(batches, abort_after, running.clone()));
                HandlerService::new(move |context| gathering.clone().join(context).boxed())
            }
        }
    }
}

fn begin(context: &Context) -> Result<(), JobError> {
    match context.gate() {
        Some(gate) if !gate.begin() => {
            Err(JobError::retry("the attempt was given up before its handler began"))
        }
        _ => Ok(()),
    }
}

/// Calls an async handler, its panics made into errors: calling it may panic as well as polling it.
pub(crate) fn guarded(
    handler: AsyncFn,
    context: Context,
) -> impl Future<Output = Result<Value, JobError>> + Send + 'static {
    AssertUnwindSafe(async move { handler(context).await })
        .catch_unwind()
        .map(|ended| ended.unwrap_or_else(|panic| Err(panicked(&*panic))))
}

/// Calls a blocking handler on a thread of its own, at once, its panics made into errors. `held` is dropped when the
/// thread ends.
pub(crate) fn on_thread(
    handler: BlockingFn,
    context: Context,
    held: impl Send + 'static,
) -> impl Future<Output = Result<Value, JobError>> + Send + 'static {
    let span = tracing::Span::current();
    let thread = tokio::task::spawn_blocking(move || {
        let _held = held;
        span.in_scope(|| std::panic::catch_unwind(AssertUnwindSafe(|| handler(context))))
    });
    thread.map(|ended| match ended {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(panicked(&*panic)),
        Err(error) => Err(JobError::retry(error)),
    })
}

pub(crate) fn panicked(panic: &(dyn Any + Send)) -> JobError {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    JobError::retry(format!("the handler panicked: {}", text.unwrap_or("(no message)")))
}
