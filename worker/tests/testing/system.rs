//! A whole system, with its clock in the hand of the test.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use windlass_core::{
    Job, JobFilter, Limit, Missed, RetryPolicy, Schedule, Source, State as JobState, Timestamp, Unique,
};
use windlass_worker::{
    Batch, BatchOptions, Context, Handling, JobError, LogLevel, State, Worker, WorkerError,
    middleware::MetricsLayer,
    testing::{TestError, TestSystem},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// A step of work, with so many more to follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Step {
    left: u32,
}

impl Job for Step {
    const KIND: &'static str = "step";
}

#[derive(Debug, Serialize, Deserialize)]
struct Flaky {}

impl Job for Flaky {
    const KIND: &'static str = "flaky";
    const QUEUE: &'static str = "shaky";
    const MAX_ATTEMPTS: u32 = 3;
    const RETRY: RetryPolicy = RetryPolicy::fixed(Duration::from_secs(600));
}

/// A payload in its second form.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Renamed {
    new_name: u32,
}

impl Job for Renamed {
    const KIND: &'static str = "renamed";
    const VERSION: u16 = 2;

    fn upgrade(_: u16, old: serde_json::Value) -> Result<serde_json::Value, Source> {
        Ok(json!({"new_name": old["old_name"]}))
    }
}

/// The same in its first form.
#[derive(Debug, Serialize, Deserialize)]
struct BeforeRenaming {
    old_name: u32,
}

impl Job for BeforeRenaming {
    const KIND: &'static str = "renamed";
}

async fn done(_: Step) -> Result<(), JobError> {
    Ok(())
}

async fn fails(_: Flaky, ctx: Context) -> Result<(), JobError> {
    Err(JobError::retry(format!("attempt {} as told", ctx.attempt())))
}

/// Each enqueues two more.
async fn doubles(step: Step, ctx: Context) -> Result<(), JobError> {
    if step.left > 0 {
        for _ in 0..2 {
            ctx.client().enqueue(Step { left: step.left - 1 }).await?;
        }
    }
    Ok(())
}

fn noon() -> Timestamp {
    "2031-03-14T12:00:00Z".parse().unwrap()
}

async fn at_noon(configure: impl FnOnce(Worker) -> Worker) -> TestSystem {
    TestSystem::start_at(noon(), configure).await.unwrap()
}

fn minutes(time: Timestamp) -> i64 {
    let since = time - noon();
    assert_eq!(since.subsec_nanos(), 0);
    assert_eq!(since.num_seconds() % 60, 0);
    since.num_minutes()
}

/// What a failed assertion says.
fn said<T>(assertion: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(assertion)) else { panic!("the assertion should fail") };
    panic.downcast_ref::<String>().cloned().unwrap()
}

#[tokio::test]
async fn attempts_are_made_at_their_times() {
    let system = at_noon(|worker| worker.handle(fails)).await;
    system.client().enqueue(Flaky {}).await.unwrap();
    system.advance(MINUTE * 15).await.unwrap();
    let jobs = system.jobs::<Flaky>().await.unwrap();
    let job = jobs.only().assert_state(JobState::Retrying);
    assert_eq!((job.attempt, job.run_at.map(minutes)), (2, Some(20)));

    system.advance(MINUTE * 45).await.unwrap();
    let jobs = system.jobs::<Flaky>().await.unwrap();
    let job = jobs.only().assert_state(JobState::Dead);
    let errors: Vec<_> = job.errors.iter().map(|error| (minutes(error.at), error.message.as_str())).collect();
    assert_eq!(errors, [(0, "attempt 1 as told"), (10, "attempt 2 as told"), (20, "attempt 3 as told")]);
    assert_eq!(minutes(system.now()), 60);
}

#[tokio::test]
async fn what_jobs_enqueue_is_run_as_well() {
    for _ in 0..3 {
        let system = at_noon(|worker| worker.handle(doubles)).await;
        system.client().enqueue(Step { left: 6 }).await.unwrap();
        system.drain().await.unwrap();
        let steps = system.jobs::<Step>().await.unwrap();
        steps.assert_succeeded();
        assert_eq!(steps.len(), 127);
        assert_eq!(steps[0].payload, Step { left: 6 });
        assert_eq!(steps[126].payload, Step { left: 0 });
    }
}

