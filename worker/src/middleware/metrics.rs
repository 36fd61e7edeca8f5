use std::task::{self, Poll};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::Instant;

use super::{Layer, Service, Value};
use crate::{Context, Decision, JobError};

const STARTED: &str = "windlass_handlers_started_total";
const ENDED: &str = "windlass_handlers_ended_total";
const DURATION: &str = "windlass_handler_duration_seconds";

/// Counts handlers and takes their time, through the [`metrics`](https://docs.rs/metrics) facade: whatever recorder your program
/// installs gets them, and without one nothing happens.
///
/// | metric | | labels |
/// |---|---|---|
/// | `windlass_handlers_started_total` | counter | `kind`, `queue` |
/// | `windlass_handlers_ended_total` | counter | `kind`, `queue`, `outcome` |
/// | `windlass_handler_duration_seconds` | histogram | `kind`, `queue`, `outcome` |
///
/// The outcome is what the handler ended with: `succeeded`, `failed`, `discarded`, `snoozed`, or `stopped` when it was
/// told to stop (cancelled, timed out, shut down, lease lost) and did, or was dropped. What becomes of the job is
/// another matter: whether a failed one is tried again, its retry policy says.
///
/// Layers inside of this one are part of the handler, as far as it can see. So are a batch job's company and the wait for it.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MetricsLayer;

impl MetricsLayer {
    /// The layer. It also describes the metrics to the recorder, so install that first.
    #[must_use]
    pub fn new() -> Self {
        use metrics::Unit;
        metrics::describe_counter!(STARTED, Unit::Count, "Handlers that have begun");
        metrics::describe_counter!(ENDED, Unit::Count, "Handlers that have ended, by what they ended with");
        metrics::describe_histogram!(
            DURATION,
            Unit::Seconds,
            "How long handlers took, by what they ended with"
        );
        Self
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { inner }
    }
}

/// What [`MetricsLayer`] makes.
#[derive(Debug, Clone)]
pub struct Metrics<S> {
    inner: S,
}

impl<S> Service<Context> for Metrics<S>
where
    S: Service<Context, Response = Value, Error = JobError>,
    S::Future: Send + 'static,
{
    type Response = Value;
    type Error = JobError;
    type Future = BoxFuture<'static, Result<Value, JobError>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), JobError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, context: Context) -> Self::Future {
        let mut run = Run::begin(context.clone());
        let running = self.inner.call(context);
        async move {
            let ended = running.await;
            run.ended(&ended);
            ended
        }
        .boxed()
    }
}

/// Recorded when it is dropped, since a handler may be as well.
struct Run {
    context: Context,
    began: Instant,
    outcome: &'static str,
}

impl Run {
    fn begin(context: Context) -> Self {
        let (kind, queue) = (context.kind().to_string(), context.queue().to_string());
        metrics::counter!(STARTED, "kind" => kind, "queue" => queue).increment(1);
        Self { context, began: Instant::now(), outcome: "stopped" }
    }

    fn ended(&mut self, ended: &Result<Value, JobError>) {
        let told = self.context.gate().is_some_and(|gate| gate.told().is_cancelled());
        self.outcome = match ended.as_ref().map_err(JobError::decision) {
            Ok(_) => "succeeded",
            Err(_) if told => "stopped",
            Err(Decision::Retry | Decision::RetryAfter(_)) => "failed",
            Err(Decision::Discard) => "discarded",
            Err(Decision::Snooze(_)) => "snoozed",
        };
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let (kind, queue) = (self.context.kind().to_string(), self.context.queue().to_string());
        let labels = [
            metrics::Label::new("kind", kind),
            metrics::Label::new("queue", queue),
            metrics::Label::from_static_parts("outcome", self.outcome),
        ];
        metrics::counter!(ENDED, labels.to_vec()).increment(1);
        metrics::histogram!(DURATION, labels.to_vec()).record(self.began.elapsed().as_secs_f64());
    }
}
