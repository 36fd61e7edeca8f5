//! What becomes of more requests than the API can carry: those it accepts, those it refuses, and how fast it says so.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    runtime,
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use windlass::{Client, JobId, Settings, driver::Lane, prelude::*};
use windlass_api::ApiOptions;

use crate::{Counters, Error, Noop, Tally, apart, noop, report::rate};

/// The rest between two requests that are alone.
const REST: Duration = Duration::from_millis(5);
/// Connections that ask as fast as they are answered, to find out how much the API can carry.
const BUSY: usize = 64;
/// Connections of those who do not wait for answers before they send more, when that can be carried,
const STEADY: usize = 256;
/// and when not.
const CROWD: usize = 2000;
/// What is not sustained is tried again with so much of it.
const LESS: f64 = 0.9;
/// Of a sustained load, this part at most may be refused: in a pause of the machine, say.
const FEW: f64 = 0.001;
/// How long after it its last jobs may still be running.
const BEHIND: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// How many requests are alone, one after the other, after as many to warm up.
    pub alone: u32,
    /// For how long as much is asked as is answered, and then each load that may be sustainable.
    pub sustain: Duration,
    /// How long the load lasts then.
    pub time: Duration,
    /// By how much it is more than that.
    pub factor: f64,
}

/// How the API fared. Times are microseconds, from when a request was to be sent.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// The store, without secrets.
    pub store: String,
    /// The broker, without secrets.
    pub broker: String,
    /// When each request is alone.
    pub alone: LoadRow,
    /// With as many requests as are answered, whether their jobs are run meanwhile or not.
    pub most: LoadRow,
    /// How many jobs per second are accepted and run then.
    pub most_per_second: f64,
    /// The greatest load that can go on without end, of those tried: sent whether answered or not, with hardly any
    /// refused, and all run meanwhile.
    pub sustained: LoadRow,
    /// With more than that.
    pub load: LoadRow,
    /// How much of what was accepted under load has run to its end.
    pub done: usize,
}

/// One measurement.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LoadRow {
    /// Requests per second.
    pub asked_per_second: f64,
    /// Those answered 202, per second.
    pub accepted_per_second: f64,
    /// The median time until they were.
    pub accepted_p50_us: u64,
    /// The same, 99th percentile.
    pub accepted_p99_us: u64,
    /// Those answered 429 or 503, per second.
    pub refused_per_second: f64,
    /// The median time until they were.
    pub refused_p50_us: u64,
    /// The same, 99th percentile.
    pub refused_p99_us: u64,
    /// Those answered otherwise, or not at all.
    pub failed: usize,
}

/// Runs the benchmark with an API and a worker in this process, each on threads of its own, under a schema and queue of its
/// own, which it removes.
///
/// # Errors
/// Whatever a server, the API or the worker says; also when a job that was accepted does not end.
pub async fn run_load(
    settings: &Settings,
    api: ApiOptions,
    options: LoadOptions,
) -> Result<LoadReport, Error> {
    let (settings, queue) = apart(settings)?;
    let counters = Counters::connect(&settings).await?;
    let client = Client::connect(&settings).await?;
    client.store().migrate().await?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(windlass_api::serve(listener, client.clone(), api, stop.clone()));
    let working = work(client.clone(), settings.clone(), stop.clone())?;

    let request = format!(r#"{{"kind":"{}","queue":"{queue}","payload":{{}}}}"#, Noop::KIND);
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{request}",
        request.len()
    );
    let asker = Asker { address, request: request.into_bytes().into(), options };
    let alone = asking({
        let asker = asker.clone();
        move || async move { asker.alone().await }
    })
    .await?;
    finish(&client, &alone.accepted).await?;
    let began = Instant::now();
    let most = asking({
        let asker = asker.clone();
        move || async move { asker.busy().await }
    })
    .await?;
    finish(&client, &most.accepted).await?;
    let most_per_second = rate(most.accepted.len(), began.elapsed());
    let mut per_second = most_per_second;
    let sustained = loop {
        let steady = crowd(&asker, STEADY, per_second, options.sustain).await?;
        let ended = Instant::now();
        let last = steady.accepted.len().saturating_sub(1000);
        finish(&client, &steady.accepted[last..]).await?;
        let behind = ended.elapsed();
        finish(&client, &steady.accepted).await?;
        if steady.missed() <= FEW && behind < BEHIND {
            break steady;
        }
        per_second *= LESS;
    };
    let load = crowd(&asker, CROWD, per_second * options.factor, options.time).await?;
    let done = finish(&client, &load.accepted).await?;
    stop.cancel();
    serving.await??;
    tokio::task::spawn_blocking(move || joined(working)).await??;
    client.broker().delete(&Lane::of(&queue).collect::<Vec<_>>()).await?;
    client.close().await;
    counters.drop_schema(&settings.store_schema).await?;
    Ok(LoadReport {
        store: settings.store_url.to_string(),
        broker: settings.broker_url.to_string(),
        alone: alone.row()?,
        most: most.row()?,
        most_per_second,
        sustained: sustained.row()?,
        load: load.row()?,
        done,
    })
}