#[tokio::test]
async fn schedules_fire_at_each_of_their_ticks() {
    let hourly = Schedule::cron("0 30 * * * *", "Europe/Berlin").unwrap().missed(Missed::Skip);
    let system = at_noon(|worker| worker.handle(done).schedule(hourly, Step { left: 0 })).await;
    system.drain().await.unwrap();
    system.jobs::<Step>().await.unwrap().assert_none();
    system.advance(HOUR * 24).await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    steps.assert_succeeded();
    let ticks: Vec<_> = steps.iter().map(|job| minutes(job.created_at)).collect();
    assert_eq!(ticks, (0..24).map(|hour| hour * 60 + 30).collect::<Vec<_>>());
    assert!(steps.iter().all(|job| job.started_at == Some(job.created_at)));
}

#[tokio::test]
async fn delays_expiry_and_debounce_keep_to_the_clock() {
    let system = at_noon(|worker| worker.handle(done)).await;
    let client = system.client();
    let delayed = client.enqueue(Step { left: 1 }).delay(MINUTE * 30).await.unwrap();
    let expiring = client.enqueue(Step { left: 2 }).delay(HOUR * 3).expires_in(HOUR).await.unwrap();
    let late = client.enqueue(Step { left: 3 }).delay(HOUR * 3).deadline_in(HOUR * 2).await.unwrap();
    let debounce = || Unique::debounce("index", MINUTE * 10).unwrap();
    let debounced = client.enqueue(Step { left: 4 }).unique(debounce()).await.unwrap();
    system.advance(MINUTE * 5).await.unwrap();
    assert_eq!(client.enqueue(Step { left: 5 }).unique(debounce()).await.unwrap(), debounced);
    system.advance(HOUR * 4).await.unwrap();

    let steps = system.jobs::<Step>().await.unwrap();
    let job = |id| steps.iter().find(|job| job.id == id).unwrap();
    assert_eq!(job(delayed).started_at.map(minutes), Some(30));
    for (id, minute) in [(expiring, 60), (late, 120)] {
        let job = job(id).assert_state(JobState::Dead);
        assert_eq!((job.attempt, job.finished_at.map(minutes)), (0, Some(minute)));
        assert!(job.errors[0].message.starts_with("expired: "));
    }
    let job = job(debounced).assert_state(JobState::Succeeded);
    assert_eq!((job.started_at.map(minutes), &job.payload), (Some(15), &Step { left: 5 }));
}

#[tokio::test]
async fn workflows_run_through() {
    let system = at_noon(|worker| worker.handle(done).handle(fails)).await;
    let workflow = system.client().workflow("w").job("a", Step { left: 0 });
    let workflow =
        (0..20).fold(workflow, |workflow, i| workflow.job(format!("b{i}"), Step { left: 1 }).after(["a"]));
    let workflow = workflow.on_success("end", Step { left: 2 });
    workflow.await.unwrap();
    system.drain().await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    steps.assert_succeeded();
    assert_eq!(steps.len(), 22);

    let doomed = system.client().workflow("d").job("a", Flaky {}).then("b", Step { left: 9 });
    doomed.on_complete("c", Step { left: 10 }).await.unwrap();
    system.advance(HOUR).await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    steps.assert_enqueued(&Step { left: 9 }).assert_state(JobState::Cancelled);
    steps.assert_enqueued(&Step { left: 10 }).assert_state(JobState::Succeeded);
}

#[tokio::test]
async fn limits_hold_by_the_clock() {
    let system = at_noon(|worker| worker.handle(done).limit("slow", Limit::default().rate(1, MINUTE))).await;
    for left in 0..4 {
        system.client().enqueue(Step { left }).limit("slow").await.unwrap();
    }
    system.advance(MINUTE * 2).await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    let started: Vec<_> = steps.iter().map(|job| job.started_at.map(minutes)).collect();
    assert_eq!(started, [Some(0), Some(1), Some(2), None]);
    steps[3].assert_state(JobState::Waiting);
}

#[tokio::test]
async fn what_the_worker_would_not_take_stays() {
    let system = at_noon(|worker| worker.handle(done)).await;
    let client = system.client();
    client.enqueue(Flaky {}).await.unwrap();
    client.enqueue(Step { left: 1 }).queue("elsewhere".parse().unwrap()).await.unwrap();
    client.store().operations().pause_queue(&"default".parse().unwrap(), true).await.unwrap();
    client.enqueue(Step { left: 2 }).await.unwrap();
    system.advance(HOUR).await.unwrap();
    system.jobs::<Flaky>().await.unwrap().only().assert_state(JobState::Queued);
    for step in system.jobs::<Step>().await.unwrap().iter() {
        step.assert_state(JobState::Queued);
    }
    client.store().operations().pause_queue(&"default".parse().unwrap(), false).await.unwrap();
    system.drain().await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    steps.assert_enqueued(&Step { left: 1 }).assert_state(JobState::Queued);
    steps.assert_enqueued(&Step { left: 2 }).assert_state(JobState::Succeeded);
}

