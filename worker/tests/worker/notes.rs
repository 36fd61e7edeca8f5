//! What handlers say of themselves, and what they keep for their next attempt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use windlass_core::{JobId, LogRecord, Outcome, State as JobState};
use windlass_worker::{Context, JobError, LogLevel, State};

use crate::support::{Bench, Task, options, run, until};

impl Bench {
    async fn logs(&self, id: JobId) -> Vec<LogRecord> {
        self.client.logs(id, None, 2000).await.unwrap()
    }
}

async fn speaks(_: Task, ctx: Context, go: State<tokio::sync::Semaphore>) -> Result<(), JobError> {
    ctx.progress(0.1, "begun");
    ctx.log(LogLevel::Info, "first", json!({"n": 1}));
    ctx.log(LogLevel::Debug, "second", ());
    ctx.log(LogLevel::Warn, "third", 5);
    ctx.log(LogLevel::Error, "x".repeat(5000), "y".repeat(9000));
    ctx.progress(0.4, "rendering");
    go.acquire().await.unwrap().forget();
    ctx.progress(7.0, "done");
    Ok(())
}

#[tokio::test]
async fn progress_and_log_lines_are_seen_while_the_handler_runs_and_after() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(speaks).state(tokio::sync::Semaphore::new(1)));
    let first = bench.task(1).await;
    bench.succeeds(first).await;
    let second = bench.task(2).await;
    until("the progress is seen", async || {
        bench.get(second).await.progress.is_some_and(|progress| progress.message == "rendering")
    })
    .await;
    assert_eq!(bench.get(second).await.state, JobState::Running);
    assert_eq!(bench.get(second).await.progress.unwrap().value, 0.4);
    let lines = bench.logs(second).await;
    let shown: Vec<_> = lines
        .iter()
        .map(|line| (line.attempt, line.level, &line.message[..3], line.fields.as_ref().map(|f| f.get())))
        .collect();
    assert_eq!(
        shown,
        [
            (1, LogLevel::Info, "fir", Some(r#"{"n":1}"#)),
            (1, LogLevel::Debug, "sec", None),
            (1, LogLevel::Warn, "thi", Some(r#"{"value":5}"#)),
            (1, LogLevel::Error, "xxx", Some(r#"{"dropped":"9002 bytes of fields"}"#)),
        ]
    );
    assert!(lines[3].message.len() < 4100);
    until("the last word is seen", async || {
        bench.get(first).await.progress.is_some_and(|progress| progress.message == "done")
    })
    .await;
    assert_eq!(bench.get(first).await.progress.unwrap().value, 1.0, "within its bounds");
    bench.client.cancel(second).await.unwrap();
    bench.reaches(second, JobState::Cancelled).await;
    running.stop().await;
}

async fn chatters(_: Task, ctx: Context) -> Result<(), JobError> {
    for number in 0..1500 {
        ctx.log(LogLevel::Info, format!("{number}"), ());
    }
    Ok(())
}

/// Written before the worker ends; what is too much is dropped, and that is said.
#[tokio::test]
async fn a_job_writes_so_many_lines_and_no_more() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(chatters));
    let id = bench.task(1).await;
    bench.succeeds(id).await;
    running.stop().await;
    let lines = bench.logs(id).await;
    assert_eq!(lines.len(), 1001);
    assert!(lines[..1000].iter().zip(0..).all(|(line, number)| line.message == number.to_string()));
    let last = &lines[1000];
    assert_eq!(last.level, LogLevel::Warn);
    assert!(last.message.starts_with("500 log lines were dropped"), "{}", last.message);
}

async fn counts(_: Task, ctx: Context, seen: State<AtomicU32>) -> Result<u32, JobError> {
    let page: Option<u32> = ctx.last_checkpoint().await?;
    if ctx.attempt() > 1 {
        return Ok(page.unwrap_or_default());
    }
    assert_eq!(page, None);
    ctx.checkpoint(&1).await?;
    ctx.checkpoint(&2).await?;
    seen.store(2, Ordering::SeqCst);
    std::future::pending().await
}

#[tokio::test]
async fn a_checkpoint_outlives_its_worker() {
    let bench = Bench::new().await;
    let short = || {
        let mut options = options();
        options.lease = Duration::from_secs(1);
        options
    };
    let dying = bench.worker_with(short()).handle(counts).state(AtomicU32::new(0));
    let dying = run(dying);
    let id = bench.task(1).await;
    until("the checkpoint is there", async || {
        let kept = windlass_core::Store::notes(&*bench.store).last_checkpoint(id).await.unwrap();
        kept.is_some_and(|value| value.get() == "2")
    })
    .await;
    dying.drop().await;
    let running = run(bench.worker_with(short()).handle(counts).state(AtomicU32::new(0)));
    let job = bench.succeeds(id).await;
    assert_eq!((job.attempt, job.result.unwrap().get()), (2, "2"));
    running.stop().await;
}

struct Late {
    go: tokio::sync::Semaphore,
    refused: AtomicBool,
}

async fn writes_late(_: Task, ctx: Context, late: State<Arc<Late>>) -> Result<(), JobError> {
    ctx.checkpoint("mine").await?;
    late.go.acquire().await.unwrap().forget();
    let refused = ctx.checkpoint("stale").await.unwrap_err();
    late.refused.store(refused.to_string().contains("lease"), Ordering::SeqCst);
    Err(refused)
}

/// The job is taken from the worker, which does not know yet.
#[tokio::test]
async fn a_worker_that_lost_the_job_writes_no_checkpoint() {
    let bench = Bench::new().await;
    let late = Arc::new(Late { go: tokio::sync::Semaphore::new(0), refused: AtomicBool::new(false) });
    let running = run(bench.worker().handle(writes_late).state(late.clone()));
    let id = bench.task(1).await;
    let store: &dyn windlass_core::Store = &*bench.store;
    until("the checkpoint is there", async || store.notes().last_checkpoint(id).await.unwrap().is_some())
        .await;
    let finish = windlass_core::Finish { id, fence: 1, outcome: Outcome::Dead { error: "taken".into() } };
    store.finish(windlass_core::WorkerId::new(), &[finish], &[]).await.unwrap();
    late.go.add_permits(1);
    until("the checkpoint is refused", async || late.refused.load(Ordering::SeqCst)).await;
    let kept = store.notes().last_checkpoint(id).await.unwrap().unwrap();
    assert_eq!(kept.get(), "\"mine\"");
    running.stop().await;
}

async fn keeps_too_much(_: Task, ctx: Context) -> Result<(), JobError> {
    ctx.checkpoint(&"x".repeat(70_000)).await.map_err(|error| JobError::discard(error.to_string()))
}

#[tokio::test]
async fn a_checkpoint_that_is_too_large_is_refused() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(keeps_too_much));
    let id = bench.task(1).await;
    let job = bench.reaches(id, JobState::Dead).await;
    assert!(job.errors[0].message.contains("70002") && job.errors[0].message.contains("65536"));
    running.stop().await;
}
