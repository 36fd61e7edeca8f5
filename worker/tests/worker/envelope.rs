//! What the store keeps of payloads and results, and what handlers and clients see.

use std::time::Duration;

use windlass_client::{Client, ClientOptions, EncryptionKey, Envelope};
use windlass_core::{Job, JobId, OnConflict, Schedule, State as JobState, Store as _, Unique};
use windlass_worker::{Context, JobError, Worker};

use crate::support::{Bench, Task, options, run, until};

pub fn key(name: &str) -> EncryptionKey {
    format!("{name}:BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").parse().unwrap()
}

impl Bench {
    /// Another process on the same store and broker, with these keys.
    fn with_keys(&self, keys: &[&str]) -> Client {
        let envelope = Envelope::new(keys.iter().map(|name| key(name)).collect(), 100);
        Client::with_envelope(self.store.clone(), self.broker.clone(), ClientOptions::default(), envelope)
    }

    async fn stored_result(&self, id: JobId) -> String {
        self.store.get(&[id]).await.unwrap()[0].result.as_ref().unwrap().get().to_owned()
    }
}

async fn echoes(task: Task, ctx: Context) -> Result<String, JobError> {
    let before: Option<String> = ctx.last_checkpoint().await?;
    if before.is_none() {
        ctx.checkpoint("hunter2").await?;
        return Err(JobError::retry("once more"));
    }
    Ok(format!("hunter2 {} {before:?}", task.number))
}

/// Keys are replaced one process after another, and nothing in the store is in clear.
#[tokio::test]
async fn encrypted_jobs_run_while_keys_rotate() {
    let bench = Bench::new().await;
    let plain = bench.task(1).await;
    let old = bench.with_keys(&["old"]);
    let first = old.enqueue(Task { number: 2 }).await.unwrap();
    let new = bench.with_keys(&["new", "old"]);
    let running = run(Worker::new(new.clone(), options()).handle(echoes));
    for (id, number) in [(plain, 1), (first, 2)] {
        bench.succeeds_sealed(id).await;
        let expected = format!("\"hunter2 {number} Some(\\\"hunter2\\\")\"");
        assert_eq!(new.get(id).await.unwrap().unwrap().result.unwrap().get(), expected);
        let stored = bench.stored_result(id).await;
        assert!(stored.contains("\"new\"") && !stored.contains("hunter2"), "{stored}");
        let kept = bench.store.notes().last_checkpoint(id).await.unwrap().unwrap();
        assert!(!kept.get().contains("hunter2"), "{kept}");
    }
    // A process without the key cannot tell, and says which one it lacks.
    let error = old.get(first).await.unwrap_err().to_string();
    assert!(error.contains("key new") && error.contains("encryption_keys"), "{error}");
    running.stop().await;
}

impl Bench {
    async fn succeeds_sealed(&self, id: JobId) {
        until("the job succeeds", async || {
            self.store.get(&[id]).await.unwrap()[0].state == JobState::Succeeded
        })
        .await;
    }
}

#[tokio::test]
async fn a_payload_under_a_missing_key_fails_with_its_name() {
    let bench = Bench::new().await;
    let mut job = windlass_core::NewJob::new(
        "test.task".parse().unwrap(),
        serde_json::value::to_raw_value(&Task { number: 1 }).unwrap(),
    );
    job.max_attempts = 1;
    let id = job.id;
    bench.with_keys(&["lost"]).accept(job).await.unwrap();
    let running = run(bench.worker().handle(echoes));
    let job = bench.reaches(id, JobState::Dead).await;
    assert!(job.errors[0].message.contains("key lost"), "{:?}", job.errors);
    running.stop().await;
}

/// Its number and the results of its parents, added up.
async fn adds(task: Task, ctx: Context) -> Result<u32, JobError> {
    let mut sum = task.number;
    for parent in ctx.parents().await? {
        sum += parent.result::<u32>()?;
    }
    Ok(sum)
}

#[tokio::test]
async fn a_payload_that_replaces_another_jobs_can_be_read() {
    let bench = Bench::new().await;
    let client = bench.with_keys(&["only"]);
    let mut ids = Vec::new();
    for number in [1, 2] {
        let rule = Unique::by_key("one").unwrap().on_conflict(OnConflict::Replace);
        ids.push(client.enqueue(Task { number }).unique(rule).await.unwrap());
    }
    assert_eq!(ids[0], ids[1]);
    let running = run(Worker::new(client.clone(), options()).handle(adds));
    bench.succeeds_sealed(ids[0]).await;
    assert_eq!(client.get(ids[0]).await.unwrap().unwrap().result.unwrap().get(), "2");
    running.stop().await;
}

