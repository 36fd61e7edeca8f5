//! The handlers, and the log of what they do: one file per process, outside of the store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use uuid::Uuid;
use windlass::{JsonValue, UpgradeError, prelude::*};

use crate::{
    clock::{self, Instant},
    lines::Lines,
};

/// The kind whose effect is a line in the process's own log.
pub(crate) const WORK: &str = "torture.work";
/// The kind whose effect is a row in the transaction that completes the job.
pub(crate) const PAY: &str = "torture.pay";
/// The variable that names the process's log.
pub(crate) const LOG_VARIABLE: &str = "WINDLASS_TORTURE_EFFECTS";

/// The variable with the number of the version that a worker is of.
pub(crate) const VERSION_VARIABLE: &str = "WINDLASS_TORTURE_VERSION";

/// What a handler is told to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// How long to take.
    pub(crate) millis: u64,
    /// Each attempt up to this one fails.
    #[serde(default)]
    pub(crate) failures: u32,
    /// By a panic instead of an error.
    #[serde(default)]
    pub(crate) panics: bool,
    /// How the attempt after those ends.
    #[serde(default)]
    pub(crate) ending: Ending,
    /// How much memory to take meanwhile, in MiB.
    #[serde(default)]
    pub(crate) memory: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    #[default]
    Succeed,
    Discard,
}

#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "torture.work", queue = "torture", max_attempts = 20, retry_base = "100ms", retry_cap = "2s")]
struct Work {
    tag: String,
    #[serde(flatten)]
    told: Told,
}

/// The same in the payload's second form, which workers of later versions read.
#[derive(Debug, Serialize, Deserialize, Job)]
#[job(
    kind = "torture.work",
    queue = "torture",
    version = 2,
    upgrade = from_first_form,
    max_attempts = 20,
    retry_base = "100ms",
    retry_cap = "2s"
)]
struct NewWork {
    tag: String,
    told: Told,
}

fn from_first_form(_from: u16, old: JsonValue) -> Result<JsonValue, UpgradeError> {
    let Work { tag, told } = serde_json::from_value(old)?;
    Ok(serde_json::to_value(NewWork { tag, told })?)
}

/// With a timeout, as every kind should have that waits for the network: a connection whose other end is gone without a
/// word (`half-open`) does not tell its statement so. It is longer than any of these jobs takes.
#[derive(Debug, Serialize, Deserialize, Job)]
#[job(
    kind = "torture.pay",
    queue = "torture",
    timeout = "40s",
    max_attempts = 20,
    retry_base = "100ms",
    retry_cap = "2s"
)]
struct Pay {
    tag: String,
    #[serde(flatten)]
    told: Told,
}

/// What a job's result says.
#[derive(Debug, Serialize, Deserialize)]
struct Done {
    run: Uuid,
}

/// A line of a process's log. A *run* is one call of a handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Start { run: Uuid, job: Uuid, attempt: u32, t: Instant },
    Effect { run: Uuid, t: Instant },
    End { run: Uuid, how: How, t: Instant },
}

/// How a run ended, as its handler knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum How {
    Returned,
    Failed,
    /// It panicked, or its future was dropped.
    Dropped,
}

/// Where the handlers leave their traces.
#[derive(Clone)]
struct Traces {
    log: Arc<Lines>,
    schema: String,
}

impl Traces {
    fn begin(&self, ctx: &Context) -> Trace {
        let t = clock::now();
        let trace = Trace { log: self.log.clone(), run: Uuid::new_v4(), how: How::Dropped };
        trace.write(&Line::Start {
            run: trace.run,
            job: ctx.job_id().as_uuid().to_owned(),
            attempt: ctx.attempt(),
            t,
        });
        trace
    }
}

/// A run's lines; the last is written however it ends.
struct Trace {
    log: Arc<Lines>,
    run: Uuid,
    how: How,
}

impl Trace {
    /// A run that leaves no trace must not go on: its effects would count as nobody's.
    fn write(&self, line: &Line) {
        if let Err(error) = self.log.write(line) {
            eprintln!("the log of effects cannot be written: {error}");
            std::process::abort();
        }
    }

    fn effect(&self) {
        self.write(&Line::Effect { run: self.run, t: clock::now() });
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.write(&Line::End { run: self.run, how: self.how, t: clock::now() });
    }
}

/// Takes its time, heeding a request to stop.
async fn take_time(ctx: &Context, told: Told) -> Result<(), JobError> {
    let mut memory = vec![0_u8; told.memory << 20];
    // Touched, so that it is taken and not only promised.
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(told.millis)) => {}
        () = ctx.cancelled().cancelled() => return Err(JobError::retry("told to stop")),
    }
    drop(memory);
    if ctx.attempt() <= told.failures {
        assert!(!told.panics, "attempt {} panics as told", ctx.attempt());
        return Err(JobError::retry(format!("attempt {} fails as told", ctx.attempt())));
    }
    match told.ending {
        Ending::Succeed => Ok(()),
        Ending::Discard => Err(JobError::discard("discarded as told")),
    }
}

async fn work(job: Work, ctx: Context, traces: State<Traces>) -> Result<Done, JobError> {
    do_work(job.told, &ctx, &traces).await
}

async fn new_work(job: NewWork, ctx: Context, traces: State<Traces>) -> Result<Done, JobError> {
    do_work(job.told, &ctx, &traces).await
}

async fn do_work(told: Told, ctx: &Context, traces: &Traces) -> Result<Done, JobError> {
    let mut trace = traces.begin(ctx);
    trace.effect();
    let worked = take_time(ctx, told).await;
    trace.how = if worked.is_ok() { How::Returned } else { How::Failed };
    worked.map(|()| Done { run: trace.run })
}

async fn pay(job: Pay, ctx: Context, traces: State<Traces>) -> Result<Done, JobError> {
    let mut trace = traces.begin(&ctx);
    let paid = pay_in_transaction(&job, &ctx, &traces.schema, trace.run).await;
    trace.how = if paid.is_ok() { How::Returned } else { How::Failed };
    paid
}

async fn pay_in_transaction(job: &Pay, ctx: &Context, schema: &str, run: Uuid) -> Result<Done, JobError> {
    let mut transaction = ctx.transaction().await?;
    let statement = format!("INSERT INTO {schema}.payments (job_id, run) VALUES ($1, $2)");
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(ctx.job_id().as_uuid())
        .bind(run)
        .execute(&mut **transaction)
        .await?;
    take_time(ctx, job.told).await?;
    transaction.complete(Done { run }).await
}

/// `windlass-torture worker`: what a cluster starts as its workers.
#[tokio::main]
pub(crate) async fn worker() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let settings = windlass::Settings::load()?;
    windlass::init_logging(&settings)?;
    let path = std::env::var_os(LOG_VARIABLE).map(PathBuf::from);
    let path =
        path.ok_or_else(|| format!("{LOG_VARIABLE} is not set: `windlass-torture run` starts workers"))?;
    let traces = Traces { log: Arc::new(Lines::append(&path)?), schema: settings.store_schema.clone() };
    let new = std::env::var(VERSION_VARIABLE).is_ok_and(|version| version != "1");
    let worker = Worker::from_env().await?.state(traces).handle(pay);
    let worker = if new { worker.handle(new_work) } else { worker.handle(work) };
    worker.run().await?;
    Ok(())
}
