//! What the end-to-end tests start as processes: `windlass-e2e worker` is a worker whose handlers leave a trail in
//! Postgres and misbehave on request; any other arguments are those of the `windlass` command itself.

use std::time::Duration;

use windlass::prelude::*;

/// Leaves a row at its start and one at its end, and does as told in between.
#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "e2e.work", max_attempts = 5, retry_base = "100ms", retry_cap = "1s")]
#[serde(deny_unknown_fields)]
struct Work {
    /// How long to take.
    #[serde(default)]
    millis: u64,
    /// How many attempts fail before one succeeds.
    #[serde(default)]
    failures: u32,
    /// Kills the whole process in every attempt up to this one.
    #[serde(default)]
    crashes: u32,
}

/// Writes one row in the transaction that also completes the job (P5).
#[derive(Debug, Serialize, Deserialize, Job)]
#[job(kind = "e2e.pay", max_attempts = 5, retry_base = "100ms", retry_cap = "1s")]
struct Pay {
    amount: i64,
    /// Where the first attempt kills the process.
    crash: Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Crash {
    Never,
    BeforeCommit,
    AfterCommit,
}

/// Where the trail is left.
#[derive(Clone)]
struct Trail {
    pool: sqlx::PgPool,
    schema: String,
}

impl Trail {
    async fn connect(settings: &windlass::Settings) -> Result<Self, sqlx::Error> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(60))
            .connect_lazy(settings.store_url.expose())?;
        Ok(Self { pool, schema: settings.store_schema.clone() })
    }

    /// Writes a row; a connection that was cut is no reason to fail, since the tests cut all of them.
    async fn leave(&self, ctx: &Context, what: &str) -> Result<(), sqlx::Error> {
        let statement =
            format!("INSERT INTO {}.trail (job_id, attempt, what, pid) VALUES ($1, $2, $3, $4)", self.schema);
        loop {
            let written = sqlx::query(sqlx::AssertSqlSafe(statement.as_str()))
                .bind(ctx.job_id().as_uuid())
                .bind(i32::try_from(ctx.attempt()).unwrap_or(i32::MAX))
                .bind(what)
                .bind(i64::from(std::process::id()))
                .execute(&self.pool)
                .await;
            match written {
                Ok(_) => return Ok(()),
                Err(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => {}
                Err(sqlx::Error::Database(e)) if e.code().is_some_and(|c| c.starts_with("57P")) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn work(job: Work, ctx: Context, trail: State<Trail>) -> Result<u32, JobError> {
    trail.leave(&ctx, "start").await?;
    tokio::time::sleep(Duration::from_millis(job.millis)).await;
    if ctx.attempt() <= job.crashes {
        std::process::abort();
    }
    if ctx.attempt() <= job.failures {
        return Err(std::io::Error::other(format!("failure {} as told", ctx.attempt())).into());
    }
    trail.leave(&ctx, "end").await?;
    Ok(ctx.attempt())
}

async fn pay(job: Pay, ctx: Context, trail: State<Trail>) -> Result<i64, JobError> {
    let mut transaction = ctx.transaction().await?;
    let statement = format!("INSERT INTO {}.payments (job_id, amount) VALUES ($1, $2)", trail.schema);
    sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(ctx.job_id().as_uuid())
        .bind(job.amount)
        .execute(&mut **transaction)
        .await?;
    if job.crash == Crash::BeforeCommit && ctx.attempt() == 1 {
        std::process::abort();
    }
    let amount = transaction.complete(job.amount).await?;
    if job.crash == Crash::AfterCommit && ctx.attempt() == 1 {
        std::process::abort();
    }
    Ok(amount)
}

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).as_deref() != Some("worker") {
        return windlass_cli::main(std::env::args_os());
    }
    match worker() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn worker() -> Result<(), Box<dyn std::error::Error>> {
    let settings = windlass::Settings::load()?;
    windlass::init_logging(&settings)?;
    let trail = Trail::connect(&settings).await?;
    Worker::from_env().await?.state(trail).handle(work).handle(pay).run().await?;
    Ok(())
}
