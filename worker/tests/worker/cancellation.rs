//! Handlers that are told to stop: by someone's request, or by their timeout.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use windlass_core::{CancelOutcome, JobId, State};
use windlass_worker::{Context, Handling, JobError};

use crate::support::{Bench, Notes, Other, Task, options, run, until};

async fn cancel(bench: &Bench, id: JobId) {
    assert_eq!(bench.client.cancel(id).await.unwrap(), CancelOutcome::Requested);
}

/// What handlers do when they are told.
#[derive(Clone, Copy)]
enum Manner {
    Fails,
    SucceedsAllTheSame,
    Ignores,
}

/// A worker whose handler runs until it is told to stop.
fn told(bench: &Bench, notes: &Notes, manner: Manner) -> windlass_worker::Worker {
    let notes = notes.clone();
    bench.worker().handle(move |_: Task, ctx: Context| {
        let run = notes.begin(ctx.job_id());
        async move {
            let _run = run;
            ctx.cancelled().cancelled().await;
            match manner {
                Manner::Fails => Err(JobError::retry("stopped")),
                Manner::SucceedsAllTheSame => Ok("too late"),
                Manner::Ignores => std::future::pending().await,
            }
        }
    })
}

#[tokio::test]
async fn a_handler_that_heeds_a_cancellation_is_cancelled() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(told(&bench, &notes, Manner::Fails));
    let id = bench.task(1).await;
    notes.until_running(1).await;
    cancel(&bench, id).await;
    let record = bench.reaches(id, State::Cancelled).await;
    assert!(record.errors.is_empty() && record.finished_at.is_some(), "{record:?}");
    assert_eq!((notes.runs(), notes.running()), (1, 0));
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_handler_that_succeeds_in_spite_of_a_cancellation_has_succeeded() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(told(&bench, &notes, Manner::SucceedsAllTheSame));
    let id = bench.task(1).await;
    notes.until_running(1).await;
    cancel(&bench, id).await;
    assert_eq!(bench.succeeds(id).await.result.unwrap().get(), "\"too late\"");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_that_ignores_a_cancellation_is_dropped() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(told(&bench, &notes, Manner::Ignores));
    let id = bench.task(1).await;
    notes.until_running(1).await;
    cancel(&bench, id).await;
    bench.reaches(id, State::Cancelled).await;
    assert_eq!(notes.running(), 0);
    running.stop().await;
    bench.nothing_is_left().await;
}

/// How long it may take is the worker's setting, and the handler's own where it has one.
#[tokio::test]
async fn a_handler_that_is_told_to_stop_has_its_time_to() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let clean_up = |time: Duration| {
        let notes = notes.clone();
        move |ctx: Context| {
            let run = notes.begin(ctx.job_id());
            async move {
                let _run = run;
                ctx.cancelled().cancelled().await;
                tokio::time::sleep(time).await;
                Ok::<_, JobError>("cleaned up")
            }
        }
    };
    let (short, long) = (clean_up(Duration::MAX), clean_up(Duration::from_millis(300)));
    let mut hasty = options();
    hasty.abort_after = Duration::from_millis(1);
    let patient =
        Handling::of(move |_: Other, ctx: Context| long(ctx)).abort_after(Duration::from_secs(3600));
    let worker =
        bench.worker_with(hasty).handle(move |_: Task, ctx: Context| short(ctx)).handle_with(patient);
    let running = run(worker);
    let short = bench.task(1).await;
    let long = bench.client.enqueue(Other {}).await.unwrap();
    notes.until_running(2).await;
    cancel(&bench, short).await;
    cancel(&bench, long).await;
    bench.reaches(short, State::Cancelled).await;
    assert_eq!(bench.succeeds(long).await.result.unwrap().get(), "\"cleaned up\"");
    running.stop().await;
    bench.nothing_is_left().await;
}

/// The token is the handler's to watch. What it does with its own copy calls nothing off.
#[tokio::test]
async fn a_handler_cannot_cancel_its_own_job_by_its_token() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task, ctx: Context| {
        ctx.cancelled().cancel();
        tokio::task::yield_now().await;
        Err::<(), _>(JobError::discard("a failure of its own"))
    }));
    let id = bench.task(1).await;
    bench.reaches(id, State::Dead).await;
    running.stop().await;
}

#[tokio::test]
async fn a_job_cancelled_in_the_buffer_never_starts() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let mut one = options();
    one.concurrency = 1;
    let runs = notes.clone();
    let running = run(bench.worker_with(one).handle(move |_: Task, ctx: Context| {
        let run = runs.begin(ctx.job_id());
        async move {
            let _run = run;
            ctx.cancelled().cancelled().await;
            Err::<(), _>(JobError::retry("stopped"))
        }
    }));
    let first = bench.task(1).await;
    notes.until_running(1).await;
    let second = bench.task(2).await;
    bench.reaches(second, State::Running).await;
    cancel(&bench, second).await;
    bench.reaches(second, State::Cancelled).await;
    assert_eq!((notes.runs_of(second), notes.running()), (0, 1));
    cancel(&bench, first).await;
    bench.reaches(first, State::Cancelled).await;
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_timeout_tells_the_handler_and_is_a_failure() {
    for manner in [Manner::Fails, Manner::Ignores] {
        let (bench, notes) = (Bench::new().await, Notes::default());
        let running = run(told(&bench, &notes, manner));
        let enqueue = bench.client.enqueue(Task { number: 1 }).timeout(Duration::from_millis(100));
        let id = enqueue.max_attempts(2).await.unwrap();
        let record = bench.reaches(id, State::Dead).await;
        assert_eq!((record.errors.len(), notes.runs(), notes.running()), (2, 2, 0));
        assert_eq!(record.errors[0].message, "the attempt took longer than its timeout of 0.1 s");
        running.stop().await;
        bench.nothing_is_left().await;
    }
}

/// A thread cannot be stopped, so it must go on counting as one of those running.
#[tokio::test]
async fn a_blocking_handler_keeps_its_place_until_its_thread_ends() {
    let bench = Bench::new().await;
    let (told, end) = (Arc::new(AtomicBool::default()), Arc::new(AtomicBool::default()));
    let (tell, ends, has_ended) = (told.clone(), end.clone(), end.clone());
    let mut one = options();
    one.concurrency = 1;
    let worker = bench
        .worker_with(one)
        .handle_blocking(move |_: Other, ctx: Context| {
            while !ends.load(Ordering::SeqCst) {
                tell.fetch_or(ctx.cancelled().is_cancelled(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err::<(), _>(JobError::retry("ended"))
        })
        .handle(move |_: Task| std::future::ready(Ok::<_, JobError>(has_ended.load(Ordering::SeqCst))));
    let running = run(worker);
    let enqueue = bench.client.enqueue(Other {}).timeout(Duration::from_millis(100));
    let blocking = enqueue.max_attempts(1).await.unwrap();
    bench.reaches(blocking, State::Running).await;
    let next = bench.task(1).await;
    until("it is told of its timeout", async || told.load(Ordering::SeqCst)).await;
    bench.reaches(next, State::Running).await;
    end.store(true, Ordering::SeqCst);
    let blocking = bench.reaches(blocking, State::Dead).await;
    assert!(blocking.errors[0].message.contains("timeout"), "{blocking:?}");
    assert_eq!(bench.succeeds(next).await.result.unwrap().get(), "true");
    running.stop().await;
    bench.nothing_is_left().await;
}
