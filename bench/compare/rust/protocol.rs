//! What the peers in Rust have in common: see "The protocol" in ../README.md.

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, sleep_until};

const PAYLOAD_BYTES: usize = 200;
const BATCH: usize = 1000;

/// Anything that stopped the peer.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// A job system under measurement.
pub(crate) trait Peer {
    /// Makes the tables, in a database of its own.
    async fn prepare(&self) -> Result<(), Error>;
    /// Accepts these, by the quickest way there is for so many.
    async fn enqueue(&self, payloads: Vec<Payload>) -> Result<(), Error>;
    /// Nothing more is enqueued: what has been must not depend on this process any more.
    async fn enqueued(&self) -> Result<(), Error>;
    /// Starts a worker, which records each run of a job.
    async fn work(&self, tally: Arc<Tally>) -> Result<impl Running, Error>;
    /// Removes what the broker keeps beyond a process.
    async fn drop_queues(&self) -> Result<(), Error>;
}

/// A worker that runs.
pub(crate) trait Running {
    /// Whether any job is left whose outcome is not recorded.
    async fn unfinished(&self) -> Result<bool, Error>;
    /// How many jobs are over and still known.
    async fn kept(&self) -> Result<i64, Error>;
    /// Ends it in good order.
    async fn stop(self) -> Result<(), Error>;
}

/// 200 bytes as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Payload {
    job: usize,
    sent: u64,
    pad: String,
}

impl Payload {
    fn new(job: usize) -> Self {
        let sent = now();
        let bare = format!(r#"{{"job":{job},"sent":{sent},"pad":""}}"#).len();
        Self { job, sent, pad: "x".repeat(PAYLOAD_BYTES - bare) }
    }
}

/// Does what the arguments ask for.
pub(crate) async fn main(peer: impl Peer) -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mut numbers = Vec::new();
    for argument in arguments.iter().skip(1) {
        numbers.push(argument.parse::<u32>().map_err(|_| format!("{argument:?} is not a count"))?);
    }
    match (arguments.first().map(String::as_str), &numbers[..]) {
        (Some("prepare"), []) => peer.prepare().await,
        (Some("enqueue"), &[jobs, rate]) => enqueue(&peer, jobs, rate).await,
        (Some("work"), &[jobs]) => work(&peer, jobs as usize).await,
        (Some("drop"), []) => peer.drop_queues().await,
        _ => Err("usage: prepare | enqueue JOBS RATE | work JOBS | drop".into()),
    }
}

/// An environment variable that must be set.
pub(crate) fn variable(name: &str) -> Result<String, Error> {
    env::var(name).map_err(|error| format!("{name}: {error}").into())
}

async fn enqueue(peer: &impl Peer, jobs: u32, rate: u32) -> Result<(), Error> {
    let (began, start) = (now(), Instant::now());
    if rate > 0 {
        for job in 0..jobs {
            sleep_until((start + Duration::from_secs(job.into()) / rate).into()).await;
            peer.enqueue(vec![Payload::new(job as usize)]).await?;
        }
    } else {
        for first in (0..jobs as usize).step_by(BATCH) {
            let last = (first + BATCH).min(jobs as usize);
            peer.enqueue((first..last).map(Payload::new).collect()).await?;
        }
    }
    peer.enqueued().await?;
    println!(r#"{{"began":{began},"ended":{}}}"#, now());
    Ok(())
}

async fn work(peer: &impl Peer, jobs: usize) -> Result<(), Error> {
    let tally = Arc::new(Tally::new(jobs));
    let worker = peer.work(tally.clone()).await?;
    println!(r#"{{"ready":true}}"#);
    while tally.distinct.load(Relaxed) < jobs {
        sleep(Duration::from_millis(2)).await;
    }
    while worker.unfinished().await? {
        sleep(Duration::from_millis(10)).await;
    }
    let finished = now();
    println!("{{{},\"finished\":{finished},\"kept\":{}}}", tally.result(), worker.kept().await?);
    // Until it is closed, the memory of this process is looked at.
    tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink())).await??;
    worker.stop().await
}

/// What has run.
pub(crate) struct Tally {
    /// When each job first started; 0 while it has not.
    started: Vec<AtomicU64>,
    latency: Vec<AtomicU64>,
    runs: AtomicUsize,
    distinct: AtomicUsize,
}

impl Tally {
    fn new(jobs: usize) -> Self {
        let zeros = || (0..jobs).map(|_| AtomicU64::new(0)).collect();
        Self { started: zeros(), latency: zeros(), runs: AtomicUsize::new(0), distinct: AtomicUsize::new(0) }
    }

    /// Counts a run of a job.
    pub(crate) fn record(&self, payload: &Payload) {
        let at = now();
        self.runs.fetch_add(1, Relaxed);
        let Some(started) = self.started.get(payload.job) else { return };
        if started.compare_exchange(0, at, Relaxed, Relaxed).is_ok() {
            self.latency[payload.job].store(at.saturating_sub(payload.sent), Relaxed);
            self.distinct.fetch_add(1, Relaxed);
        }
    }

    fn result(&self) -> String {
        let sorted = |times: &[AtomicU64]| {
            let mut times: Vec<_> = times.iter().map(|time| time.load(Relaxed)).collect();
            times.sort_unstable();
            times
        };
        let (started, latency) = (sorted(&self.started), sorted(&self.latency));
        let at = |times: &[u64], percent: usize| {
            times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        format!(
            r#""first":{},"last":{},"runs":{},"p50":{},"p99":{}"#,
            at(&started, 0),
            at(&started, 100),
            self.runs.load(Relaxed),
            at(&latency, 50),
            at(&latency, 99)
        )
    }
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
