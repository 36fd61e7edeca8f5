//! What a handler returns, and what becomes of its job.

use std::{
    collections::HashMap,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use windlass_core::{Job, JobId, NewJob, RetryPolicy, State};
use windlass_worker::{Context, JobError};

use crate::support::{Bench, Notes, Other, Task, run};

#[derive(Debug, thiserror::Error)]
#[error("cannot send")]
struct Refused(#[source] std::io::Error);

fn refused() -> Refused {
    Refused(std::io::Error::other("connection refused"))
}

#[tokio::test]
async fn a_value_is_the_result_and_unit_is_none() {
    let bench = Bench::new().await;
    let worker = bench
        .worker()
        .handle(async |task: Task| Ok::<_, JobError>(HashMap::from([("doubled", task.number * 2)])))
        .handle(async |_: Other| Ok::<_, JobError>(()));
    let running = run(worker);
    let (value, unit) = (bench.task(21).await, bench.client.enqueue(Other {}).await.unwrap());
    let record = bench.succeeds(value).await;
    assert_eq!(record.result.unwrap().get(), r#"{"doubled":42}"#);
    assert_eq!((record.attempt, record.errors.len()), (1, 0));
    assert!(record.started_at.unwrap() >= record.created_at && record.finished_at >= record.started_at);
    assert!(bench.succeeds(unit).await.result.is_none());
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn the_context_tells_of_the_attempt() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task, ctx: Context| {
        let label = ctx.labels().get("tenant").cloned();
        let told =
            (ctx.job_id(), ctx.attempt(), ctx.max_attempts(), ctx.kind().clone(), ctx.queue().clone(), label);
        Ok::<_, JobError>(told)
    }));
    let id = bench.client.enqueue(Task { number: 1 }).max_attempts(7).label("tenant", "a").await.unwrap();
    let result = bench.succeeds(id).await.result.unwrap();
    assert_eq!(result.get(), format!(r#"["{id}",1,7,"test.task","default","a"]"#));
    running.stop().await;
}

/// What a handler enqueues is its job's tenant's, unless it says otherwise.
#[tokio::test]
async fn jobs_of_a_handler_are_its_tenants() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Other| Ok::<_, JobError>(())).handle(
        async |_: Task, ctx: Context| {
            let client = ctx.client();
            let own = client.enqueue(Other {}).await?;
            let named = client.enqueue(Other {}).tenant("globex").await?;
            let nobodys = client.on_behalf_of(None).enqueue(Other {}).await?;
            let workflow = client.workflow("w").job("a", Other {}).await?;
            let workflow = client.get_workflow(workflow).await?.and_then(|workflow| workflow.tenant);
            Ok::<_, JobError>(((own, named, nobodys), workflow, ctx.tenant().cloned()))
        },
    ));
    let ids = [bench.client.enqueue(Task { number: 1 }).tenant("acme").await.unwrap(), bench.task(1).await];
    for (id, own) in ids.into_iter().zip([Some("acme"), None]) {
        let result = bench.succeeds(id).await.result.unwrap();
        let (jobs, workflow, told): ([JobId; 3], Option<String>, Option<String>) =
            serde_json::from_str(result.get()).unwrap();
        let mut tenants = Vec::new();
        for job in jobs {
            let tenant = bench.client.get(job).await.unwrap().unwrap().gating.tenant;
            tenants.push(tenant.map(|tenant| tenant.to_string()));
        }
        assert_eq!(tenants, [own.map(str::to_owned), Some("globex".into()), None]);
        assert_eq!((workflow.as_deref(), told.as_deref()), (own, own));
    }
    running.stop().await;
}

#[tokio::test]
async fn an_error_is_retried_and_recorded_with_its_causes() {
    let bench = Bench::new().await;
    let running =
        run(bench.worker().handle(
            async |_: Task, ctx: Context| {
                if ctx.attempt() == 1 { Err(refused()) } else { Ok(ctx.attempt()) }
            },
        ));
    let id = bench.task(1).await;
    let record = bench.succeeds(id).await;
    assert_eq!((record.attempt, record.result.unwrap().get()), (2, "2"));
    let [error] = &record.errors[..] else { panic!("one error: {:?}", record.errors) };
    assert_eq!((error.attempt, &*error.worker), (1, "test"));
    assert_eq!(error.message, "cannot send: connection refused");
    running.stop().await;
    bench.nothing_is_left().await;
}

#[tokio::test]
async fn a_job_is_dead_once_its_attempts_are_used_up() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Err::<(), _>(refused())));
    let id = bench.client.enqueue(Task { number: 1 }).max_attempts(3).await.unwrap();
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!(record.errors.iter().map(|error| error.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(record.finished_at.is_some());
    running.stop().await;
}

#[tokio::test]
async fn a_discarded_job_is_dead_at_once() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Err::<(), _>(JobError::discard(refused()))));
    let id = bench.task(1).await;
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!((record.attempt, &*record.errors[0].message), (1, "cannot send: connection refused"));
    running.stop().await;
}

