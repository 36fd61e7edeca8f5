//! Messages may be repeated, reordered, lost or for someone else; each job runs once.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use windlass_client::{Client, ClientOptions};
use windlass_core::{Broker, JobId, Lane, Message, Priority, State};
use windlass_worker::{Context, JobError, Worker};

use crate::{
    logs::Logs,
    support::{Bench, Notes, Other, Task, options, run, until},
};

/// A handler that notes its runs.
fn noting(worker: Worker, notes: &Notes) -> Worker {
    let notes = notes.clone();
    worker.handle(move |_: Task, ctx: Context| {
        let run = notes.begin(ctx.job_id());
        async move {
            tokio::task::yield_now().await;
            drop(run);
            Ok::<_, JobError>(())
        }
    })
}

fn lane() -> Lane {
    Lane { queue: Default::default(), priority: Priority::Normal }
}

fn message(job_id: JobId) -> Message {
    Message {
        job_id,
        attempt: 1,
        lane: lane(),
        kind: "test.task".parse().unwrap(),
        trace: None,
        ordering_key: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_run_each_job_once() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let other_process =
        Client::new(bench.store.clone(), Arc::new(bench.broker.attach()), ClientOptions::default());
    let one = run(noting(bench.worker(), &notes));
    let two = run(noting(Worker::new(other_process, options()), &notes));
    let ids = bench.tasks(500).await;
    bench.all_succeed(&ids).await;
    assert_eq!((notes.runs(), notes.jobs().len()), (500, 500));
    one.stop().await;
    two.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_and_shuffled_messages_run_each_job_once() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let ids = bench.tasks(200).await;
    let mut messages: Vec<_> = ids.iter().flat_map(|id| [message(*id), message(*id)]).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut messages);
    bench.publish(&messages).await;
    let running = run(noting(bench.worker(), &notes));
    bench.all_succeed(&ids).await;
    // Once more, now that all are over; the last job shows that these have been dealt with.
    bench.publish(&messages).await;
    let last = bench.task(999).await;
    bench.succeeds(last).await;
    assert_eq!((notes.runs(), notes.jobs().len()), (201, 201));
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn lost_messages_are_published_again() {
    let quick = Duration::from_millis(50);
    let options = ClientOptions { relay_interval: quick, republish_after: quick, ..ClientOptions::default() };
    let bench = Bench::with(options).await;
    let ids = bench.tasks(20).await;
    until("all are published", async || bench.broker.depth(&lane()).await.unwrap() == Some(20)).await;
    bench.broker.delete(&[lane()]).await.unwrap();
    let notes = Notes::default();
    let running = run(noting(bench.worker(), &notes));
    bench.all_succeed(&ids).await;
    assert_eq!(notes.runs(), 20);
    running.stop().await;
}

/// Younger jobs arrive while it does not, so it does not wait among those that wait. The lane is never empty when the
/// relay looks, which would be reason enough.
#[tokio::test]
async fn a_message_lost_from_a_busy_lane_is_published_again() {
    let margin = Duration::from_secs(1);
    let relay_interval = Duration::from_millis(50);
    let often = ClientOptions { relay_interval, republish_after: margin, ..ClientOptions::default() };
    let bench = Bench::with(often).await;
    let depth = async || bench.broker.depth(&lane()).await.unwrap().unwrap();
    let (notes, gate) = (Notes::default(), Arc::new(Semaphore::new(0)));
    let (running_notes, wait) = (notes.clone(), gate.clone());
    let mut narrow = options();
    (narrow.concurrency, narrow.buffer) = (1, 0);
    let running = run(bench.worker_with(narrow).handle(move |_: Task, ctx: Context| {
        let (run, wait) = (running_notes.begin(ctx.job_id()), wait.clone());
        async move {
            wait.acquire().await?.forget();
            drop(run);
            Ok::<_, JobError>(())
        }
    }));
    let mut ids = bench.tasks(1).await;
    notes.until_running(1).await;
    ids.extend(bench.tasks(1).await);
    until("what is to be lost is published", async || depth().await == 1).await;
    bench.broker.delete(&[lane()]).await.unwrap();
    ids.extend(bench.tasks(1).await);
    // The others are younger by more than what clocks may differ by.
    tokio::time::sleep(margin * 2).await;
    ids.extend(bench.tasks(3).await);
    gate.add_permits(2);
    until("the first of the younger runs", async || notes.runs() == 3).await;
    until("the lost one waits behind them", async || depth().await >= 3).await;
    gate.add_permits(4);
    bench.all_succeed(&ids).await;
    assert_eq!(notes.runs(), 6);
    running.stop().await;
}

#[tokio::test]
async fn concurrency_is_a_limit() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let (running_notes, gate) = (notes.clone(), Arc::new(Semaphore::new(0)));
    let wait = gate.clone();
    let mut options = options();
    options.concurrency = 3;
    let running = run(bench.worker_with(options).handle(move |_: Task, ctx: Context| {
        let (run, wait) = (running_notes.begin(ctx.job_id()), wait.clone());
        async move {
            wait.acquire().await?.forget();
            drop(run);
            Ok::<_, JobError>(())
        }
    }));
    let ids = bench.tasks(30).await;
    notes.until_running(3).await;
    gate.add_permits(30);
    bench.all_succeed(&ids).await;
    assert_eq!(notes.most_at_once(), 3);
    running.stop().await;
}

