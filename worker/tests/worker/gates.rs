//! Limits, ordering keys and pauses, as handlers see them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use windlass_client::{Client, ClientError, ClientOptions};
use windlass_core::{Broker, Lane, Limit, OnFailure, Priority, QueueName, State, Store};
use windlass_worker::{Context, JobError, Worker, WorkerError};

use crate::support::{Bench, Notes, Task, options, run, until};

/// A handler that takes a while and notes its runs.
fn slow(worker: Worker, notes: &Notes) -> Worker {
    let notes = notes.clone();
    worker.handle(move |_: Task, ctx: Context| {
        let run = notes.begin(ctx.job_id());
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            drop(run);
            Ok::<_, JobError>(())
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_holds_under_four_workers() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let broker = Arc::new(bench.broker.attach());
            let client = Client::new(bench.store.clone(), broker, ClientOptions::default());
            run(slow(Worker::new(client, options()), &notes).limit("customer", Limit::concurrent(3)))
        })
        .collect();
    until("the limit is known", async || !bench.store.operations().limits().await.unwrap().is_empty()).await;
    let tasks =
        (0..60).map(|number| bench.client.enqueue(Task { number }).limit("customer/42").into_future());
    let ids = futures::future::try_join_all(tasks).await.unwrap();
    bench.all_succeed(&ids).await;
    assert_eq!((notes.runs(), notes.most_at_once()), (60, 3));
    for worker in workers {
        worker.stop().await;
    }
    bench.nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_holds_and_nobody_waits_longer_than_it_wants() {
    let bench = Bench::new().await;
    let started: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let starts = started.clone();
    let worker = bench.worker().handle(move |_: Task, _: Context| {
        starts.lock().unwrap().push(Instant::now());
        async { Ok::<_, JobError>(()) }
    });
    let limit = Limit::per(20, Duration::from_secs(1)).burst(1);
    bench.store.operations().set_limit(&"mails".parse().unwrap(), limit).await.unwrap();
    let before = Instant::now();
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(bench.client.enqueue(Task { number }).limit("mails").await.unwrap());
    }
    let running = run(worker);
    bench.all_succeed(&ids).await;
    let took = before.elapsed();
    // All but the first have waited for a token since that one was let through. The store's clock may be slewed a little.
    let last = *started.lock().unwrap().last().unwrap() - before;
    assert!(last >= Duration::from_millis(9 * 50 - 10), "{last:?}");
    assert!(took < Duration::from_secs(5), "a start every 50 ms, not every tick: {took:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordering_key_is_kept_across_retries() {
    let bench = Bench::new().await;
    let order: Arc<Mutex<Vec<(u32, u32)>>> = Arc::default();
    let noted = order.clone();
    let handler = move |task: Task, ctx: Context| {
        noted.lock().unwrap().push((task.number, ctx.attempt()));
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if task.number.is_multiple_of(3) && ctx.attempt() < 3 {
                return Err(JobError::from(std::io::Error::other("again")));
            }
            Ok(())
        }
    };
    let (one, two) = (run(bench.worker().handle(handler.clone())), run(bench.worker().handle(handler)));
    let mut ids = Vec::new();
    for number in 0..12 {
        let priority = if number % 2 == 0 { Priority::Low } else { Priority::Urgent };
        let task = bench.client.enqueue(Task { number }).priority(priority);
        ids.push(task.ordering_key("account/1").on_failure(OnFailure::Block).await.unwrap());
    }
    bench.all_succeed(&ids).await;
    let wanted: Vec<(u32, u32)> = (0..12)
        .flat_map(|number| (1..=if number % 3 == 0 { 3 } else { 1 }).map(move |attempt| (number, attempt)))
        .collect();
    assert_eq!(*order.lock().unwrap(), wanted);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_leave_a_paused_queue_alone_until_it_is_resumed() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let queue = QueueName::default();
    let operations = bench.store.operations();
    let first = bench.task(0).await;
    let running = run(slow(bench.worker(), &notes));
    bench.succeeds(first).await;
    operations.pause_queue(&queue, true).await.unwrap();
    // Their messages stay in the lane once the worker has noticed; those it took before are dropped at the claim.
    let lane = Lane { queue: queue.clone(), priority: Priority::Normal };
    let mut paused = Vec::new();
    until("a message stays in the lane", async || {
        paused.push(bench.task(1).await);
        bench.broker.depth(&lane).await.unwrap().is_some_and(|depth| depth > 2)
    })
    .await;
    for id in &paused {
        assert_eq!(bench.get(*id).await.state, State::Queued);
    }
    assert_eq!(notes.runs(), 1);
    operations.pause_queue(&queue, false).await.unwrap();
    bench.all_succeed(&paused).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_a_queue_at_work_holds() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let ids = bench.tasks(80).await;
    let running = run(slow(bench.worker(), &notes));
    until("some have run", async || notes.runs() > 8).await;
    bench.store.operations().limit_queue(&QueueName::default(), Limit::concurrent(1), None).await.unwrap();
    until("what ran before has ended", async || notes.running() <= 1).await;
    // What runs now was let through, or was being claimed when the limit came.
    let later: BTreeSet<_> = bench.tasks(10).await.into_iter().collect();
    let mut most = 0;
    until("all have succeeded", async || {
        let found =
            bench.store.get(&[&ids[..], &later.iter().copied().collect::<Vec<_>>()].concat()).await.unwrap();
        let out = |job: &&windlass_core::JobRecord| later.contains(&job.id) && job.state == State::Running;
        most = most.max(found.iter().filter(out).count());
        found.iter().all(|job| job.state == State::Succeeded)
    })
    .await;
    assert!(most <= 1, "{most} at once");
    running.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_told() {
    let bench = Bench::new().await;
    let enqueue = || bench.client.enqueue(Task { number: 1 });
    assert!(matches!(enqueue().limit("nobody/1").await, Err(ClientError::UnknownLimit(_))));
    assert!(matches!(enqueue().limit("").await, Err(ClientError::Key(_))));
    assert!(matches!(enqueue().ordering_key("x".repeat(256)).await, Err(ClientError::Key(_))));
    let many = ["a", "b", "c", "d", "e"].into_iter().fold(enqueue(), |job, limit| job.limit(limit));
    assert!(matches!(many.await, Err(ClientError::TooManyLimits)));
    bench.store.operations().drain_queue(&QueueName::default()).await.unwrap();
    assert!(matches!(enqueue().await, Err(ClientError::QueueDraining(_))));

    let stop = tokio_util::sync::CancellationToken::new();
    for (name, limit) in [("a/b", Limit::default()), ("a", Limit::concurrent(0))] {
        let error = bench.worker().limit(name, limit).run_until(stop.clone()).await.unwrap_err();
        assert!(matches!(error, WorkerError::Limit { .. }), "{error}");
    }
}
