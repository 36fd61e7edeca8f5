//! Layers around handlers: their order, what they may do, and the stock ones.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::Notify;
use tower::ServiceBuilder;
use windlass_core::{CancelOutcome, JobId, State};
use windlass_worker::{
    Context, Handling, JobError,
    middleware::{Layer, RateLayer, Service, TimeoutLayer, Value},
};

use crate::{
    logs::Logs,
    support::{Bench, Notes, Other, Task, options, run, until},
};

/// Writes down when attempts go in and come out.
#[derive(Clone)]
struct Trail {
    name: &'static str,
    notes: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Trailing<S> {
    inner: S,
    trail: Trail,
}

impl<S> Layer<S> for Trail {
    type Service = Trailing<S>;

    fn layer(&self, inner: S) -> Trailing<S> {
        Trailing { inner, trail: self.clone() }
    }
}

impl<S> Service<Context> for Trailing<S>
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
        let Trail { name, notes } = self.trail.clone();
        notes.lock().unwrap().push(format!("{name} {}", context.payload().get()));
        let running = self.inner.call(context);
        async move {
            let ended = running.await;
            notes.lock().unwrap().push(format!("{name} {}", if ended.is_ok() { "ok" } else { "error" }));
            ended
        }
        .boxed()
    }
}

#[tokio::test]
async fn layers_are_in_the_order_of_a_service_builder() {
    let bench = Bench::new().await;
    let notes = Arc::new(Mutex::new(Vec::new()));
    let trail = |name| Trail { name, notes: notes.clone() };
    let inside = notes.clone();
    let handler = move |task: Task| {
        inside.lock().unwrap().push(format!("handler {}", task.number));
        std::future::ready(if task.number == 7 { Ok(()) } else { Err(JobError::discard("not seven")) })
    };
    let worker = bench
        .worker()
        .layer(trail("1"))
        .handle_with(Handling::of(handler).layer(trail("4")).layer(trail("5")))
        .handle(async |_: Other| Ok::<_, JobError>("other"))
        .layer(ServiceBuilder::new().layer(trail("2")).layer(trail("3")));
    let running = run(worker);
    let id = bench.task(7).await;
    bench.succeeds(id).await;
    let task = "{\"number\":7}";
    let taken = std::mem::take(&mut *notes.lock().unwrap());
    let expected = [
        &format!("1 {task}"),
        &format!("2 {task}"),
        &format!("3 {task}"),
        &format!("4 {task}"),
        &format!("5 {task}"),
        "handler 7",
        "5 ok",
        "4 ok",
        "3 ok",
        "2 ok",
        "1 ok",
    ];
    assert_eq!(taken, expected);

    // The worker's are around every handler, a handler's around its own.
    let other = bench.client.enqueue(Other {}).await.unwrap();
    assert_eq!(bench.succeeds(other).await.result.unwrap().get(), "\"other\"");
    let taken = std::mem::take(&mut *notes.lock().unwrap());
    assert_eq!(taken, ["1 {}", "2 {}", "3 {}", "3 ok", "2 ok", "1 ok"]);

    let failing = bench.task(8).await;
    let record = bench.reaches(failing, State::Dead).await;
    assert_eq!(record.errors[0].message, "not seven");
    assert_eq!(notes.lock().unwrap().last().unwrap(), "1 error");
    running.stop().await;
    bench.nothing_is_left().await;
}

/// A layer from a closure over what to answer, given the attempt and the handler behind it.
#[derive(Clone)]
pub struct With<F>(pub F);

#[derive(Clone)]
pub struct WithService<S, F>(S, F);

impl<S, F: Clone> Layer<S> for With<F> {
    type Service = WithService<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        WithService(inner, self.0.clone())
    }
}

impl<S, F> Service<Context> for WithService<S, F>
where
    S: Service<Context, Response = Value, Error = JobError> + Clone + Send + 'static,
    S::Future: Send + 'static,
    F: Fn(Context, BoxedCall) -> BoxFuture<'static, Result<Value, JobError>>,
{
    type Response = Value;
    type Error = JobError;
    type Future = BoxFuture<'static, Result<Value, JobError>>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), JobError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, context: Context) -> Self::Future {
        let mut inner = self.0.clone();
        (self.1)(context, Box::new(move |context| inner.call(context).boxed()))
    }
}

pub type BoxedCall = Box<dyn FnMut(Context) -> BoxFuture<'static, Result<Value, JobError>> + Send>;

