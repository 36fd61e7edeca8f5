//! Handlers that take many jobs at once: how jobs gather, what becomes of each, and what they hold meanwhile.

use std::{
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use serde_json::value::RawValue;
use tokio::sync::{Notify, Semaphore};
use windlass_core::{Job, JobId, NewJob, State};
use windlass_worker::{
    Batch, BatchOptions, Context, Handling, JobError, State as Shared, WorkerError, middleware::MetricsLayer,
};

use crate::middleware::{BoxedCall, With};
use crate::support::{Bench, Notes, Other, Task, options, run, until, within};

pub const HOUR: Duration = Duration::from_secs(3600);

pub fn up_to(max_size: usize) -> BatchOptions {
    BatchOptions { max_size, max_wait: HOUR }
}

/// The numbers of each batch, in the order in which they began.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Vec<u32>>>>);

impl Seen {
    pub fn add(&self, batch: &Batch<Task>) {
        self.0.lock().unwrap().push(batch.payloads().map(|task| task.number).collect());
    }

    pub fn sizes(&self) -> Vec<usize> {
        self.0.lock().unwrap().iter().map(Vec::len).collect()
    }
}

/// Succeeds with each job's own number.
pub fn echo(seen: &Seen) -> impl Fn(Batch<Task>) -> std::future::Ready<Result<(), JobError>> + Clone + use<> {
    let seen = seen.clone();
    move |batch: Batch<Task>| {
        seen.add(&batch);
        for job in batch {
            let number = job.payload().number;
            job.succeed(number);
        }
        ready(Ok(()))
    }
}

/// Enqueues a task that has `attempts`.
async fn task(bench: &Bench, number: u32, attempts: u32) -> JobId {
    bench.client.enqueue(Task { number }).max_attempts(attempts).await.unwrap()
}

#[tokio::test]
async fn a_full_batch_waits_for_nothing_and_each_job_has_its_result() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let running = run(bench.worker().handle_batch(echo(&seen), up_to(5)));
    let ids = bench.tasks(10).await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bench.succeeds(*id).await.result.unwrap().get(), number.to_string());
    }
    assert_eq!(seen.sizes(), [5, 5]);
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_batch_that_does_not_fill_leaves_when_its_first_job_has_waited_long_enough() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let max_wait = Duration::from_millis(500);
    let running = run(bench.worker().handle_batch(echo(&seen), BatchOptions { max_size: 100, max_wait }));
    let began = Instant::now();
    let first = bench.task(1).await;
    bench.reaches(first, State::Running).await;
    let second = bench.task(2).await;
    bench.all_succeed(&[first, second]).await;
    assert!(began.elapsed() >= max_wait, "{:?}", began.elapsed());
    assert_eq!(seen.sizes(), [2]);
    // The next one waits anew, alone.
    let third = bench.task(3).await;
    bench.succeeds(third).await;
    assert_eq!(seen.sizes(), [2, 1]);
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn no_wait_takes_what_is_there() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let now = BatchOptions { max_size: 0, max_wait: Duration::ZERO };
    let running = run(bench.worker().handle_batch(echo(&seen), now));
    let ids = bench.tasks(20).await;
    bench.all_succeed(&ids).await;
    assert_eq!(seen.sizes(), [1; 20], "a size of none is one");
    running.stop().await;
}

/// A retry joins another batch, as another attempt.
#[tokio::test]
async fn every_job_has_its_own_outcome_and_history() {
    let bench = Bench::new().await;
    let handler = async |batch: Batch<Task>| {
        for job in batch {
            match (job.payload().number, job.context().attempt()) {
                (0, _) => job.succeed("well"),
                (1, 1) => job.fail(std::io::Error::other("refused")),
                (1, attempt) => job.succeed(attempt),
                (2, _) => job.fail(JobError::discard("never")),
                (3, _) => job.fail(JobError::retry_after(HOUR, "later")),
                (4, _) => job.fail(JobError::snooze(HOUR)),
                (5, _) => job.succeed(std::collections::HashMap::from([([1], 2)])),
                _ => drop(job),
            }
        }
        Ok::<_, JobError>(())
    };
    let soon = BatchOptions { max_size: 7, max_wait: Duration::from_millis(50) };
    let running = run(bench.worker().handle_batch(handler, soon));
    let mut ids = Vec::new();
    for number in 0..7 {
        ids.push(task(&bench, number, if number > 4 { 1 } else { 5 }).await);
    }
    assert_eq!(bench.succeeds(ids[0]).await.result.unwrap().get(), "\"well\"");
    let retried = bench.succeeds(ids[1]).await;
    assert_eq!((retried.result.unwrap().get(), &*retried.errors[0].message), ("2", "refused"));
    for (id, state, message) in [
        (ids[2], State::Dead, "never"),
        (ids[3], State::Retrying, "later"),
        (ids[5], State::Dead, "key must be a string"),
        (
            ids[6],
            State::Dead,
            "the batch handler left this job without an outcome; call succeed or fail on each",
        ),
    ] {
        let record = bench.reaches(id, state).await;
        let [error] = &record.errors[..] else { panic!("one error: {record:?}") };
        assert_eq!((error.attempt, &*error.message), (1, message));
    }
    let snoozed = bench.reaches(ids[4], State::Scheduled).await;
    assert_eq!((snoozed.attempt, snoozed.errors.len()), (0, 0));
    running.stop().await;
    bench.nothing_is_left().await;
}