#[tokio::test]
async fn without_handlers_jobs_are_only_enqueued() {
    let system = at_noon(|worker| worker).await;
    system.client().enqueue(Step { left: 1 }).delay(MINUTE).await.unwrap();
    system.client().enqueue(Flaky {}).await.unwrap();
    system.advance(MINUTE).await.unwrap();
    let all = system.all_jobs().await.unwrap();
    let states: Vec<_> = all.iter().map(|job| (job.kind.as_str(), job.state)).collect();
    assert_eq!(states, [("step", JobState::Queued), ("flaky", JobState::Queued)]);
}

/// The worker's lease, its store and its timers outlast any jump.
#[tokio::test]
async fn a_leap_of_years_is_survived() {
    let system = at_noon(|worker| worker.handle(done)).await;
    for _ in 0..3 {
        system.client().enqueue(Step { left: 1 }).delay(HOUR).await.unwrap();
        system.advance(HOUR * 24 * 365 * 20).await.unwrap();
        let steps = system.jobs::<Step>().await.unwrap();
        steps.assert_succeeded();
        assert!(steps.iter().all(|job| job.attempt == 1 && job.errors.is_empty()));
    }
    assert_eq!(system.jobs::<Step>().await.unwrap().len(), 3);
}

#[tokio::test]
async fn handlers_of_every_nature_in_their_layers() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let batch = async |steps: Batch<Step>, seen: State<Arc<AtomicUsize>>| {
        seen.fetch_max(steps.len(), Ordering::Relaxed);
        steps.into_iter().for_each(|step| {
            let left = step.payload().left;
            step.succeed(left)
        });
        Ok::<_, JobError>(())
    };
    let batches = BatchOptions { max_size: 8, max_wait: Duration::from_secs(10) };
    let blocking = |flaky: Flaky, told: State<u32>| {
        let _ = flaky;
        Ok::<_, JobError>(*told)
    };
    let system = at_noon(|worker| {
        let blocking = Handling::blocking(blocking).layer(MetricsLayer::new());
        worker
            .state(seen)
            .state(17_u32)
            .layer(MetricsLayer::new())
            .handle_batch(batch, batches)
            .handle_with(blocking)
    });
    let system = system.await;
    for left in 0..8 {
        system.client().enqueue(Step { left }).await.unwrap();
    }
    system.client().enqueue(Flaky {}).await.unwrap();
    system.drain().await.unwrap();
    assert_eq!(most.load(Ordering::Relaxed), 8);
    assert_eq!(system.jobs::<Step>().await.unwrap()[7].result::<u32>(), 7);
    assert_eq!(system.jobs::<Flaky>().await.unwrap().only().result::<u32>(), 17);
}

#[tokio::test]
async fn a_running_job_hears_of_its_cancellation() {
    let started = Arc::new(Notify::new());
    let told = started.clone();
    let patient = async |_: Step, ctx: Context, started: State<Arc<Notify>>| {
        started.notify_one();
        ctx.cancelled().cancelled().await;
        Err::<(), _>(JobError::retry("told to stop"))
    };
    let system = at_noon(|worker| worker.state(told).handle(patient)).await;
    let id = system.client().enqueue(Step { left: 0 }).await.unwrap();
    let cancel = async {
        started.notified().await;
        system.client().cancel(id).await.unwrap();
    };
    let (drained, ()) = tokio::join!(system.drain(), cancel);
    drained.unwrap();
    system.jobs::<Step>().await.unwrap().only().assert_state(JobState::Cancelled);
}

#[tokio::test]
async fn what_handlers_say_is_there_after_the_drain() {
    for _ in 0..5 {
        let talks = async |_: Step, ctx: Context| {
            ctx.progress(0.5, "half of it");
            ctx.log(LogLevel::Warn, "skipped a row", json!({"row": 17}));
            Ok::<_, JobError>(())
        };
        let system = at_noon(|worker| worker.handle(talks)).await;
        let id = system.client().enqueue(Step { left: 0 }).await.unwrap();
        system.drain().await.unwrap();
        let steps = system.jobs::<Step>().await.unwrap();
        assert_eq!(steps.only().progress.as_ref().unwrap().message, "half of it");
        assert_eq!(system.client().logs(id, None, 10).await.unwrap()[0].message, "skipped a row");
    }
}

