//! Batches that are told to stop: by requests, timeouts, a shutdown, or the loss of the lease.

use std::{
    future::IntoFuture as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use windlass_core::{CancelOutcome, JobId, State};
use windlass_worker::{Batch, Handling, JobError, Worker};

use crate::{
    batch::{HOUR, Seen, echo, up_to},
    support::{Bench, Notes, Task, options, run, within},
};

/// What batch handlers do that are told to stop: wait for all to be told, and then stop or not.
fn told(bench: &Bench, notes: &Notes, heeds: bool, abort_after: Duration) -> Worker {
    let notes = notes.clone();
    let handler = move |batch: Batch<Task>| {
        let runs: Vec<_> = batch.iter().map(|job| notes.begin(job.context().job_id())).collect();
        async move {
            let _runs = runs;
            batch.cancelled().cancelled().await;
            if !heeds {
                std::future::pending::<()>().await;
            }
            Err::<(), _>(JobError::retry("stopped"))
        }
    };
    let size = up_to(2);
    bench.worker().handle_with(Handling::batch(handler, size).abort_after(abort_after))
}

async fn cancel(bench: &Bench, id: JobId) {
    assert_eq!(bench.client.cancel(id).await.unwrap(), CancelOutcome::Requested);
}

#[tokio::test]
async fn a_batch_stops_once_all_its_jobs_are_cancelled() {
    for (heeds, abort_after) in [(true, HOUR), (false, Duration::from_millis(50))] {
        let (bench, notes) = (Bench::new().await, Notes::default());
        let running = run(told(&bench, &notes, heeds, abort_after));
        let ids = bench.tasks(2).await;
        notes.until_running(2).await;
        for id in &ids {
            cancel(&bench, *id).await;
        }
        for id in &ids {
            assert!(bench.reaches(*id, State::Cancelled).await.errors.is_empty());
        }
        assert_eq!(notes.running(), 0);
        running.stop().await;
        bench.nothing_is_left().await;
    }
}

/// Nothing is done to the others, and its place in the handler's hands is not taken away.
#[tokio::test]
async fn one_cancelled_job_does_not_disturb_its_batch() {
    let bench = Bench::new().await;
    let (told, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (tell, wait) = (told.clone(), gate.clone());
    let handler = move |batch: Batch<Task>| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            let one = batch.iter().find(|job| job.payload().number == 0).unwrap().context().clone();
            one.cancelled().cancelled().await;
            // Much longer than it would take to drop them.
            tokio::time::sleep(Duration::from_millis(300)).await;
            tell.notify_one();
            assert!(!batch.cancelled().is_cancelled(), "only one was told");
            wait.acquire().await?.forget();
            for job in batch {
                if job.context().cancelled().is_cancelled() {
                    job.fail(JobError::retry("it was told to"));
                } else {
                    job.succeed(());
                }
            }
            Ok::<_, JobError>(())
        }
    };
    let handling = Handling::batch(handler, up_to(3)).abort_after(Duration::from_millis(1));
    let running = run(bench.worker().handle_with(handling));
    let ids = bench.tasks(3).await;
    for id in &ids {
        bench.reaches(*id, State::Running).await;
    }
    cancel(&bench, ids[0]).await;
    within("it has been told, and goes on", told.notified()).await;
    for id in &ids {
        assert_eq!(bench.get(*id).await.state, State::Running);
    }
    gate.add_permits(1);
    bench.all_succeed(&ids[1..]).await;
    assert!(bench.reaches(ids[0], State::Cancelled).await.errors.is_empty());
    running.stop().await;
    bench.nothing_is_left().await;
}

/// Timeouts are each job's own, and count from the batch's beginning.
#[tokio::test]
async fn a_batch_whose_jobs_have_all_timed_out_is_stopped() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(told(&bench, &notes, false, Duration::from_millis(50)));
    let timed = |ms| {
        bench
            .client
            .enqueue(Task { number: 1 })
            .max_attempts(1)
            .timeout(Duration::from_millis(ms))
            .into_future()
    };
    let first = timed(100).await.unwrap();
    bench.reaches(first, State::Running).await;
    // Longer than its timeout, which does not count yet.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.get(first).await.state, State::Running);
    let second = timed(600).await.unwrap();
    for (id, seconds) in [(first, "0.1"), (second, "0.6")] {
        let record = bench.reaches(id, State::Dead).await;
        let expected = format!("the attempt took longer than its timeout of {seconds} s");
        assert_eq!(record.errors[0].message, expected);
        // The handler had it in its hands until the end.
        assert_eq!((notes.runs(), notes.running()), (2, 0));
    }
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn what_gathers_can_be_cancelled_and_is_given_back_on_shutdown() {
    let (bench, seen) = (Bench::new().await, Seen::default());
    let running = run(bench.worker().handle_batch(echo(&seen), up_to(3)));
    let ids = bench.tasks(2).await;
    for id in &ids {
        bench.reaches(*id, State::Running).await;
    }
    cancel(&bench, ids[0]).await;
    assert!(bench.reaches(ids[0], State::Cancelled).await.errors.is_empty());
    // It counts no more: two make no three.
    let third = bench.task(3).await;
    bench.reaches(third, State::Running).await;
    running.stop().await;
    assert_eq!(seen.sizes(), [0; 0]);
    for id in [ids[1], third] {
        let record = bench.get(id).await;
        assert_eq!((record.state, record.attempt, record.errors.len()), (State::Queued, 0, 0));
    }
    bench.nothing_is_left().await;
    let next = run(bench.worker().handle_batch(echo(&seen), up_to(2)));
    bench.all_succeed(&[ids[1], third]).await;
    next.stop().await;
}

#[tokio::test]
async fn a_running_batch_finishes_within_the_grace_or_is_given_back() {
    for heeds in [true, false] {
        let (bench, notes) = (Bench::new().await, Notes::default());
        let mut hasty = options();
        (hasty.grace, hasty.abort_after) = (Duration::from_millis(50), Duration::from_millis(50));
        let runs = notes.clone();
        let handler = move |batch: Batch<Task>| {
            let run = runs.begin(batch.iter().next().unwrap().context().job_id());
            async move {
                let _run = run;
                batch.cancelled().cancelled().await;
                if heeds {
                    batch.succeed();
                    return Ok::<_, JobError>(());
                }
                std::future::pending().await
            }
        };
        let running = run(bench.worker_with(hasty).handle_batch(handler, up_to(2)));
        let ids = bench.tasks(2).await;
        notes.until_running(1).await;
        within("it stops", running.stop()).await;
        assert_eq!(notes.running(), 0);
        let state = if heeds { State::Succeeded } else { State::Queued };
        for id in ids {
            assert_eq!(bench.get(id).await.state, state);
        }
        bench.nothing_is_left().await;
    }
}

/// The lease is lost: nothing is recorded, the batch is dropped at once, and its jobs run again.
#[tokio::test]
async fn a_batch_is_dropped_with_the_lease() {
    let (bench, notes) = (Bench::new().await, Notes::default());
    let running = run(told(&bench, &notes, false, HOUR));
    let ids = bench.tasks(2).await;
    notes.until_running(2).await;
    bench.store.heartbeats_fail.store(true, Ordering::SeqCst);
    notes.until_running(0).await;
    running.ask_to_stop();
    bench.store.heartbeats_fail.store(false, Ordering::SeqCst);
    running.stop().await;
    let next = run(bench.worker().handle_batch(echo(&Seen::default()), up_to(2)));
    for id in ids {
        assert!(bench.succeeds(id).await.attempt >= 2);
    }
    next.stop().await;
    bench.nothing_is_left().await;
}