/// Nothing sits claimed behind a busy worker, beyond its buffer.
#[tokio::test]
async fn a_busy_worker_leaves_jobs_to_others() {
    let bench = Bench::new().await;
    let mut small = options();
    (small.concurrency, small.buffer) = (1, 1);
    let gate = Arc::new(Semaphore::new(0));
    let wait = gate.clone();
    let busy = run(bench.worker_with(small).handle(move |_: Task| {
        let wait = wait.clone();
        async move {
            wait.acquire().await?.forget();
            Ok::<_, JobError>(())
        }
    }));
    let held = bench.tasks(2).await;
    for id in &held {
        bench.reaches(*id, State::Running).await;
    }
    let ids = bench.tasks(20).await;
    let notes = Notes::default();
    let other = run(noting(bench.worker(), &notes));
    bench.all_succeed(&ids).await;
    assert_eq!(notes.runs(), 20);
    gate.add_permits(2);
    bench.all_succeed(&held).await;
    busy.stop().await;
    other.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn an_unknown_kind_is_left_alone_and_named_once() {
    let logs = Logs::collect();
    let bench = Bench::new().await;
    let notes = Notes::default();
    let strangers: Vec<_> =
        futures::future::try_join_all((0..5).map(|_| async { bench.client.enqueue(Other {}).await }))
            .await
            .unwrap();
    let one = run(noting(bench.worker(), &notes));
    let id = bench.task(1).await;
    bench.succeeds(id).await;
    let two = run(bench.worker().handle(async |_: Other| Ok::<_, JobError>(())));
    bench.all_succeed(&strangers).await;
    for id in strangers {
        assert_eq!(bench.get(id).await.attempt, 1);
    }
    let lines = logs.lines_with("no handler for this kind");
    assert!(
        matches!(&lines[..], [line] if line.contains("WARN") && line.contains("test.other")),
        "{lines:?}"
    );
    one.stop().await;
    two.stop().await;
    bench.nothing_is_left().await;
}

/// More than the worker may hold aside. What it does not hold comes back by the outbox.
#[tokio::test]
async fn a_flood_of_an_unknown_kind_blocks_nobody() {
    let quick = Duration::from_millis(50);
    let options = ClientOptions { relay_interval: quick, republish_after: quick, ..ClientOptions::default() };
    let bench = Bench::with(options).await;
    let flood = (0..200).map(|_| async { bench.client.enqueue(Other {}).await });
    let strangers = futures::future::try_join_all(flood).await.unwrap();
    let ids = bench.tasks(5).await;
    let notes = Notes::default();
    let one = run(noting(bench.worker(), &notes));
    bench.all_succeed(&ids).await;
    let two = run(bench.worker().handle(async |_: Other| Ok::<_, JobError>(())));
    bench.all_succeed(&strangers).await;
    one.stop().await;
    two.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn urgent_jobs_come_first() {
    let bench = Bench::new().await;
    let low = bench.client.enqueue(Task { number: 1 }).priority(Priority::Low).await.unwrap();
    let urgent = bench.client.enqueue(Task { number: 2 }).priority(Priority::Urgent).await.unwrap();
    let lane = |priority| Lane { priority, ..lane() };
    let (lows, urgents) = (lane(Priority::Low), lane(Priority::Urgent));
    until("both are published", async || {
        bench.broker.depth(&lows).await.unwrap() == Some(1)
            && bench.broker.depth(&urgents).await.unwrap() == Some(1)
    })
    .await;
    let mut one_at_a_time = options();
    (one_at_a_time.concurrency, one_at_a_time.buffer) = (1, 0);
    let notes = Notes::default();
    let running = run(noting(bench.worker_with(one_at_a_time), &notes));
    let (low, urgent) = (bench.succeeds(low).await, bench.succeeds(urgent).await);
    assert!(urgent.started_at < low.started_at, "{urgent:?} {low:?}");
    running.stop().await;
}
