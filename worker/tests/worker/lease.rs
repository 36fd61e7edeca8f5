//! A worker that loses its lease, or its store, strands nothing and overwrites nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use windlass_core::{ClaimId, Job, NewJob, State, Store};
use windlass_worker::{Context, JobError, Worker, WorkerOptions};

use crate::{
    logs::Logs,
    outage::set,
    support::{Bench, Notes, Other, Task, options, run, until},
};

fn short_lease() -> WorkerOptions {
    WorkerOptions { lease: Duration::from_secs(1), ..options() }
}

/// A handler whose first run of a job lasts until it is dropped, and whose later ones succeed.
fn hanging_at_first(worker: Worker, notes: &Notes) -> Worker {
    let notes = notes.clone();
    worker.handle(move |_: Task, ctx: Context| {
        let run = notes.begin(ctx.job_id());
        async move {
            let _run = run;
            if ctx.attempt() == 1 {
                std::future::pending::<()>().await;
            }
            Ok::<_, JobError>(ctx.attempt())
        }
    })
}

#[tokio::test]
async fn without_heartbeats_handlers_are_dropped_and_the_worker_begins_anew() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(hanging_at_first(bench.worker_with(short_lease()), &notes));
    let ids = bench.tasks(5).await;
    notes.until_running(5).await;
    let before = bench.store.worker();
    set(&bench.store.heartbeats_fail, true);
    notes.until_running(0).await;
    // Dropped in time: as far as the store knows, they were still this worker's.
    for id in &ids {
        assert_eq!(bench.get(*id).await.state, State::Running);
    }
    set(&bench.store.heartbeats_fail, false);
    for id in &ids {
        let record = bench.succeeds(*id).await;
        assert_eq!((record.attempt, record.errors.len()), (2, 1));
        assert!(record.errors[0].message.contains("worker was lost"), "{record:?}");
    }
    assert_ne!(bench.store.worker(), before);
    assert_eq!((notes.runs(), notes.most_at_once()), (10, 5));
    running.stop().await;
    bench.nothing_is_left().await;
}

/// As after a long freeze: others have declared the worker dead before it noticed.
#[tokio::test]
async fn a_worker_declared_dead_begins_anew() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(hanging_at_first(bench.worker(), &notes));
    let id = bench.task(1).await;
    notes.until_running(1).await;
    let before = bench.store.worker();
    bench.store.deregister(before).await.unwrap();
    assert_eq!(bench.succeeds(id).await.attempt, 2);
    until("a new worker has registered", async || bench.store.registered() == 2).await;
    running.stop().await;
    assert_eq!(notes.running(), 0);
    bench.nothing_is_left().await;
}

/// The claim tells before the heartbeat does.
#[tokio::test]
async fn a_claim_by_a_worker_declared_dead_strands_nothing() {
    let bench = Bench::new().await;
    let lazy = WorkerOptions { lease: Duration::from_secs(3600), ..options() };
    let running = run(bench.worker_with(lazy).handle(async |_: Task| Ok::<_, JobError>(())));
    let first = bench.task(1).await;
    bench.succeeds(first).await;
    let before = bench.store.worker();
    until("the claim is forgotten", async || {
        bench.store.deregister(before).await.unwrap();
        bench.store.rescue(3).await.unwrap();
        matches!(bench.store.heartbeat(before).await, Err(windlass_core::StoreError::WorkerUnknown(_)))
    })
    .await;
    let ids = bench.tasks(5).await;
    bench.all_succeed(&ids).await;
    assert_eq!(bench.store.registered(), 2);
    running.stop().await;
    bench.nothing_is_left().await;
}

/// As of a call that was given up, and lay in the network until it had been repeated, and all was done.
#[tokio::test]
async fn a_claim_that_nobody_waits_for_is_given_back() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let first = bench.task(1).await;
    bench.succeeds(first).await;
    let payload = serde_json::value::to_raw_value(&Task { number: 2 }).unwrap();
    let job = NewJob::new(Task::KIND.parse().unwrap(), payload);
    bench.store.insert(std::slice::from_ref(&job)).await.unwrap();
    let claimed = bench.store.claim(bench.store.worker(), ClaimId::new(), &[job.id]).await.unwrap();
    assert_eq!(claimed.len(), 1);
    let record = bench.succeeds(job.id).await;
    assert_eq!((record.attempt, record.errors.len()), (1, 0), "it was not even begun");
    assert_eq!(bench.store.registered(), 1, "by a worker that goes on");
    running.stop().await;
    bench.nothing_is_left().await;
}

/// A blocking handler cannot be dropped. It lives on without its lease, and what it returns is nobody's.
#[tokio::test]
async fn a_blocking_handler_that_outlives_its_lease_records_nothing() {
    let bench = Bench::new().await;
    let (end, ended) = (Arc::new(AtomicBool::default()), Arc::new(AtomicBool::default()));
    let (ends, has_ended) = (end.clone(), ended.clone());
    let running = run(bench.worker_with(short_lease()).handle_blocking(move |_: Task, ctx: Context| {
        while ctx.attempt() == 1 && !ends.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        has_ended.fetch_or(ctx.attempt() == 1, Ordering::SeqCst);
        Ok::<_, JobError>(ctx.attempt())
    }));
    let id = bench.task(1).await;
    bench.reaches(id, State::Running).await;
    set(&bench.store.heartbeats_fail, true);
    until("the lease is lost", async || bench.store.registered() == 2).await;
    set(&bench.store.heartbeats_fail, false);
    assert_eq!(bench.succeeds(id).await.result.unwrap().get(), "2");
    end.store(true, Ordering::SeqCst);
    until("the first run ends", async || ended.load(Ordering::SeqCst)).await;
    running.stop().await;
    assert_eq!(bench.get(id).await.result.unwrap().get(), "2");
    bench.nothing_is_left().await;
}

