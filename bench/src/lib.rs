//! How fast Windlass is on a given store and broker: no-op jobs accepted, run and finished per second, the added
//! latency of a lone job, and statements and row writes per job, next to what the bare servers do in the same run.

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
mod bare_postgres;
#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
mod bare_rabbitmq;
mod counters;
mod load;
mod memory;
mod polls;
mod report;

use std::{
    future::IntoFuture as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use counters::Counters;
use futures::StreamExt as _;
use hdrhistogram::Histogram;
pub use load::{LoadOptions, LoadReport, LoadRow, run_load};
pub use polls::{PollOptions, PollReport, PollRow, run_polls};
use report::rate;
pub use report::{Bound, Report};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use windlass::{Client, QueueName, Settings, driver::Lane, prelude::*};

/// How callers enqueue while the accept rate is measured.
const CALLERS: usize = 1000;
/// Lone jobs whose latency is measured, after as many to warm up.
const LONE_JOBS: usize = 300;

/// Anything that stopped the run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many jobs to accept and drain.
    pub jobs: usize,
    /// How many the worker runs at a time.
    pub concurrency: usize,
    /// How many run at the same time while memory is measured; at least one.
    pub running: usize,
    /// Whether the bare servers are measured too.
    pub bound: bool,
}

#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "bench.noop")]
struct Noop {}

#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "bench.lone")]
struct Lone {}

/// Counts what has run, and wakes whoever waits for the last.
struct Tally {
    run: AtomicUsize,
    all: usize,
    done: Notify,
}

async fn noop(_: Noop, tally: State<Arc<Tally>>) -> Result<(), JobError> {
    if tally.run.fetch_add(1, Ordering::Relaxed) + 1 == tally.all {
        tally.done.notify_one();
    }
    Ok(())
}

async fn lone(_: Lone, started: State<mpsc::UnboundedSender<Instant>>) -> Result<(), JobError> {
    // Nobody listens after the last one.
    let _ = started.send(Instant::now());
    Ok(())
}

/// Runs the benchmark under a schema and queue of its own, which it removes.
///
/// # Errors
/// Whatever a server or the worker says.
pub async fn run(settings: &Settings, options: Options) -> Result<Report, Error> {
    let (mut settings, queue) = apart(settings)?;
    let name = settings.store_schema.clone();
    settings.worker_concurrency = options.concurrency;
    // Nothing is lost here, and a backlog is no loss.
    settings.republish_after = Duration::from_secs(600);

    let client = Client::connect(&settings).await?;
    client.store().migrate().await?;
    let memory = memory::measure(&client, &settings, &queue, options.running).await?;
    let counters = Counters::connect(&settings).await?;
    let before = counters.read().await?;

    let accepting = enqueue_many(&client, &queue, options.jobs, || Noop {}).await?;
    let drained = drain(&client, &settings, options).await?;
    let whole = accepting + drained.finished;
    let after = counters.read().await?;
    let latency = lone_jobs(&client, &settings, &queue).await?;

    let lanes: Vec<_> = Lane::of(&queue).collect();
    client.broker().delete(&lanes).await?;
    let store = settings.store_url.to_string();
    let broker = settings.broker_url.to_string();
    client.close().await;
    counters.drop_schema(&name).await?;

    let per_job = |n: Option<i64>| n.map(|n| n as f64 / options.jobs as f64);
    let whole_path_per_second = rate(options.jobs, whole);
    Ok(Report {
        store,
        broker,
        jobs: options.jobs,
        accepted_per_second: rate(options.jobs, accepting),
        run_per_second: rate(options.jobs, drained.run),
        finished_per_second: rate(options.jobs, drained.finished),
        whole_path_per_second,
        start_latency_p50_us: latency.value_at_quantile(0.5),
        start_latency_p99_us: latency.value_at_quantile(0.99),
        idle_memory: memory.map(|memory| memory.idle),
        running: options.running,
        running_memory: memory.map(|memory| memory.full.saturating_sub(memory.idle)),
        statements_per_job: per_job(counters::difference(before, after, |c| c.transactions)),
        row_writes_per_job: per_job(counters::difference(before, after, |c| c.row_writes)),
        bound: if options.bound {
            bound(&settings, &name, options.jobs, whole_path_per_second).await?
        } else {
            None
        },
    })
}