#[tokio::test]
async fn retry_after_wins_over_the_policy() {
    let bench = Bench::new().await;
    let hour = Duration::from_secs(3600);
    let running = run(bench.worker().handle(async |_: Task| {
        let hour = Duration::from_secs(3600);
        Err::<(), _>(JobError::retry_after(hour, refused()))
    }));
    let id = bench.task(1).await;
    let record = bench.reaches(id, State::Retrying).await;
    let wait = (record.run_at.unwrap() - record.started_at.unwrap()).to_std().unwrap();
    assert!(wait >= hour && wait < hour + Duration::from_secs(60), "{wait:?}");
    let [error] = &record.errors[..] else { panic!("one error: {:?}", record.errors) };
    assert_eq!((error.attempt, &*error.message), (1, "cannot send: connection refused"));
    running.stop().await;
    bench.nothing_is_left().await;
}

/// Waits an hour while it is busy, gives up once it is gone, and has bugs.
fn patience(_attempt: u32, error: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
    match error.downcast_ref::<Trouble>()? {
        Trouble::Busy => Some(Duration::from_secs(3600)),
        Trouble::Gone => None,
        Trouble::Odd => panic!("a bug in the policy"),
    }
}

#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("busy")]
    Busy,
    #[error("gone")]
    Gone,
    #[error("odd")]
    Odd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Patient {
    number: u32,
}

impl Job for Patient {
    const KIND: &'static str = "test.patient";
    const RETRY: RetryPolicy = RetryPolicy::custom(patience);
}

#[tokio::test]
async fn a_custom_policy_decides_by_the_error() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |job: Patient| {
        Err::<(), JobError>(match job.number {
            0 => Trouble::Busy.into(),
            1 => Trouble::Gone.into(),
            2 => Trouble::Odd.into(),
            3 => JobError::retry("of another type"),
            _ => panic!("in the handler"),
        })
    }));
    let mut jobs = Vec::new();
    for number in 0..5 {
        jobs.push(bench.client.enqueue(Patient { number }).await.unwrap());
    }
    let busy = bench.reaches(jobs[0], State::Retrying).await;
    let wait = (busy.run_at.unwrap() - busy.started_at.unwrap()).to_std().unwrap();
    assert!(wait >= Duration::from_secs(3600) && wait < Duration::from_secs(3660), "{wait:?}");
    // Its policy has failed it, and the default one goes on with it.
    let odd = bench.reaches(jobs[2], State::Retrying).await;
    assert_eq!((&*busy.errors[0].message, &*odd.errors[0].message), ("busy", "odd"));
    for (id, message) in
        [(jobs[1], "gone"), (jobs[3], "of another type"), (jobs[4], "the handler panicked: in the handler")]
    {
        let dead = bench.reaches(id, State::Dead).await;
        assert_eq!((dead.attempt, &*dead.errors[0].message), (1, message));
    }
    running.stop().await;
    bench.nothing_is_left().await;
}

/// With one attempt allowed, only a snooze that does not count leads to success.
#[tokio::test]
async fn a_snooze_does_not_count() {
    let bench = Bench::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    let running =
        run(bench.worker().handle(move |_: Task, ctx: Context| {
            let call = calls.fetch_add(1, Ordering::SeqCst);
            async move {
                if call < 2 { Err(JobError::snooze(Duration::from_millis(1))) } else { Ok(ctx.attempt()) }
            }
        }));
    let id = bench.client.enqueue(Task { number: 1 }).max_attempts(1).await.unwrap();
    let record = bench.succeeds(id).await;
    assert_eq!((record.attempt, record.result.unwrap().get()), (1, "1"));
    assert_eq!((seen.load(Ordering::SeqCst), record.errors.len()), (3, 0));
    running.stop().await;
    bench.nothing_is_left().await;
}

/// Longest waits are waits, not overflows that run at once or panic.
#[tokio::test]
async fn a_wait_for_ever_is_a_wait() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |task: Task| {
        let wait = JobError::snooze(Duration::MAX);
        Err::<(), _>(if task.number == 0 { wait } else { JobError::retry_after(Duration::MAX, "x") })
    }));
    let (snoozed, retried) = (bench.task(0).await, bench.task(1).await);
    let century = chrono::TimeDelta::days(36_500);
    let snoozed = bench.reaches(snoozed, State::Scheduled).await;
    assert!(snoozed.run_at.unwrap() - snoozed.created_at > century, "{snoozed:?}");
    let retried = bench.reaches(retried, State::Retrying).await;
    assert!(retried.run_at.unwrap() - retried.created_at > century, "{retried:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(())));
    let delay = Duration::from_millis(700);
    let id = bench.client.enqueue(Task { number: 1 }).delay(delay).await.unwrap();
    assert_eq!(bench.get(id).await.state, State::Scheduled);
    let due = bench.get(id).await.run_at.unwrap();
    assert!(bench.succeeds(id).await.started_at.unwrap() >= due);
    running.stop().await;
}

