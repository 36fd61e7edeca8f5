//! What a worker does when it is asked to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Semaphore;
use windlass_core::State;
use windlass_worker::{Context, JobError};

use crate::support::{Bench, Notes, Task, options, run, until};

#[tokio::test]
async fn running_handlers_finish_and_the_rest_is_given_back() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let gate = Arc::new(Semaphore::new(0));
    let (wait, runs) = (gate.clone(), notes.clone());
    let mut two = options();
    two.concurrency = 2;
    let running = run(bench.worker_with(two).handle(move |_: Task, ctx: Context| {
        let (run, wait) = (runs.begin(ctx.job_id()), wait.clone());
        async move {
            wait.acquire().await?.forget();
            drop(run);
            Ok::<_, JobError>(())
        }
    }));
    let ids = bench.tasks(10).await;
    for id in &ids {
        bench.reaches(*id, State::Running).await;
    }
    notes.until_running(2).await;
    let (started, waiting): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| notes.runs_of(*id) == 1);
    assert_eq!(waiting.len(), 8);

    running.ask_to_stop();
    for id in &waiting {
        assert_eq!(bench.reaches(*id, State::Queued).await.attempt, 0);
    }
    let late = bench.task(99).await;
    assert_eq!(notes.running(), 2);
    gate.add_permits(2);
    running.stop().await;
    for id in &started {
        assert_eq!(bench.get(*id).await.state, State::Succeeded);
    }
    assert_eq!((notes.runs(), bench.get(late).await.state), (2, State::Queued));
    bench.nothing_is_left().await;

    let next = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    for id in waiting.into_iter().chain([late]) {
        assert_eq!(bench.succeeds(id).await.attempt, 1);
    }
    next.stop().await;
}

/// Told to stop, a handler may end or be dropped: either way the attempt does not count.
#[tokio::test]
async fn handlers_that_outlast_the_grace_are_given_back() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let mut hasty = options();
    hasty.grace = Duration::from_millis(50);
    let runs = notes.clone();
    let running = run(bench.worker_with(hasty).handle(move |task: Task, ctx: Context| {
        let run = runs.begin(ctx.job_id());
        async move {
            let _run = run;
            ctx.cancelled().cancelled().await;
            if task.number == 0 {
                Err::<(), _>(JobError::retry("told to stop"))
            } else {
                std::future::pending().await
            }
        }
    }));
    let ids = bench.tasks(2).await;
    notes.until_running(2).await;
    running.stop().await;
    assert_eq!(notes.running(), 0);
    for id in &ids {
        let record = bench.get(*id).await;
        assert_eq!((record.state, record.attempt, record.errors.len()), (State::Queued, 0, 0));
    }
    bench.nothing_is_left().await;
    let next = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    bench.all_succeed(&ids).await;
    next.stop().await;
}

/// Its thread cannot be ended and its job not be given to others while it runs, so its lease is left to run out.
/// Two ways there: the grace is over, or the handler had been told to stop before.
#[tokio::test]
async fn a_blocking_handler_that_never_ends_does_not_hold_up_a_shutdown() {
    for timeout in [None, Some(Duration::from_millis(50))] {
        let bench = Bench::new().await;
        let (end, told) = (Arc::new(AtomicBool::default()), Arc::new(AtomicBool::default()));
        let (ends, tell) = (end.clone(), told.clone());
        let mut hasty = options();
        hasty.grace = Duration::from_millis(50);
        let running = run(bench.worker_with(hasty).handle_blocking(move |_: Task, ctx: Context| {
            while !ends.load(Ordering::SeqCst) {
                tell.fetch_or(ctx.cancelled().is_cancelled(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok::<_, JobError>("too late")
        }));
        let mut enqueue = bench.client.enqueue(Task { number: 1 });
        if let Some(timeout) = timeout {
            enqueue = enqueue.timeout(timeout);
        }
        let id = enqueue.await.unwrap();
        bench.reaches(id, State::Running).await;
        if timeout.is_some() {
            until("it is told", async || told.load(Ordering::SeqCst)).await;
        }
        running.stop().await;
        assert_eq!(bench.get(id).await.state, State::Running);
        let next = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>("in time")));
        let record = bench.succeeds(id).await;
        assert_eq!((record.attempt, record.result.unwrap().get()), (2, "\"in time\""));
        end.store(true, Ordering::SeqCst);
        next.stop().await;
        assert_eq!(bench.get(id).await.result.unwrap().get(), "\"in time\"");
        bench.nothing_is_left().await;
    }
}

/// As by a `select!` around it. It says nothing to the store, so its lease has to run out.
#[tokio::test]
async fn a_worker_that_is_dropped_drops_its_handlers() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let runs = notes.clone();
    let running = run(bench.worker().handle(move |_: Task, ctx: Context| {
        let run = runs.begin(ctx.job_id());
        async move {
            let _run = run;
            std::future::pending::<Result<(), JobError>>().await
        }
    }));
    let id = bench.task(1).await;
    notes.until_running(1).await;
    running.drop().await;
    notes.until_running(0).await;
    let late = bench.task(2).await;
    let next = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    assert_eq!(bench.succeeds(late).await.attempt, 1);
    assert_eq!(bench.succeeds(id).await.attempt, 2);
    next.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_idle_worker_stops_at_once() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let id = bench.task(1).await;
    bench.succeeds(id).await;
    let started = std::time::Instant::now();
    running.stop().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    bench.nothing_is_left().await;
}