/// As the others do, whichever way the handler ends.
#[tokio::test]
async fn an_error_or_a_panic_fails_all_jobs_without_outcome() {
    for panics in [false, true] {
        let bench = Bench::new().await;
        let handler = move |batch: Batch<Task>| async move {
            let mut jobs = batch.into_iter();
            jobs.next().unwrap().succeed("in time");
            assert!(!panics, "in the batch");
            Err::<(), _>(JobError::discard("the table is gone"))
        };
        let running = run(bench.worker().handle_batch(handler, up_to(4)));
        let mut ids = Vec::new();
        for number in 0..4 {
            ids.push(task(&bench, number, 1).await);
        }
        let mut succeeded = 0;
        for id in ids {
            until("it has ended", async || bench.get(id).await.state.is_terminal()).await;
            let record = bench.get(id).await;
            if record.state == State::Succeeded {
                succeeded += 1;
                continue;
            }
            let message = if panics { "the handler panicked: in the batch" } else { "the table is gone" };
            assert_eq!((record.state, &*record.errors[0].message), (State::Dead, message));
        }
        assert_eq!(succeeded, 1);
        running.stop().await;
        bench.nothing_is_left().await;
    }
}

#[tokio::test]
async fn an_outcome_counts_at_once() {
    let bench = Bench::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let wait = gate.clone();
    let handler = move |batch: Batch<Task>| {
        let wait = wait.clone();
        async move {
            let (early, late): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|job| job.payload().number == 0);
            early.into_iter().for_each(|job| job.succeed("early"));
            wait.acquire().await?.forget();
            late.into_iter().for_each(|job| job.succeed("late"));
            Ok::<_, JobError>(())
        }
    };
    let running = run(bench.worker().handle_batch(handler, up_to(2)));
    let (early, late) = (bench.task(0).await, bench.task(1).await);
    bench.succeeds(early).await;
    assert_eq!(bench.get(late).await.state, State::Running);
    gate.add_permits(1);
    assert_eq!(bench.succeeds(late).await.result.unwrap().get(), "\"late\"");
    running.stop().await;
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_its_own_jobs_failure() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let running = run(bench.worker().handle_batch(echo(&seen), up_to(2)));
    let mut odd = NewJob::new(Task::KIND.parse().unwrap(), RawValue::from_string("{}".into()).unwrap());
    odd.max_attempts = 1;
    let odd = bench.accept(odd).await;
    let good = bench.task(1).await;
    bench.succeeds(good).await;
    assert!(bench.reaches(odd, State::Dead).await.errors[0].message.contains("test.task"));
    assert_eq!(seen.sizes(), [1]);
    running.stop().await;
}

/// With room for one handler and no buffer: neither what gathers nor what runs keeps the other from going on.
#[tokio::test]
async fn gathering_takes_no_place_from_others() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let mut one = options();
    (one.concurrency, one.buffer) = (1, 0);
    let worker = bench
        .worker_with(one)
        .handle_batch(echo(&seen), up_to(10))
        .handle(async |_: Other| Ok::<_, JobError>(()));
    let running = run(worker);
    let mut ids = bench.tasks(9).await;
    for id in &ids {
        bench.reaches(*id, State::Running).await;
    }
    for _ in 0..3 {
        let other = bench.client.enqueue(Other {}).await.unwrap();
        bench.succeeds(other).await;
    }
    assert_eq!(seen.sizes(), [0; 0]);
    ids.push(bench.task(9).await);
    bench.all_succeed(&ids).await;
    assert_eq!(seen.sizes(), [10]);

    // A flood of both ends, whatever the order in which it comes.
    let mut flood = bench.tasks(95).await;
    for _ in 0..30 {
        flood.push(bench.client.enqueue(Other {}).await.unwrap());
    }
    flood.extend(bench.tasks(5).await);
    bench.all_succeed(&flood).await;
    assert_eq!(seen.sizes().iter().sum::<usize>(), 110);
    running.stop().await;
    bench.nothing_is_left().await;
}