#[tokio::test]
async fn a_layer_may_answer_itself_call_again_or_panic() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let runs = notes.clone();
    let layer = With(|context: Context, mut call: BoxedCall| {
        async move {
            match context.payload().get() {
                "{\"number\":0}" => Err(JobError::discard("refused at the door")),
                "{\"number\":1}" => {
                    let _ = call(context.clone()).await;
                    call(context).await
                }
                _ => panic!("a bug in the layer"),
            }
        }
        .boxed()
    });
    let running = run(bench.worker().layer(layer).handle(move |_: Task, ctx: Context| {
        drop(runs.begin(ctx.job_id()));
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let (refused, twice, panics) = (bench.task(0).await, bench.task(1).await, bench.task(2).await);
    assert_eq!(bench.reaches(refused, State::Dead).await.errors[0].message, "refused at the door");
    bench.succeeds(twice).await;
    until("the panic is recorded", async || !bench.get(panics).await.errors.is_empty()).await;
    assert_eq!(bench.get(panics).await.errors[0].message, "the handler panicked: a bug in the layer");
    assert_eq!((notes.runs_of(refused), notes.runs_of(twice), notes.runs_of(panics)), (0, 2, 0));
    running.stop().await;
    bench.nothing_is_left().await;
}

/// A thread goes on when a layer gives up on it: its attempt must not end before it, nor its place be given away.
#[tokio::test]
async fn a_thread_that_a_layer_gives_up_on_is_told_and_waited_for() {
    let bench = Bench::new().await;
    let (began, ended) = (Arc::new(Notify::new()), Arc::new(AtomicBool::default()));
    let (begin, end) = (began.clone(), ended.clone());
    let layer = With(move |context: Context, mut call: BoxedCall| {
        let began = began.clone();
        async move {
            tokio::select! {
                biased;
                result = call(context) => result,
                () = began.notified() => Err(JobError::discard("too slow")),
            }
        }
        .boxed()
    });
    let handler = move |_: Task, ctx: Context| {
        begin.notify_one();
        while !ctx.cancelled().is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(200));
        end.store(true, Ordering::SeqCst);
        Ok::<_, JobError>(())
    };
    let mut one = options();
    one.concurrency = 1;
    let seen = ended.clone();
    let worker = bench
        .worker_with(one)
        .handle_with(Handling::blocking(handler).layer(layer))
        .handle(move |_: Other| std::future::ready(Ok::<_, JobError>(seen.load(Ordering::SeqCst))));
    let running = run(worker);
    let id = bench.task(1).await;
    bench.reaches(id, State::Running).await;
    let next = bench.client.enqueue(Other {}).await.unwrap();
    assert_eq!(bench.reaches(id, State::Dead).await.errors[0].message, "too slow");
    assert!(ended.load(Ordering::SeqCst), "the attempt ended before its thread");
    assert_eq!(bench.succeeds(next).await.result.unwrap().get(), "true");
    running.stop().await;
    bench.nothing_is_left().await;
}

/// What waits before its handler is not held up to the end of the grace, and has not used up an attempt.
#[tokio::test]
async fn an_attempt_that_waits_in_a_layer_can_be_cancelled_and_is_given_back_on_shutdown() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let runs = notes.clone();
    let inside = Arc::new(AtomicUsize::default());
    let count = inside.clone();
    let layer = With(move |_: Context, _: BoxedCall| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::pending().boxed()
    });
    let mut patient = options();
    (patient.grace, patient.abort_after) = (Duration::from_secs(3600), Duration::from_secs(3600));
    let running = run(bench.worker_with(patient).layer(layer).handle(move |_: Task, ctx: Context| {
        drop(runs.begin(ctx.job_id()));
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let timed = bench.client.enqueue(Task { number: 1 }).timeout(Duration::from_millis(1)).await.unwrap();
    let cancelled = bench.task(2).await;
    until("both wait in the layer", async || inside.load(Ordering::SeqCst) == 2).await;
    assert_eq!(bench.client.cancel(cancelled).await.unwrap(), CancelOutcome::Requested);
    assert!(bench.reaches(cancelled, State::Cancelled).await.errors.is_empty());
    // Its timeout counts from its handler's beginning.
    assert_eq!(bench.get(timed).await.state, State::Running);
    running.stop().await;
    let record = bench.get(timed).await;
    assert_eq!((record.state, record.attempt, record.errors.len()), (State::Queued, 0, 0));
    assert_eq!(notes.runs(), 0);
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn the_timeout_layer_shortens_and_never_lengthens() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let runs = notes.clone();
    let handler = move |_: Task, ctx: Context| {
        let run = runs.begin(ctx.job_id());
        async move {
            let _run = run;
            ctx.cancelled().cancelled().await;
            Err::<(), _>(JobError::retry("stopped"))
        }
    };
    let limit = |ms| TimeoutLayer::new(Duration::from_millis(ms));
    // A wait outside of the handler does not count, wherever the layer stands.
    let late = With(|context: Context, mut call: BoxedCall| {
        async move {
            tokio::time::sleep(Duration::from_millis(400)).await;
            call(context).await
        }
        .boxed()
    });
    let handling = Handling::of(handler).layer(limit(200)).layer(late).layer(limit(60_000));
    let running = run(bench.worker().layer(limit(60_000)).handle_with(handling));
    let enqueue = bench.client.enqueue(Task { number: 1 }).max_attempts(1);
    let (own, shorter) = (
        enqueue.await.unwrap(),
        bench
            .client
            .enqueue(Task { number: 2 })
            .max_attempts(1)
            .timeout(Duration::from_millis(50))
            .await
            .unwrap(),
    );
    for (id, seconds) in [(own, "0.2"), (shorter, "0.05")] {
        let record = bench.reaches(id, State::Dead).await;
        let expected = format!("the attempt took longer than its timeout of {seconds} s");
        assert_eq!(record.errors[0].message, expected);
        let took = (record.finished_at.unwrap() - record.started_at.unwrap()).to_std().unwrap();
        assert!(took >= Duration::from_millis(450), "{took:?}");
        assert_eq!(notes.runs_of(id), 1);
    }
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn the_rate_layer_spaces_handlers_out_whatever_their_kind() {
    let bench = Bench::new().await;
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (begun.clone(), begun.clone());
    let worker = bench
        .worker()
        .layer(RateLayer::new(20, Duration::from_secs(1)))
        .handle(move |_: Task| {
            first.lock().unwrap().push(Instant::now());
            std::future::ready(Ok::<_, JobError>(()))
        })
        .handle(move |_: Other| {
            second.lock().unwrap().push(Instant::now());
            std::future::ready(Ok::<_, JobError>(()))
        });
    let running = run(worker);
    let from = Instant::now();
    let mut ids = bench.tasks(6).await;
    for _ in 0..6 {
        ids.push(bench.client.enqueue(Other {}).await.unwrap());
    }
    bench.all_succeed(&ids).await;
    let begun = begun.lock().unwrap().clone();
    let took = begun.last().unwrap().duration_since(from);
    assert_eq!(begun.len(), 12);
    // Eleven spaces of 50 ms, and what the scheduler adds.
    assert!(took >= Duration::from_millis(11 * 50), "{took:?}");
    running.stop().await;
}

/// Layers, handlers of every nature, and the outcome: one span around them all.
#[tokio::test]
async fn everything_happens_in_the_attempts_span() {
    let logs = Logs::collect();
    let bench = Bench::new().await;
    let layer = With(|context: Context, mut call: BoxedCall| {
        tracing::info!("in the layer");
        call(context)
    });
    // Only this thread collects by itself.
    let here = tracing::dispatcher::get_default(Clone::clone);
    let worker = bench
        .worker()
        .handle_with(
            Handling::of(async |_: Task| {
                tracing::info!("in the handler");
                Err::<(), _>(JobError::discard("so that the outcome is told"))
            })
            .layer(layer),
        )
        .handle_blocking(move |_: Other| {
            tracing::dispatcher::with_default(&here, || tracing::info!("on its thread"));
            Ok::<_, JobError>(())
        });
    let running = run(worker);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let id: JobId = bench.client.enqueue(Task { number: 1 }).trace(trace.parse().unwrap()).await.unwrap();
    bench.reaches(id, State::Dead).await;
    for text in ["in the layer", "in the handler", "attempt failed for good"] {
        let lines = logs.lines_with(text);
        let [line] = &lines[..] else { panic!("one line: {lines:?}") };
        for part in [&id.to_string(), "kind=test.task", "queue=default", "attempt=1", trace] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
    let blocking = bench.client.enqueue(Other {}).await.unwrap();
    bench.succeeds(blocking).await;
    assert!(logs.lines_with("on its thread")[0].contains(&blocking.to_string()));
    running.stop().await;
}

/// As seen by whoever collects the traces.
#[cfg(feature = "opentelemetry")]
#[tokio::test]
async fn the_attempts_span_is_a_child_of_the_enqueues() {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt as _;

    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let exporting = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(exporting));

    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let with = bench.client.enqueue(Task { number: 1 }).trace(trace.parse().unwrap()).await.unwrap();
    let without = bench.task(2).await;
    bench.all_succeed(&[with, without]).await;
    running.stop().await;

    let spans = exporter.get_finished_spans().unwrap();
    let span_of = |id: JobId| {
        let is_of = |span: &&opentelemetry_sdk::trace::SpanData| {
            span.attributes.iter().any(|a| a.key.as_str() == "job_id" && a.value.as_str() == id.to_string())
        };
        spans.iter().find(is_of).unwrap()
    };
    let (child, root) = (span_of(with), span_of(without));
    assert_eq!(child.span_context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(child.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(child.parent_span_is_remote);
    assert_eq!(root.parent_span_id.to_string(), "0000000000000000");
}