/// So many requests per second, whether answered or not.
async fn crowd(asker: &Asker, many: usize, per_second: f64, time: Duration) -> Result<Answers, Error> {
    let (asker, every) = (asker.clone(), Duration::from_secs(1).div_f64(per_second));
    asking(move || async move { asker.crowd(many, every, time).await }).await
}

/// Asks on a thread apart from the API's, which is to be measured.
async fn asking<F>(ask: impl FnOnce() -> F + Send + 'static) -> Result<Answers, Error>
where
    F: Future<Output = Result<Answers, Error>>,
{
    let thread = named("asking", move || {
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(ask())
    })?;
    tokio::task::spawn_blocking(move || joined(thread)).await?
}

fn joined<T>(thread: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    thread.join().map_err(|_| "a thread of the benchmark has ended by a panic")?
}

/// A thread that can be told from the API's from outside, to give it another priority.
fn named<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.into()).spawn(run)
}

/// A worker on a thread of its own.
fn work(
    client: Client,
    settings: Settings,
    stop: CancellationToken,
) -> io::Result<JoinHandle<Result<(), Error>>> {
    named("working", move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let tally = Arc::new(Tally { run: 0.into(), all: usize::MAX, done: Notify::new() });
        let worker = Worker::new(client, (&settings).into()).state(tally).handle(noop);
        Ok(runtime.block_on(worker.run_until(stop))?)
    })
}

/// Waits until these jobs have succeeded, for as long as any of them still does.
async fn finish(client: &Client, ids: &[JobId]) -> Result<usize, Error> {
    let mut done = 0;
    for ids in ids.chunks(1000) {
        done += finish_some(client, ids).await?;
    }
    Ok(done)
}

