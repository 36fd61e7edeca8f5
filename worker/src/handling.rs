use std::{any::TypeId, fmt, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::sync::Semaphore;
use windlass_core::{InvalidName, Job, Kind, KindInfo, QueueName, RetryPolicy};

use crate::{
    BatchHandler, BatchOptions, BlockingHandler, Handler, HandlerLayer,
    batch::Batches,
    handler::decode,
    middleware::Layers,
    run::{Code, Registered, Run},
};

/// A handler with settings of its own, for [`Worker::handle_with`](crate::Worker::handle_with).
///
/// ```no_run
/// # use std::time::Duration;
/// # use windlass_core::RetryPolicy;
/// # use windlass_worker::{Handling, JobError, Worker, middleware::RateLayer};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct Import {}
/// # impl windlass_core::Job for Import { const KIND: &'static str = "import"; }
/// # async fn import(job: Import) -> Result<(), JobError> { Ok(()) }
/// # fn add(worker: Worker) -> Worker {
/// worker.handle_with(
///     Handling::of(import)
///         .retry(RetryPolicy::fixed(Duration::from_secs(60)))
///         .abort_after(Duration::from_secs(30))
///         .layer(RateLayer::new(10, Duration::from_secs(1))),
/// )
/// # }
/// ```
pub struct Handling {
    /// What it handles, or the payload type whose name is none.
    pub(crate) kind: Result<KindInfo, (&'static str, InvalidName)>,
    pub(crate) needs: Vec<(TypeId, &'static str)>,
    code: Code,
    timeout: Option<Duration>,
    retry: RetryPolicy,
    result_ttl: Option<Duration>,
    version: u16,
    abort_after: Option<Duration>,
    layers: Layers,
}

impl Handling {
    /// Of an async handler.
    #[must_use]
    pub fn of<A, H: Handler<A>>(handler: H) -> Self {
        let code = Code::Async(Arc::new(move |context| {
            let handler = handler.clone();
            async move { handler.call(decode(&context)?, context).await }.boxed()
        }));
        Self::new::<H::Job>(code, H::needs())
    }

    /// Of a handler that may block its thread.
    #[must_use]
    pub fn blocking<A, H: BlockingHandler<A>>(handler: H) -> Self {
        let code = Code::Blocking(Arc::new(move |context| handler.clone().call(decode(&context)?, context)));
        Self::new::<H::Job>(code, H::needs())
    }

    /// Of a handler that takes many jobs at once.
    #[must_use]
    pub fn batch<A, H: BatchHandler<A>>(handler: H, options: BatchOptions) -> Self {
        Self::new::<H::Job>(Code::Batch(Batches::new(handler, options)), H::needs())
    }

    fn new<J: Job>(code: Code, needs: Vec<(TypeId, &'static str)>) -> Self {
        let names = J::KIND.parse::<Kind>().and_then(|kind| Ok((kind, J::QUEUE.parse::<QueueName>()?)));
        let kind = match names {
            Ok((kind, queue)) => Ok(KindInfo {
                queue,
                max_attempts: J::MAX_ATTEMPTS.max(1),
                version: J::VERSION,
                schemas: J::schema().map(|schema| (J::VERSION, schema.to_string())).into_iter().collect(),
                ..KindInfo::new(kind)
            }),
            Err(error) => Err((std::any::type_name::<J>(), error)),
        };
        Self {
            kind,
            needs,
            code,
            timeout: J::TIMEOUT,
            retry: J::RETRY,
            result_ttl: J::RESULT_TTL,
            version: J::VERSION,
            abort_after: None,
            layers: Layers::default(),
        }
    }

    /// When a failed attempt is tried again, instead of the payload type's `RETRY`.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How long the handler may take to stop once it is told to, instead of the worker's
    /// [`abort_after`](crate::WorkerOptions::abort_after).
    #[must_use]
    pub fn abort_after(mut self, time: Duration) -> Self {
        self.abort_after = Some(time);
        self
    }

    /// Puts a layer around this handler, inside of the worker's and of those added before.
    #[must_use]
    pub fn layer(mut self, layer: impl HandlerLayer) -> Self {
        self.layers.add(layer);
        self
    }

    /// A batch handler that waits for no company, since none can come.
    #[cfg(feature = "testing")]
    pub(crate) fn alone(mut self) -> Self {
        if let Code::Batch(batches) = &mut self.code {
            batches.options.max_size = 1;
        }
        self
    }

    /// How many jobs of it gather without being run.
    pub(crate) fn gathers(&self) -> usize {
        match &self.code {
            Code::Batch(batches) => batches.options.max_size,
            _ => 0,
        }
    }

    /// Makes it ready to run, within the layers of the worker and the number of handlers it runs at a time.
    pub(crate) fn ready(self, outer: &Layers, abort_after: Duration, running: &Arc<Semaphore>) -> Registered {
        let abort_after = self.abort_after.unwrap_or(abort_after);
        let nature = self.code.nature();
        let bare = self.layers.is_empty() && outer.is_empty();
        let run = match self.code {
            Code::Async(handler) if bare => Run::Async(handler),
            Code::Blocking(handler) if bare => Run::Blocking(handler),
            code => {
                let innermost = code.into_service(abort_after, running);
                Run::Service(outer.wrap(self.layers.wrap(innermost)))
            }
        };
        Registered {
            run,
            nature,
            timeout: self.timeout,
            retry: self.retry,
            result_ttl: self.result_ttl,
            version: self.version,
            abort_after,
        }
    }
}

impl fmt::Debug for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handling").field("kind", &self.kind).finish_non_exhaustive()
    }
}
