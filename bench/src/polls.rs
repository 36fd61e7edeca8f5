//! What polls cost the store: clients that poll, and others that wait, with a query for each answer and by a [`Client`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;
use windlass::{
    Client, ClientOptions, JobId, Settings,
    driver::{Lane, Store, open_broker},
};

use crate::{Counters, Error, Noop, apart, counters, drain, report::rate};

/// How long a client waits for a job in one request.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a client looks who wants to wait, but cannot.
const LOOK: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct PollOptions {
    /// How many jobs are polled; every other one is over.
    pub jobs: usize,
    /// How many clients; every other one polls, the others wait for jobs that do not end.
    pub clients: usize,
    /// How long each measurement takes.
    pub time: Duration,
}

/// What polls cost, one measurement after the other.
#[derive(Debug, Clone, Serialize)]
pub struct PollReport {
    /// The store, without secrets.
    pub store: String,
    /// How many jobs were polled.
    pub jobs: usize,
    /// By how many clients.
    pub clients: usize,
    /// The measurements.
    pub rows: Vec<PollRow>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct PollRow {
    /// How the answers came about.
    pub way: &'static str,
    /// How long a client rests between its answer and its next poll, in milliseconds.
    pub rest_ms: u128,
    /// Answers per second, to polls and to waits.
    pub answers_per_second: f64,
    /// Queries (committed transactions) of the store per answer.
    pub queries_per_answer: f64,
    /// The median time until a poll is answered, in microseconds.
    pub poll_p50_us: u64,
    /// The same, 99th percentile.
    pub poll_p99_us: u64,
}

#[derive(Clone)]
enum Way {
    /// Each answer has a query of its own, and nobody can wait.
    Queries(Arc<dyn Store>),
    Client(Client),
}

/// Runs the benchmark on a Postgres store, under a schema of its own, which it removes.
///
/// # Errors
/// Whatever the store says; also when it is not Postgres, which counts its transactions.
pub async fn run_polls(settings: &Settings, options: PollOptions) -> Result<PollReport, Error> {
    let (settings, queue) = apart(settings)?;
    let counters = Counters::connect(&settings).await?;

    let client = Client::connect(&settings).await?;
    client.store().migrate().await?;
    let mut ids = Vec::with_capacity(options.jobs);
    for _ in 0..options.jobs.div_ceil(2) {
        ids.push(client.enqueue(Noop {}).queue(queue.clone()));
    }
    let mut over = futures::future::try_join_all(ids.into_iter().map(IntoFuture::into_future)).await?;
    let drained = crate::Options { jobs: over.len(), concurrency: 1000, running: 1, bound: false };
    drain(&client, &settings, drained).await?;
    let later = Duration::from_secs(86_400);
    let waiting = (0..options.jobs / 2).map(|_| client.enqueue(Noop {}).queue(queue.clone()).delay(later));
    let waiting = futures::future::try_join_all(waiting.map(IntoFuture::into_future)).await?;
    over.extend(&waiting);
    let (all, waiting): (Arc<[JobId]>, Arc<[JobId]>) = (over.into(), waiting.into());

    let mut rows = Vec::new();
    for rest in [Duration::ZERO, Duration::from_millis(100)] {
        for (way, cache) in
            [("a query each", None), ("shared queries", Some(0)), ("and a cache", Some(16 << 20))]
        {
            let store = client.store().clone();
            let by = match cache {
                None => Way::Queries(store),
                Some(read_cache) => {
                    let options = ClientOptions { relays: false, read_cache, ..ClientOptions::default() };
                    Way::Client(Client::new(store, open_broker("memory:").await?, options))
                }
            };
            rows.push(measure(way, by, rest, options, &all, &waiting, &counters).await?);
        }
    }

    client.broker().delete(&Lane::of(&queue).collect::<Vec<_>>()).await?;
    let store = settings.store_url.to_string();
    client.close().await;
    counters.drop_schema(&settings.store_schema).await?;
    Ok(PollReport { store, jobs: options.jobs, clients: options.clients, rows })
}

async fn measure(
    way: &'static str,
    by: Way,
    rest: Duration,
    options: PollOptions,
    all: &Arc<[JobId]>,
    waiting: &Arc<[JobId]>,
    counters: &Counters,
) -> Result<PollRow, Error> {
    let answers = Arc::new(AtomicU64::new(0));
    let ended = Arc::new(AtomicBool::new(false));
    let before = counters.read().await?;
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..options.clients {
        let (by, answers, ended) = (by.clone(), answers.clone(), ended.clone());
        let ids = if client % 2 == 0 { all.clone() } else { waiting.clone() };
        tasks.spawn(async move {
            let mut times = hdrhistogram::Histogram::<u64>::new(3)?;
            // So that clients neither ask for the same jobs at a time nor all at once.
            let mut next = client * 7919;
            tokio::time::sleep(rest * u32::try_from(client % 100)? / 100).await;
            while !ended.load(Ordering::Relaxed) {
                let id = ids[next % ids.len()];
                next += 1;
                let asked = Instant::now();
                let polls = client % 2 == 0;
                let found = match &by {
                    Way::Queries(store) => store.get(&[id]).await?.pop(),
                    Way::Client(client) if polls => client.get(id).await?,
                    Way::Client(client) => client.wait(id, PATIENCE).await?,
                };
                found.ok_or("a job is missing")?;
                answers.fetch_add(1, Ordering::Relaxed);
                match &by {
                    _ if polls => {
                        times.record(u64::try_from(asked.elapsed().as_micros())?)?;
                        tokio::time::sleep(rest).await;
                    }
                    Way::Queries(_) => tokio::time::sleep(LOOK).await,
                    Way::Client(_) => {}
                }
            }
            Ok::<_, Error>(times)
        });
    }
    tokio::time::sleep(options.time).await;
    let took = began.elapsed();
    let count = answers.load(Ordering::Relaxed);
    ended.store(true, Ordering::Relaxed);
    let mut times = hdrhistogram::Histogram::<u64>::new(3)?;
    while let Some(task) = tasks.join_next().await {
        times.add(task??)?;
    }
    let all = answers.load(Ordering::Relaxed);
    let after = counters.read().await?;
    if let Way::Client(client) = by {
        client.close().await;
    }
    let queries = counters::difference(before, after, |count| count.transactions);
    let queries = queries.ok_or("only a Postgres store counts its queries: name one by --store")?;
    Ok(PollRow {
        way,
        rest_ms: rest.as_millis(),
        answers_per_second: rate(usize::try_from(count)?, took),
        queries_per_answer: queries as f64 / all as f64,
        poll_p50_us: times.value_at_quantile(0.5),
        poll_p99_us: times.value_at_quantile(0.99),
    })
}

impl fmt::Display for PollReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} clients, {} jobs, store {}", self.clients, self.jobs, self.store)?;
        write!(
            f,
            "  {:<16}{:>8}{:>12}{:>16}{:>12}{:>12}",
            "answers by", "rest", "answers/s", "queries/answer", "p50", "p99"
        )?;
        for row in &self.rows {
            let milliseconds = |us: u64| us as f64 / 1000.0;
            write!(
                f,
                "\n  {:<16}{:>5} ms{:>12.0}{:>16.4}{:>9.2} ms{:>9.2} ms",
                row.way,
                row.rest_ms,
                row.answers_per_second,
                row.queries_per_answer,
                milliseconds(row.poll_p50_us),
                milliseconds(row.poll_p99_us)
            )?;
        }
        Ok(())
    }
}