async fn finish_some(client: &Client, ids: &[JobId]) -> Result<usize, Error> {
    let (mut before, mut seen) = (0, Instant::now());
    loop {
        let jobs = client.get_many(ids).await?;
        let done = jobs.iter().filter(|job| job.state == windlass::JobState::Succeeded).count();
        if done == ids.len() {
            return Ok(done);
        }
        if done > before {
            (before, seen) = (done, Instant::now());
        } else if seen.elapsed() > Duration::from_secs(60) {
            return Err(format!("{} of {} accepted jobs do not end", ids.len() - done, ids.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What came of the requests of one measurement.
struct Answers {
    /// Also without having been timed.
    accepted: Vec<JobId>,
    accepting: Histogram<u64>,
    refusing: Histogram<u64>,
    failed: usize,
    took: Duration,
}

impl Answers {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            accepted: Vec::new(),
            accepting: Histogram::new(3)?,
            refusing: Histogram::new(3)?,
            failed: 0,
            took: Duration::ZERO,
        })
    }

    fn count(&mut self, answer: Result<Answer, Error>, since: Instant) -> Result<(), Error> {
        let took = u64::try_from(since.elapsed().as_micros())?;
        match answer {
            Ok(Answer::Accepted(id)) => {
                self.accepted.push(id);
                self.accepting.record(took)?;
            }
            Ok(Answer::Refused) => self.refusing.record(took)?,
            Err(_) => self.failed += 1,
        }
        Ok(())
    }

    /// The part that was not accepted.
    fn missed(&self) -> f64 {
        let missed = self.refusing.len() + self.failed as u64;
        missed as f64 / (missed + self.accepting.len()).max(1) as f64
    }

    fn row(&self) -> Result<LoadRow, Error> {
        let accepted = usize::try_from(self.accepting.len())?;
        let refused = usize::try_from(self.refusing.len())?;
        Ok(LoadRow {
            asked_per_second: rate(accepted + refused + self.failed, self.took),
            accepted_per_second: rate(accepted, self.took),
            accepted_p50_us: self.accepting.value_at_quantile(0.5),
            accepted_p99_us: self.accepting.value_at_quantile(0.99),
            refused_per_second: rate(refused, self.took),
            refused_p50_us: self.refusing.value_at_quantile(0.5),
            refused_p99_us: self.refusing.value_at_quantile(0.99),
            failed: self.failed,
        })
    }
}

/// Who asks.
#[derive(Clone)]
struct Asker {
    address: SocketAddr,
    request: Arc<[u8]>,
    options: LoadOptions,
}

impl Asker {
    fn connection(&self) -> Connection {
        Connection::new(self.address, self.request.clone())
    }

    async fn alone(&self) -> Result<Answers, Error> {
        let mut alone = Answers::new()?;
        let mut connection = self.connection();
        for sample in 0..2 * self.options.alone {
            tokio::time::sleep(REST).await;
            let since = Instant::now();
            let answer = connection.ask().await;
            if sample == self.options.alone {
                alone = Answers::new()?;
            }
            alone.count(answer, since)?;
        }
        alone.took = REST * self.options.alone;
        Ok(alone)
    }

    async fn busy(&self) -> Result<Answers, Error> {
        let until = Instant::now() + self.options.sustain;
        by_many(BUSY, self.options.sustain, |_, answers| {
            let mut connection = self.connection();
            async move {
                while Instant::now() < until {
                    let since = Instant::now();
                    let answer = connection.ask().await;
                    count(&answers, answer, since)?;
                }
                Ok(())
            }
        })
        .await
    }

    async fn crowd(&self, many: usize, every: Duration, time: Duration) -> Result<Answers, Error> {
        // Connecting is a cost of its own, and so is the memory that a connection's first request touches.
        let (mut crowd, mut first) = (Vec::with_capacity(many), Vec::with_capacity(many));
        for _ in 0..many {
            let mut connection = self.connection();
            if let Answer::Accepted(id) = connection.ask().await? {
                first.push(id);
            }
            crowd.push(Some(connection));
        }
        let began = Instant::now();
        let mut answers = by_many(many, time, |at, answers| {
            let connection = crowd[at].take();
            async move {
                let mut connection = connection.ok_or("each has one connection")?;
                // Each has its own times to send, whether the request before has been answered or not.
                for turn in 0u32.. {
                    let since = every.mul_f64(f64::from(turn) * many as f64 + at as f64);
                    if since > time {
                        break;
                    }
                    let since = began + since;
                    tokio::time::sleep_until(since.into()).await;
                    let answer = connection.ask().await;
                    count(&answers, answer, since)?;
                }
                Ok(())
            }
        })
        .await?;
        first.append(&mut answers.accepted);
        answers.accepted = first;
        Ok(answers)
    }
}

/// What all of them count is counted in one place: pages that are touched for the first time, for each connection's own
/// histograms, would cost more than the requests.
async fn by_many<F>(
    many: usize,
    time: Duration,
    mut one: impl FnMut(usize, Arc<Mutex<Answers>>) -> F,
) -> Result<Answers, Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let answers = Arc::new(Mutex::new(Answers { took: time, ..Answers::new()? }));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..many {
        tasks.spawn(one(at, answers.clone()));
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let answers = Arc::into_inner(answers).ok_or("somebody still counts")?;
    Ok(answers.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn count(answers: &Mutex<Answers>, answer: Result<Answer, Error>, since: Instant) -> Result<(), Error> {
    answers.lock().unwrap_or_else(PoisonError::into_inner).count(answer, since)
}

enum Answer {
    Accepted(JobId),
    Refused,
}

/// A client that costs little beside what it measures.
struct Connection {
    address: SocketAddr,
    request: Arc<[u8]>,
    stream: Option<BufReader<TcpStream>>,
    buffer: Vec<u8>,
}

impl Connection {
    fn new(address: SocketAddr, request: Arc<[u8]>) -> Self {
        Self { address, request, stream: None, buffer: Vec::new() }
    }

    async fn ask(&mut self) -> Result<Answer, Error> {
        let answer = self.try_ask().await;
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn try_ask(&mut self) -> Result<Answer, Error> {
        let (request, mut buffer) = (self.request.clone(), std::mem::take(&mut self.buffer));
        buffer.clear();
        let stream = self.stream().await?;
        stream.write_all(&request).await?;
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the connection was closed".into());
            }
        };
        let text = std::str::from_utf8(&buffer[..head])?;
        let status = text.get(9..12).ok_or("no status")?.to_owned();
        let header = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim())
        };
        let length: usize = header("content-length").ok_or("no content-length")?.parse()?;
        let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err("the connection was closed".into());
            }
        }
        if closes {
            self.stream = None;
        }
        let body = std::str::from_utf8(&buffer[head..])?;
        let answer = match &*status {
            "202" => {
                let id = body.split_once("\"id\":\"").and_then(|(_, rest)| rest.split('"').next());
                Ok(Answer::Accepted(id.ok_or("no id")?.parse()?))
            }
            "429" | "503" => Ok(Answer::Refused),
            _ => Err(format!("{status}: {body}").into()),
        };
        self.buffer = buffer;
        answer
    }

    async fn stream(&mut self) -> Result<&mut BufReader<TcpStream>, Error> {
        Ok(match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                none.insert(BufReader::with_capacity(2048, stream))
            }
        })
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "store {}, broker {}", self.store, self.broker)?;
        write!(
            f,
            "  {:<12}{:>10}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}{:>8}",
            "requests", "asked/s", "accepted/s", "p50", "p99", "refused/s", "p50", "p99", "failed"
        )?;
        for (name, row) in [
            ("alone", &self.alone),
            ("most", &self.most),
            ("sustained", &self.sustained),
            ("too many", &self.load),
        ] {
            let milliseconds = |us: u64| us as f64 / 1000.0;
            write!(
                f,
                "\n  {name:<12}{:>10.0}{:>12.0}{:>9.2} ms{:>9.2} ms{:>12.0}{:>9.2} ms{:>9.2} ms{:>8}",
                row.asked_per_second,
                row.accepted_per_second,
                milliseconds(row.accepted_p50_us),
                milliseconds(row.accepted_p99_us),
                row.refused_per_second,
                milliseconds(row.refused_p50_us),
                milliseconds(row.refused_p99_us),
                row.failed
            )?;
        }
        write!(
            f,
            "\n  jobs accepted and run at most: {:.0}/s; of those accepted of too many, {} have run to their end",
            self.most_per_second, self.done
        )
    }
}