/// A job whose handler costs its worker the lease, every time.
#[tokio::test]
async fn a_job_that_takes_its_workers_down_is_quarantined() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let (runs, store) = (notes.clone(), bench.store.clone());
    let options = WorkerOptions { crash_limit: 2, ..short_lease() };
    let worker = bench
        .worker_with(options)
        .handle(move |_: Task, ctx: Context| {
            let run = runs.begin(ctx.job_id());
            set(&store.heartbeats_fail, true);
            let healed = Healed(store.clone());
            async move {
                let _held = (run, healed);
                std::future::pending::<Result<(), JobError>>().await
            }
        })
        .handle(async |_: Other| Ok::<_, JobError>(()));
    let running = run(worker);
    let id = bench.task(1).await;
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!((notes.runs(), record.attempt, record.errors.len()), (2, 2, 2));
    let innocent = bench.client.enqueue(Other {}).await.unwrap();
    bench.succeeds(innocent).await;
    running.stop().await;
    bench.nothing_is_left().await;
}

/// Lets heartbeats work again when the handler is dropped.
struct Healed(Arc<crate::outage::FaultyStore>);

impl Drop for Healed {
    fn drop(&mut self) {
        set(&self.0.heartbeats_fail, false);
    }
}

#[tokio::test]
async fn a_claim_whose_answer_is_lost_strands_nothing() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    bench.store.claims_to_lose.store(3, Ordering::SeqCst);
    let runs = notes.clone();
    let running = run(bench.worker().handle(move |_: Task, ctx: Context| {
        drop(runs.begin(ctx.job_id()));
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let ids = bench.tasks(20).await;
    for id in &ids {
        assert_eq!(bench.succeeds(*id).await.attempt, 1);
    }
    assert_eq!((notes.runs(), bench.store.claims_to_lose.load(Ordering::SeqCst)), (20, 0));
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_outcome_whose_answer_is_lost_is_recorded_once_and_without_alarm() {
    let logs = Logs::collect();
    let bench = Bench::new().await;
    bench.store.finishes_to_lose.store(3, Ordering::SeqCst);
    let running =
        run(bench.worker().handle(
            async |_: Task, ctx: Context| {
                if ctx.attempt() == 1 { Err(JobError::retry("once")) } else { Ok(()) }
            },
        ));
    let ids = bench.tasks(20).await;
    for id in &ids {
        let record = bench.succeeds(*id).await;
        assert_eq!((record.attempt, record.errors.len()), (2, 1));
    }
    running.stop().await;
    assert_eq!(bench.store.finishes_to_lose.load(Ordering::SeqCst), 0);
    assert_eq!(logs.lines_with("refused"), [""; 0]);
    bench.nothing_is_left().await;
}

/// Outcomes wait for the store as long as the lease holds, and it is said once.
#[tokio::test]
async fn outcomes_outlast_an_outage_of_the_store() {
    let logs = Logs::collect();
    let (bench, notes) = (Bench::new().await, Notes::default());
    set(&bench.store.finishes_fail, true);
    let runs = notes.clone();
    let running = run(bench.worker().handle(move |_: Task, ctx: Context| {
        drop(runs.begin(ctx.job_id()));
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let ids = bench.tasks(20).await;
    until("handlers have run", async || notes.runs() > 0).await;
    until("a finish has been repeated", async || bench.store.failed_finishes() >= 3).await;
    set(&bench.store.finishes_fail, false);
    for id in &ids {
        assert_eq!(bench.succeeds(*id).await.attempt, 1);
    }
    assert_eq!(notes.runs(), 20);
    // One per statement under way, not one per try.
    assert!(logs.lines_with("outcomes cannot be recorded").len() <= 2);
    running.stop().await;
    bench.nothing_is_left().await;
}

/// An outcome that could not be written before the lease was lost is not the job's, which runs again.
#[tokio::test]
async fn outcomes_that_outlive_the_lease_are_dropped_and_the_jobs_run_again() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    set(&bench.store.finishes_fail, true);
    let runs = notes.clone();
    let running = run(bench.worker_with(short_lease()).handle(move |_: Task, ctx: Context| {
        drop(runs.begin(ctx.job_id()));
        std::future::ready(Ok::<_, JobError>(ctx.attempt()))
    }));
    let ids = bench.tasks(5).await;
    until("handlers have run", async || notes.runs() == 5).await;
    set(&bench.store.heartbeats_fail, true);
    until("the lease is lost", async || bench.store.registered() == 2).await;
    set(&bench.store.heartbeats_fail, false);
    set(&bench.store.finishes_fail, false);
    for id in &ids {
        let record = bench.succeeds(*id).await;
        assert_eq!((record.attempt, record.result.unwrap().get()), (2, "2"));
    }
    running.stop().await;
    bench.nothing_is_left().await;
}

/// A store that never comes back: the worker still ends, once its lease is gone.
#[tokio::test]
async fn a_worker_without_a_store_still_stops() {
    let bench = Bench::new().await;
    let finished = Arc::new(AtomicUsize::default());
    let count = finished.clone();
    let running = run(bench.worker_with(short_lease()).handle(move |_: Task| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, JobError>(()))
    }));
    set(&bench.store.finishes_fail, true);
    set(&bench.store.heartbeats_fail, true);
    let id = bench.task(1).await;
    until("the handler has run", async || finished.load(Ordering::SeqCst) == 1).await;
    running.stop().await;
    set(&bench.store.finishes_fail, false);
    set(&bench.store.heartbeats_fail, false);
    let next = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    assert_eq!(bench.succeeds(id).await.attempt, 2);
    next.stop().await;
    bench.nothing_is_left().await;
}