#[tokio::test]
async fn workflows_are_sealed_and_children_read_their_parents() {
    let bench = Bench::new().await;
    let client = bench.with_keys(&["only"]);
    let workflow = client.workflow("sums").job("a", Task { number: 1 }).then("b", Task { number: 10 });
    let id = workflow.await.unwrap();
    let running = run(Worker::new(client.clone(), options()).handle(adds));
    let jobs = client.workflow_jobs(id, None, 10).await.unwrap();
    bench.succeeds_sealed(jobs[1].job.id).await;
    let jobs = client.workflow_jobs(id, None, 10).await.unwrap();
    let results: Vec<_> = jobs.iter().map(|job| job.job.result.as_ref().unwrap().get().to_owned()).collect();
    assert_eq!(results, ["1", "11"]);
    assert!(bench.stored_result(jobs[1].job.id).await.contains("\"only\""));
    running.stop().await;
}

/// The fields that tell jobs apart are not to be seen in what is encrypted.
#[tokio::test]
async fn encrypted_jobs_are_unique_by_their_fields() {
    let bench = Bench::new().await;
    let client = bench.with_keys(&["only"]);
    let mut ids = Vec::new();
    for number in [1, 2, 1] {
        let rule = Unique::by_fields(["/number"]).unwrap();
        ids.push(client.enqueue(Task { number }).unique(rule).await.unwrap());
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0], ids[2]);
    // Also for a process that does not encrypt yet.
    let plain = bench.with_keys(&[]);
    let rule = Unique::by_fields(["/number"]).unwrap();
    assert_eq!(plain.enqueue(Task { number: 1 }).unique(rule).await.unwrap(), ids[0]);
}

/// A payload whose results go at once.
#[derive(serde::Serialize, serde::Deserialize)]
pub struct Brief {}

impl Job for Brief {
    const KIND: &'static str = "test.brief";
    const RESULT_TTL: Option<Duration> = Some(Duration::ZERO);
}

pub async fn brief(_: Brief) -> Result<u32, JobError> {
    Ok(1)
}

#[tokio::test]
async fn a_kinds_results_are_kept_as_long_as_it_says() {
    let bench = Bench::new().await;
    let envelope = Envelope::default().result_ttl(Some(Duration::from_secs(3600)));
    let client =
        Client::with_envelope(bench.store.clone(), bench.broker.clone(), ClientOptions::default(), envelope);
    let running = run(Worker::new(client.clone(), options()).handle(brief).handle(adds));
    let (gone, kept) = (client.enqueue(Brief {}).await.unwrap(), bench.task(2).await);
    assert!(bench.succeeds(gone).await.result.is_none());
    assert!(bench.succeeds(kept).await.result.is_some());
    running.stop().await;
}

/// A tick's job gets what the schedule has, since the store that makes it has no keys.
#[tokio::test]
async fn payloads_of_schedules_are_encrypted() {
    let bench = Bench::new().await;
    let client = bench.with_keys(&["only"]);
    let (said, mut heard) = tokio::sync::mpsc::channel(100);
    let handler = move |task: Task| {
        let said = said.clone();
        async move { Ok::<_, JobError>(said.send(task.number).await?) }
    };
    let schedule = Schedule::every(Duration::from_secs(1)).unwrap();
    let running =
        run(Worker::new(client.clone(), options()).handle(handler).schedule(schedule, Task { number: 4711 }));
    assert_eq!(heard.recv().await, Some(4711));
    running.stop().await;
    let kept = bench.store.timetable().schedules().await.unwrap();
    let payload = kept[0].definition.job.payload.get();
    assert!(payload.contains("\"only\"") && !payload.contains("4711"), "{payload}");
    assert_eq!(client.schedules().await.unwrap()[0].definition.job.payload.get(), "{\"number\":4711}");
    let error = bench.client.schedules().await.unwrap_err().to_string();
    assert!(error.contains("key only"), "{error}");
}

async fn returns_much(task: Task) -> Result<String, JobError> {
    Ok("x".repeat(task.number as usize))
}

/// It is not tried again, nothing is truncated, and the error says what to do.
#[tokio::test]
async fn a_result_that_is_too_large_makes_the_job_dead() {
    let bench = Bench::new().await;
    let running = run(Worker::new(bench.with_keys(&[]), options()).handle(returns_much));
    let (fits, large) = (bench.task(98).await, bench.task(99).await);
    assert_eq!(bench.succeeds(fits).await.result.unwrap().get().len(), 100);
    let job = bench.reaches(large, JobState::Dead).await;
    assert_eq!((job.attempt, job.result.is_none()), (1, true));
    let message = &job.errors[0].message;
    assert!(message.contains("101 bytes") && message.contains("result_max"), "{message}");
    running.stop().await;
}
