//! Layers around handlers: [tower] layers over a service that takes the [`Context`] of an attempt and answers with the
//! handler's [`Value`].
//!
//! [`Worker::layer`](crate::Worker::layer) puts one around every handler, [`Handling::layer`](crate::Handling::layer)
//! around one. The order is a `tower::ServiceBuilder`'s: what is added first is outermost, and the worker's are outside
//! of a handler's. A layer is made into a service once for each handler when the worker starts, and that service is
//! cloned for each attempt; what attempts share is behind an `Arc`.
//!
//! Each job of a batch goes through the layers by itself.
//!
//! There is no layer for tracing: the worker opens the attempt's span, with the job's id, kind, queue, attempt and
//! `traceparent`, and everything happens in it: layers, handler, and the line that tells the outcome. With the cargo feature
//! `opentelemetry`, it is a child of the span that the job was enqueued in.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # use windlass_worker as windlass;
//! use windlass::{
//!     Context, JobError, Worker,
//!     middleware::{Layer, MetricsLayer, RateLayer, Service, TimeoutLayer, Value},
//! };
//!
//! /// Says how large payloads are.
//! #[derive(Clone)]
//! struct Sizes<S>(S);
//!
//! impl<S: Service<Context, Response = Value, Error = JobError>> Service<Context> for Sizes<S> {
//!     type Response = Value;
//!     type Error = JobError;
//!     type Future = S::Future;
//!
//!     fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), JobError>> {
//!         self.0.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, attempt: Context) -> S::Future {
//!         tracing::info!(bytes = attempt.payload().get().len(), "begins");
//!         self.0.call(attempt)
//!     }
//! }
//!
//! # fn add(worker: Worker) -> Worker {
//! worker
//!     .layer(MetricsLayer::new())
//!     .layer(RateLayer::new(50, Duration::from_secs(1)))
//!     .layer(tower::layer::layer_fn(Sizes))
//!     .layer(TimeoutLayer::new(Duration::from_secs(300)))
//! # }
//! ```
//!
//! [tower]: https://docs.rs/tower

mod metrics;
mod rate;
mod timeout;

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{self, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use tower::ServiceExt as _;
pub use tower::{Layer, Service};

pub use self::{
    metrics::{Metrics, MetricsLayer},
    rate::{Rate, RateLayer},
    timeout::{Timeout, TimeoutLayer},
};
pub use crate::run::Value;
use crate::{Context, JobError};

/// A handler as a service, for a layer to be put around: it takes an attempt, and answers what the handler does.
#[derive(Clone)]
pub struct HandlerService(Arc<dyn Fn(Context) -> Answer + Send + Sync>);

type Answer = BoxFuture<'static, Result<Value, JobError>>;

impl HandlerService {
    pub(crate) fn new(call: impl Fn(Context) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(crate) fn run(&self, context: Context) -> Answer {
        (self.0)(context)
    }
}

impl Service<Context> for HandlerService {
    type Response = Value;
    type Error = JobError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), JobError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, context: Context) -> Answer {
        self.run(context)
    }
}

impl fmt::Debug for HandlerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerService")
    }
}

/// A tower layer that fits around handlers: a `Layer<HandlerService>` that makes a cloneable service of attempts, with
/// errors that are or become a [`JobError`]. Every such layer is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a layer for handlers",
    note = "expected a `tower::Layer<HandlerService>`, itself `Send + Sync`",
    note = "its service takes a `Context`, answers a `Value` or a `JobError`, and is `Clone + Send + Sync`"
)]
pub trait HandlerLayer: Send + Sync + 'static {
    /// Puts it around a handler.
    fn wrap(&self, handler: HandlerService) -> HandlerService;
}

impl<L> HandlerLayer for L
where
    L: Layer<HandlerService> + Send + Sync + 'static,
    L::Service: Service<Context, Response = Value> + Clone + Send + Sync + 'static,
    <L::Service as Service<Context>>::Error: Into<JobError>,
    <L::Service as Service<Context>>::Future: Future + Send + 'static,
{
    fn wrap(&self, handler: HandlerService) -> HandlerService {
        let service = self.layer(handler);
        HandlerService::new(move |context| {
            service.clone().oneshot(context).map(|ended| ended.map_err(Into::into)).boxed()
        })
    }
}

/// Layers in the order they were added: the first is outermost.
#[derive(Default)]
pub(crate) struct Layers(Vec<Box<dyn HandlerLayer>>);

impl Layers {
    pub(crate) fn add(&mut self, layer: impl HandlerLayer) {
        self.0.push(Box::new(layer));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn wrap(&self, handler: HandlerService) -> HandlerService {
        self.0.iter().rev().fold(handler, |inner, layer| layer.wrap(inner))
    }
}
