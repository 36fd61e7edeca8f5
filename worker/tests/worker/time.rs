//! Deadlines, schedules, and payloads of other versions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::to_raw_value};
use windlass_core::{Job, NewJob, Schedule, State};
use windlass_worker::{Context, JobError, WorkerError};

use crate::support::{Bench, Task, run, until, within};

/// The second form of a payload that once was a bare number.
#[derive(Debug, Serialize, Deserialize)]
struct Evolved {
    number: u32,
}

impl Job for Evolved {
    const KIND: &'static str = "test.evolved";
    const VERSION: u16 = 2;
    const MAX_ATTEMPTS: u32 = 1;

    fn upgrade(from: u16, payload: Value) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        match from {
            1 => Ok(json!({ "number": payload })),
            other => Err(format!("version {other} was never released").into()),
        }
    }
}

fn of_version(version: u16, payload: &Value) -> NewJob {
    let mut job = NewJob::new(Evolved::KIND.parse().unwrap(), to_raw_value(payload).unwrap());
    job.version = version;
    job.max_attempts = 1;
    job
}

#[tokio::test]
async fn older_payloads_are_brought_up_to_date() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |job: Evolved| Ok::<_, JobError>(job.number)));
    let current = bench.client.enqueue(Evolved { number: 2 }).await.unwrap();
    let old = bench.accept(of_version(1, &json!(1))).await;
    let unknown = bench.accept(of_version(0, &json!(0))).await;
    assert_eq!(bench.succeeds(current).await.result.unwrap().get(), "2");
    assert_eq!(bench.succeeds(old).await.result.unwrap().get(), "1");
    let dead = bench.reaches(unknown, State::Dead).await;
    assert_eq!(dead.errors[0].message, "version 0 was never released");
    running.stop().await;
}

#[tokio::test]
async fn a_type_without_an_upgrade_says_so() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let mut job = NewJob::new(Task::KIND.parse().unwrap(), to_raw_value(&json!({"number": 1})).unwrap());
    (job.version, job.max_attempts) = (0, 1);
    let dead = bench.reaches(bench.accept(job).await, State::Dead).await;
    assert!(dead.errors[0].message.contains("no `upgrade` from version 0"), "{dead:?}");
    running.stop().await;
}

#[tokio::test]
async fn newer_payloads_are_left_to_newer_workers() {
    let bench = Bench::new().await;
    let old = run(bench.worker().handle(async |_: Evolved| Ok::<_, JobError>("old")));
    let id = bench.accept(of_version(3, &json!({"form": "new"}))).await;
    let left = bench.reaches(id, State::Scheduled).await;
    assert_eq!((left.attempt, left.errors.len()), (0, 0), "it does not count");

    #[derive(Serialize, Deserialize)]
    struct Newer {
        form: String,
    }
    impl Job for Newer {
        const KIND: &'static str = "test.evolved";
        const VERSION: u16 = 3;
    }
    let new = run(bench.worker().handle(async |job: Newer| Ok::<_, JobError>(job.form)));
    old.stop().await;
    assert_eq!(bench.succeeds(id).await.result.unwrap().get(), r#""new""#);
    new.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_deadline_stops_the_handler() {
    let bench = Bench::new().await;
    let told = Arc::new(AtomicU32::new(0));
    let seen = told.clone();
    let running = run(bench.worker().handle(move |_: Task, ctx: Context| {
        let seen = seen.clone();
        async move {
            ctx.cancelled().cancelled().await;
            seen.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(JobError::retry("stopped"))
        }
    }));
    let id = bench.client.enqueue(Task { number: 1 }).deadline_in(Duration::from_secs(1)).await.unwrap();
    let dead = bench.reaches(id, State::Dead).await;
    assert!(dead.errors[0].message.starts_with("expired: "), "{dead:?}");
    assert_eq!(told.load(Ordering::SeqCst), 1);
    running.stop().await;
}

#[tokio::test]
async fn no_retry_is_waited_for_beyond_the_deadline() {
    let bench = Bench::new().await;
    let hour = Duration::from_secs(3600);
    let running = run(bench.worker().handle(move |task: Task| async move {
        Err::<(), _>(if task.number == 0 {
            JobError::retry_after(hour * 2, "again")
        } else {
            JobError::snooze(hour * 2)
        })
    }));
    let retried = bench.client.enqueue(Task { number: 0 }).deadline_in(hour).await.unwrap();
    let snoozed = bench.client.enqueue(Task { number: 1 }).deadline_in(hour).await.unwrap();
    let without = bench.task(0).await;
    let dead = bench.reaches(retried, State::Dead).await;
    assert!(dead.errors[0].message.starts_with("again (expired: "), "{dead:?}");
    bench.reaches(snoozed, State::Dead).await;
    bench.reaches(without, State::Retrying).await;
    running.stop().await;
}

#[tokio::test]
async fn the_leader_makes_jobs_dead_that_were_not_started_in_time() {
    let bench = Bench::new().await;
    let later = Duration::from_secs(3600);
    let id = bench
        .client
        .enqueue(Task { number: 1 })
        .delay(later)
        .expires_in(Duration::from_millis(10))
        .await
        .unwrap();
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let dead = bench.reaches(id, State::Dead).await;
    assert_eq!(dead.errors[0].message, "expired: it was not started in time");
    running.stop().await;
}

#[tokio::test]
async fn schedules_in_code_fire_on_workers() {
    let bench = Bench::new().await;
    let ran = Arc::new(AtomicU32::new(0));
    let worker = || {
        let ran = ran.clone();
        let secondly = Schedule::cron("* * * * * *", "Europe/Berlin").unwrap();
        bench
            .worker()
            .handle(move |task: Task| {
                let ran = ran.clone();
                async move {
                    ran.fetch_add(task.number, Ordering::SeqCst);
                    Ok::<_, JobError>(())
                }
            })
            .schedule(secondly, Task { number: 1 })
    };
    let (first, second) = (run(worker()), run(worker()));
    until("three ticks have run", async || ran.load(Ordering::SeqCst) >= 3).await;
    let schedules = bench.client.store().timetable().schedules().await.unwrap();
    assert_eq!(schedules.len(), 1);
    assert_eq!(schedules[0].definition.name.as_str(), Task::KIND);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn two_schedules_of_one_name_are_refused() {
    let bench = Bench::new().await;
    let every = || Schedule::every(Duration::from_secs(60)).unwrap();
    let worker = bench.worker().handle(async |_: Task| Ok::<_, JobError>(()));
    let worker = worker.schedule(every(), Task { number: 1 }).schedule(every(), Task { number: 2 });
    let error = within("it is refused", worker.run()).await.unwrap_err();
    assert!(matches!(error, WorkerError::TwoSchedules(_)), "{error}");
    assert!(bench.client.store().timetable().schedules().await.unwrap().is_empty());
}