/// However many jobs there are in it: here, two at a time would be four.
#[tokio::test]
async fn a_batch_is_one_of_those_running() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let mut two = options();
    two.concurrency = 2;
    let runs = notes.clone();
    let handler = move |batch: Batch<Task>| {
        let run = runs.begin(batch.iter().next().unwrap().context().job_id());
        async move {
            tokio::task::yield_now().await;
            drop(run);
            batch.succeed();
            Ok::<_, JobError>(())
        }
    };
    let running = run(bench.worker_with(two).handle_batch(handler, up_to(2)));
    let ids = bench.tasks(40).await;
    bench.all_succeed(&ids).await;
    assert!(notes.most_at_once() <= 2 && notes.runs() == 20, "{notes:?}");
    running.stop().await;
}

/// It cannot be taken out of the handler's hands, so its attempt ends when the handler has done with it.
#[tokio::test]
async fn a_job_that_a_layer_gives_up_on_is_told_and_waited_for() {
    let bench = Bench::new().await;
    let (began, ended) = (Arc::new(Notify::new()), Arc::new(AtomicBool::default()));
    let (begin, end) = (began.clone(), ended.clone());
    let layer = With(move |context: Context, mut call: BoxedCall| {
        let began = began.clone();
        async move {
            if context.payload().get().contains('1') {
                return call(context).await;
            }
            tokio::select! {
                biased;
                result = call(context) => result,
                () = began.notified() => Err(JobError::discard("too slow")),
            }
        }
        .boxed()
    });
    let handler = move |batch: Batch<Task>| {
        begin.notify_one();
        let end = end.clone();
        async move {
            let given_up = batch.iter().find(|job| job.payload().number == 0).unwrap();
            given_up.context().cancelled().cancelled().await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            end.store(true, Ordering::SeqCst);
            batch.succeed();
            Ok::<_, JobError>(())
        }
    };
    let running = run(bench.worker().handle_with(Handling::batch(handler, up_to(2)).layer(layer)));
    let ids = bench.tasks(2).await;
    assert_eq!(bench.reaches(ids[0], State::Dead).await.errors[0].message, "too slow");
    assert!(ended.load(Ordering::SeqCst), "the attempt ended before the handler had done with it");
    bench.succeeds(ids[1]).await;
    running.stop().await;
    bench.nothing_is_left().await;
}

/// One of them gives up while it gathers again, and leaves its place to another.
#[tokio::test]
async fn a_layer_may_try_a_batch_twice() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let left = Arc::new(Notify::new());
    let layer = With(move |context: Context, mut call: BoxedCall| {
        let left = left.clone();
        async move {
            if call(context.clone()).await.is_ok() {
                return Ok(None);
            }
            if context.payload().get().contains('0') {
                let alone = tokio::time::timeout(Duration::from_millis(50), call(context)).await;
                left.notify_one();
                return alone.unwrap_or_else(|_| Err(JobError::discard("no company came")));
            }
            left.notified().await;
            call(context).await
        }
        .boxed()
    });
    let first = seen.clone();
    let handler = move |batch: Batch<Task>| {
        first.add(&batch);
        let again = first.sizes().len() > 1;
        if again {
            batch.succeed();
        }
        ready(if again { Ok(()) } else { Err(JobError::retry("not yet")) })
    };
    let running = run(bench.worker().handle_with(Handling::batch(handler, up_to(2)).layer(layer)));
    let again = bench.tasks(2).await;
    let record = bench.reaches(again[0], State::Dead).await;
    assert_eq!((record.attempt, &*record.errors[0].message), (1, "no company came"));
    let company = bench.task(3).await;
    for id in [again[1], company] {
        assert_eq!(bench.succeeds(id).await.attempt, 1);
    }
    assert_eq!(seen.sizes(), [2, 2]);
    running.stop().await;
    bench.nothing_is_left().await;
}

/// Each job goes through the layers by itself, and the handler has its states.
#[tokio::test]
async fn layers_and_states_are_there_for_batches() {
    struct Table(u32);
    let bench = Bench::new().await;
    let handler = async |batch: Batch<Task>, table: Shared<Table>| {
        let base = table.0;
        for job in batch {
            let number = job.payload().number;
            job.succeed(base + number);
        }
        Ok::<_, JobError>(())
    };
    let refused = bench.worker().handle_batch(handler, up_to(2));
    let refused = within("it refuses", refused.run_until(tokio_util::sync::CancellationToken::new())).await;
    assert!(matches!(refused, Err(WorkerError::MissingState { .. })), "{refused:?}");
    let worker = bench.worker().state(Table(100)).layer(MetricsLayer::new()).handle_batch(handler, up_to(2));
    let running = run(worker);
    let ids = bench.tasks(2).await;
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(bench.succeeds(*id).await.result.unwrap().get(), (100 + number).to_string());
    }
    running.stop().await;
}