/// The settings with a schema and a queue of the run's own, both of one name.
fn apart(settings: &Settings) -> Result<(Settings, QueueName), Error> {
    let name = format!("windlass_bench_{}", uuid::Uuid::new_v4().simple());
    let queue: QueueName = name.parse()?;
    Ok((Settings { store_schema: name, worker_queues: vec![queue.clone()], ..settings.clone() }, queue))
}

/// Enqueues by many concurrent callers; answers the time it took.
async fn enqueue_many<J: Job>(
    client: &Client,
    queue: &QueueName,
    jobs: usize,
    job: impl Fn() -> J,
) -> Result<Duration, Error> {
    let began = Instant::now();
    let mut answers = futures::stream::iter(0..jobs)
        .map(|_| client.enqueue(job()).queue(queue.clone()).into_future())
        .buffer_unordered(CALLERS);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(began.elapsed())
}

struct Drained {
    run: Duration,
    finished: Duration,
}

/// Starts a worker on the backlog and stops it in good order after the last job, so that all outcomes are recorded.
async fn drain(client: &Client, settings: &Settings, options: Options) -> Result<Drained, Error> {
    let tally = Arc::new(Tally { run: AtomicUsize::new(0), all: options.jobs, done: Notify::new() });
    let worker = Worker::new(client.clone(), settings.into()).state(tally.clone()).handle(noop);
    let stop = CancellationToken::new();
    let began = Instant::now();
    let working = tokio::spawn(worker.run_until(stop.clone()));
    tally.done.notified().await;
    let run = began.elapsed();
    stop.cancel();
    working.await??;
    Ok(Drained { run, finished: began.elapsed() })
}

/// Enqueues one job at a time and takes the time until its handler starts, in microseconds.
async fn lone_jobs(client: &Client, settings: &Settings, queue: &QueueName) -> Result<Histogram<u64>, Error> {
    let (started, mut starts) = mpsc::unbounded_channel::<Instant>();
    let worker = Worker::new(client.clone(), settings.into()).state(started).handle(lone);
    let stop = CancellationToken::new();
    let working = tokio::spawn(worker.run_until(stop.clone()));
    let mut histogram = Histogram::new(3)?;
    for sample in 0..2 * LONE_JOBS {
        let called = Instant::now();
        let id = client.enqueue(Lone {}).queue(queue.clone()).await?;
        let start = starts.recv().await.ok_or("the worker has ended")?;
        // The next one is to find the system idle.
        while !client.get(id).await?.is_some_and(|job| job.state.is_terminal()) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        if sample >= LONE_JOBS {
            let latency = start.saturating_duration_since(called).as_micros();
            histogram.record(u64::try_from(latency)?)?;
        }
    }
    stop.cancel();
    working.await??;
    Ok(histogram)
}

/// Measures the bare servers, where the settings name the two that have a bare counterpart here.
async fn bound(
    settings: &Settings,
    name: &str,
    jobs: usize,
    whole_path: f64,
) -> Result<Option<Bound>, Error> {
    #[cfg(all(feature = "postgres", feature = "rabbitmq"))]
    if settings.store_url.expose().starts_with("postgres") && settings.broker_url.expose().starts_with("amqp")
    {
        let rows = bare_postgres::run(settings.store_url.expose(), name, jobs).await?;
        // As long as a message for these jobs: fixed fields, queue and kind.
        let size = 25 + name.len() + Noop::KIND.len();
        let messages = bare_rabbitmq::run(settings.broker_url.expose(), name, jobs, size).await?;
        return Ok(Some(Bound::new(rate(jobs, rows), rate(jobs, messages), whole_path)));
    }
    let _ = (settings, name, jobs, whole_path);
    Ok(None)
}