#[tokio::test]
async fn older_payloads_are_read_in_the_newest_form() {
    let system = at_noon(|worker| worker.handle(async |job: Renamed| Ok::<_, JobError>(job.new_name))).await;
    system.client().enqueue(BeforeRenaming { old_name: 3 }).await.unwrap();
    system.drain().await.unwrap();
    let jobs = system.jobs::<Renamed>().await.unwrap();
    let job = jobs.assert_enqueued(&Renamed { new_name: 3 });
    assert_eq!((job.result::<u32>(), job.version), (3, 1));
    let error = system.jobs::<BeforeRenaming>().await.map(drop);
    error.unwrap();
    system.client().enqueue(Renamed { new_name: 4 }).await.unwrap();
    let error = system.jobs::<BeforeRenaming>().await.unwrap_err();
    assert!(matches!(error, TestError::Payload { kind: "renamed", .. }), "{error}");
    assert!(error.to_string().contains("old_name"), "{error}");
}

#[tokio::test]
async fn assertions_fail_and_say_why() {
    let panics = async |step: Step| {
        assert!(step.left != 2, "two is too many");
        Ok::<_, JobError>(step.left)
    };
    let system = at_noon(|worker| worker.handle(panics)).await;
    let none = system.jobs::<Step>().await.unwrap();
    none.assert_none();
    assert_eq!(said(|| none.only()), "expected one step, and there are none");
    assert!(said(|| none.assert_succeeded()).ends_with("there are none"));
    for left in [1, 2] {
        system.client().enqueue(Step { left }).max_attempts(1).await.unwrap();
    }
    system.drain().await.unwrap();
    let steps = system.jobs::<Step>().await.unwrap();
    let (first, second) = (steps[0].id, steps[1].id);
    let there = format!(
        "there are 2:\n  step {first}, succeeded after 1 of 1 attempts with {{\"left\":1}}\n  \
         step {second}, dead after 1 of 1 attempts (attempt 1: the handler panicked: two is too many) with {{\"left\":2}}"
    );
    assert_eq!(said(|| steps.only()), format!("expected one step, and {there}"));
    assert_eq!(said(|| steps.assert_none()), format!("expected no step, and {there}"));
    assert_eq!(said(|| steps.assert_succeeded()), format!("not every step has succeeded; {there}"));
    let missing = said(|| steps.assert_enqueued(&Step { left: 3 }));
    assert_eq!(missing, format!("no step {{\"left\":3}} was enqueued; {there}"));
    let wrong = said(|| steps[1].assert_state(JobState::Succeeded));
    assert!(
        wrong.starts_with("expected step to be succeeded") && wrong.contains("two is too many"),
        "{wrong}"
    );
    assert_eq!(said(|| steps[1].result::<u32>()), wrong);
    let result = said(|| steps[0].result::<String>());
    assert!(result.starts_with(&format!("the result of step {first} is 1: invalid type")), "{result}");
}

#[tokio::test]
async fn a_worker_that_cannot_run_is_refused() {
    let asks = async |_: Step, state: State<u64>| Ok::<_, JobError>(*state);
    let error = TestSystem::start(|worker| worker.handle(asks)).await.unwrap_err();
    assert!(matches!(error, TestError::Worker(WorkerError::MissingState { .. })), "{error}");
    let error = TestSystem::start(|worker| worker.handle(done).handle(done)).await.unwrap_err();
    assert!(error.to_string().contains("two handlers are for the kind step"), "{error}");
}

#[tokio::test]
async fn what_never_ends_is_named() {
    let stuck = async |_: Step| std::future::pending::<Result<(), JobError>>().await;
    let again = async |_: Flaky, ctx: Context| {
        ctx.client().enqueue(Flaky {}).await?;
        Ok::<_, JobError>(())
    };
    let short = Duration::from_millis(300);
    let system = at_noon(|worker| worker.handle(stuck)).await.patience(short);
    let id = system.client().enqueue(Step { left: 0 }).await.unwrap();
    let error = system.drain().await.unwrap_err().to_string();
    let expected = format!("step {id}, running after 1 of 20 attempts");
    assert!(error.contains("1 jobs are at work") && error.contains(&expected), "{error}");
    drop(system);

    let system = at_noon(|worker| worker.handle(again)).await.patience(short);
    system.client().enqueue(Flaky {}).await.unwrap();
    assert!(matches!(system.drain().await, Err(TestError::Restless(_))));
    let filter = JobFilter { states: vec![JobState::Succeeded], ..JobFilter::default() };
    assert!(system.client().jobs(&filter, None, 10).await.unwrap().jobs.len() > 1);
}