#[tokio::test]
async fn panics_are_failures_and_the_worker_goes_on() {
    let bench = Bench::new().await;
    let worker = bench
        .worker()
        .handle(async |task: Task| {
            assert!(task.number != 13, "number {}", task.number);
            Ok::<_, JobError>(())
        })
        .handle_blocking(|_: Other| -> Result<(), JobError> { panic!("in its own thread") });
    let running = run(worker);
    let id = bench.client.enqueue(Task { number: 13 }).max_attempts(2).await.unwrap();
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!(record.errors.len(), 2);
    assert_eq!(record.errors[0].message, "the handler panicked: number 13");
    let id = bench.client.enqueue(Other {}).max_attempts(1).await.unwrap();
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!(record.errors[0].message, "the handler panicked: in its own thread");
    let ids = bench.tasks(12).await;
    bench.all_succeed(&ids).await;
    running.stop().await;
    bench.nothing_is_left().await;
}

/// The function itself, before there is a future, can panic as well.
#[tokio::test]
async fn a_panic_before_the_future_is_a_failure() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(|task: Task| {
        assert!(task.number != 13, "unlucky");
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let id = bench.client.enqueue(Task { number: 13 }).max_attempts(1).await.unwrap();
    assert_eq!(bench.reaches(id, State::Dead).await.errors[0].message, "the handler panicked: unlucky");
    running.stop().await;
}

/// By policy, since in a rollout the next worker may understand it.
#[tokio::test]
async fn an_undecodable_payload_is_retried_and_then_dead() {
    let bench = Bench::new().await;
    let notes = Notes::default();
    let runs = notes.clone();
    let running = run(bench.worker().handle(move |_: Task, ctx: Context| {
        let _run = runs.begin(ctx.job_id());
        std::future::ready(Ok::<_, JobError>(()))
    }));
    let payload = serde_json::value::to_raw_value(r#"{"number":"seven"}"#).unwrap();
    let mut job = NewJob::new(Task::KIND.parse().unwrap(), payload);
    job.max_attempts = 2;
    let id = bench.accept(job).await;
    let record = bench.reaches(id, State::Dead).await;
    assert_eq!((record.errors.len(), notes.runs()), (2, 0));
    let message = &record.errors[0].message;
    assert!(message.contains("does not fit test.task") && message.contains("invalid type"), "{message}");
    running.stop().await;
}

#[tokio::test]
async fn a_result_that_is_no_json_is_a_failure() {
    let bench = Bench::new().await;
    let running = run(bench.worker().handle(async |_: Task| Ok::<_, JobError>(HashMap::from([((1, 2), 3)]))));
    let id = bench.client.enqueue(Task { number: 1 }).max_attempts(1).await.unwrap();
    let message = &bench.reaches(id, State::Dead).await.errors[0].message;
    assert!(message.contains("key must be a string"), "{message}");
    running.stop().await;
}

/// The blocking handler waits for one that needs the only async thread.
#[tokio::test]
async fn a_blocking_handler_keeps_no_async_thread_busy() {
    let bench = Bench::new().await;
    let (done, wait) = mpsc::channel();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let worker = bench
        .worker()
        .handle_blocking(move |_: Other| {
            wait.lock().unwrap().recv_timeout(Duration::from_secs(30)).map(|()| "waited")
        })
        .handle(move |_: Task| {
            let done = done.clone();
            async move { Ok::<_, JobError>(done.send(())?) }
        });
    let running = run(worker);
    let blocking = bench.client.enqueue(Other {}).await.unwrap();
    bench.reaches(blocking, State::Running).await;
    let id = bench.task(1).await;
    bench.succeeds(id).await;
    assert_eq!(bench.succeeds(blocking).await.result.unwrap().get(), "\"waited\"");
    running.stop().await;
}

#[tokio::test]
async fn a_handler_can_enqueue() {
    let bench = Bench::new().await;
    let worker = bench
        .worker()
        .handle(async |_: Task, ctx: Context| Ok::<_, JobError>(ctx.client().enqueue(Other {}).await?))
        .handle(async |_: Other| Ok::<_, JobError>("child"));
    let running = run(worker);
    let id = bench.task(1).await;
    let child = bench.succeeds(id).await.result.unwrap();
    let child = serde_json::from_str(child.get()).unwrap();
    assert_eq!(bench.succeeds(child).await.result.unwrap().get(), "\"child\"");
    running.stop().await;
}
