//! Large payloads and results outside of the store, in a folder and in a bucket.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use windlass_client::{Client, ClientError, ClientOptions, Envelope, EnvelopeError, Objects, ObjectsError};
use windlass_core::{
    Broker, Job, JobId, JobRecord, OnConflict, RetryPolicy, State as JobState, Store, Timestamp, Unique,
};
use windlass_worker::{Context, JobError, Worker};

use crate::{
    envelope::key,
    support::{Bench, options, run, until},
};

/// Whatever is longer leaves the row.
const ABOVE: usize = 500;
const LARGE: usize = 20_000;

#[derive(Debug, Serialize, Deserialize)]
pub struct Bulk {
    text: String,
}

impl Job for Bulk {
    const KIND: &'static str = "test.bulk";
    const RETRY: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(1));
}

pub fn bulk(of: char, size: usize) -> Bulk {
    Bulk { text: of.to_string().repeat(size) }
}

/// Returns as much as it was given, in other letters.
async fn answers(job: Bulk, _: Context) -> Result<String, JobError> {
    Ok(job.text.replace('a', "b"))
}

/// A client with an object store, and what lies behind that.
struct Apart {
    client: Client,
    objects: Objects,
    store: Arc<dyn Store>,
}

impl Apart {
    fn new(store: Arc<dyn Store>, broker: Arc<dyn Broker>, objects: Objects, keys: &[&str]) -> Self {
        let envelope = Envelope::new(keys.iter().map(|name| key(name)).collect(), 1_000_000);
        let envelope = envelope.objects(Some(objects.clone()));
        let client = Client::with_envelope(store.clone(), broker, ClientOptions::default(), envelope);
        Self { client, objects, store }
    }

    fn worker(&self) -> Worker {
        Worker::new(self.client.clone(), options())
    }

    async fn stored(&self, id: JobId) -> JobRecord {
        self.store.get(&[id]).await.unwrap().pop().unwrap()
    }

    async fn ends(&self, id: JobId) -> JobRecord {
        until("the job ends", async || self.stored(id).await.state.is_terminal()).await;
        self.stored(id).await
    }

    async fn result(&self, id: JobId) -> String {
        let record = self.client.get(id).await.unwrap().unwrap();
        serde_json::from_str(record.result.unwrap().get()).unwrap()
    }

    async fn sweep(&self, days: i64) -> usize {
        let now = chrono::Utc::now() + chrono::TimeDelta::days(days);
        self.objects.sweep(&*self.store, now, true).await.unwrap()
    }

    /// Small and large jobs, from the enqueue to the poll of the result.
    async fn works(&self) {
        let running = run(self.worker().handle(answers));
        let small = self.client.enqueue(bulk('a', 10)).await.unwrap();
        let large = self.client.enqueue(bulk('a', LARGE)).await.unwrap();
        let stored = self.ends(small).await;
        assert!(!stored.result.unwrap().get().contains("object"));
        assert_eq!(self.result(small).await, "b".repeat(10));
        let stored = self.ends(large).await;
        let reference = stored.result.unwrap();
        assert!(reference.get().starts_with("{\"$windlass\":{\"object\":") && reference.get().len() < 200);
        assert_eq!(self.result(large).await, "b".repeat(LARGE));
        running.stop().await;
    }
}

/// A bench with a folder for objects.
struct Folder {
    bench: Bench,
    folder: TempDir,
    apart: Apart,
}

impl Folder {
    async fn new(keys: &[&str]) -> Self {
        let (bench, folder) = (Bench::new().await, tempfile::tempdir().unwrap());
        let apart = Apart::new(bench.store.clone(), bench.broker.clone(), in_folder(&folder), keys);
        Self { bench, folder, apart }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("objects")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut folders = vec![self.root()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.files().iter().map(|file| file.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        names.sort_unstable();
        names
    }

    /// As long as the answer is not given back, the object store does not work.
    fn outage(&self) -> Outage {
        let (root, away) = (self.root(), self.folder.path().join("away"));
        std::fs::rename(&root, &away).unwrap();
        std::fs::write(&root, "in the way").unwrap();
        Outage { root, away }
    }
}

struct Outage {
    root: PathBuf,
    away: PathBuf,
}

impl Outage {
    fn end(self) {
        std::fs::remove_file(&self.root).unwrap();
        std::fs::rename(&self.away, &self.root).unwrap();
    }
}

fn in_folder(folder: &TempDir) -> Objects {
    let url = format!("file://{}", folder.path().join("objects").display());
    Objects::open(&url, ABOVE, Duration::from_secs(5)).unwrap()
}

#[tokio::test]
async fn large_payloads_and_results_lie_in_a_folder() {
    let folder = Folder::new(&[]).await;
    folder.apart.works().await;
    let large = folder.files();
    assert_eq!(large.len(), 2, "one payload, one result: {large:?}");
    let mut texts = large.iter().map(|file| std::fs::read_to_string(file).unwrap());
    assert!(texts.any(|text| text == serde_json::to_string(&bulk('a', LARGE)).unwrap()));
}

#[tokio::test]
async fn objects_are_encrypted_as_rows_are() {
    let folder = Folder::new(&["only"]).await;
    folder.apart.works().await;
    let files = folder.files();
    assert_eq!(files.len(), 2);
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.contains("\"only\"") && !text.contains("aaaa") && !text.contains("bbbb"));
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn they_do_on_postgres_also_in_the_handlers_own_transaction() {
    let database = crate::transaction::Database::new().await;
    for keys in [&[][..], &["only"]] {
        let folder = tempfile::tempdir().unwrap();
        // The same one, since all clients of a store relay.
        let broker = database.client.broker().clone();
        let apart = Apart::new(database.store.clone(), broker, in_folder(&folder), keys);
        apart.works().await;
        let running = run(apart.worker().handle(|job: Bulk, ctx: Context| async move {
            ctx.transaction().await?.complete(job.text.replace('a', "c")).await
        }));
        let mut transaction = database.pool.begin().await.unwrap();
        let id = apart.client.enqueue_in(&mut transaction, bulk('a', LARGE)).await.unwrap();
        transaction.commit().await.unwrap();
        assert!(apart.ends(id).await.result.unwrap().get().contains("\"object\""));
        assert_eq!(apart.result(id).await, "c".repeat(LARGE));
        running.stop().await;
    }
    database.clean_up().await;
}

/// Its length and the lengths of its parents' results, added up, as text.
async fn adds(job: Bulk, ctx: Context) -> Result<String, JobError> {
    let mut text = job.text;
    for parent in ctx.parents().await? {
        text += &parent.result::<String>()?;
    }
    Ok(text)
}

#[tokio::test]
async fn workflows_hand_on_large_results() {
    let folder = Folder::new(&["only"]).await;
    let client = &folder.apart.client;
    let workflow = client.workflow("w").job("a", bulk('a', LARGE)).then("b", bulk('b', 600));
    let id = workflow.await.unwrap();
    let jobs = client.workflow_jobs(id, None, 10).await.unwrap();
    let running = run(folder.apart.worker().handle(adds));
    folder.apart.ends(jobs[1].job.id).await;
    assert_eq!(folder.apart.result(jobs[1].job.id).await.len(), LARGE + 600);
    assert_eq!(folder.files().len(), 4);
    running.stop().await;
}

/// The fields that make a job unique lie elsewhere, and a payload that may become another job's stays in its row.
#[tokio::test]
async fn large_jobs_are_unique_by_their_fields() {
    let folder = Folder::new(&[]).await;
    let client = &folder.apart.client;
    let by_text = || Unique::by_fields(["/text"]).unwrap();
    let first = client.enqueue(bulk('a', LARGE)).unique(by_text()).await.unwrap();
    let other = client.enqueue(bulk('c', LARGE)).unique(by_text()).await.unwrap();
    let same = client.enqueue(bulk('a', LARGE)).unique(by_text()).await.unwrap();
    assert!(first != other && first == same);
    let one = || Unique::by_key("one").unwrap().on_conflict(OnConflict::Replace);
    let files = folder.files().len();
    let replaced = client.enqueue(bulk('a', LARGE)).unique(one()).await.unwrap();
    assert_eq!(client.enqueue(bulk('d', LARGE)).unique(one()).await.unwrap(), replaced);
    assert_eq!(folder.files().len(), files);
    let running = run(folder.apart.worker().handle(answers));
    folder.apart.ends(replaced).await;
    assert_eq!(folder.apart.result(replaced).await, "d".repeat(LARGE));
    running.stop().await;
}

/// The same request again is the same, wherever its payload is kept.
#[tokio::test]
async fn large_jobs_are_enqueued_once_under_a_key() {
    let folder = Folder::new(&["only"]).await;
    let enqueue = |of| folder.apart.client.enqueue(bulk(of, LARGE)).idempotency_key("k");
    let first = enqueue('a').await.unwrap();
    assert_eq!(enqueue('a').await.unwrap(), first);
    assert!(matches!(enqueue('b').await, Err(ClientError::KeyReused)));
}

#[tokio::test]
async fn without_the_object_store_nothing_is_accepted() {
    let folder = Folder::new(&[]).await;
    let outage = folder.outage();
    let error = folder.apart.client.enqueue(bulk('a', LARGE)).await.unwrap_err();
    assert!(error.retryable() && error.to_string().contains("objects_url"), "{error}");
    let workflow = folder.apart.client.workflow("w").job("a", bulk('a', LARGE));
    assert!(workflow.await.unwrap_err().retryable());
    folder.apart.client.enqueue(bulk('a', 10)).await.unwrap();
    assert!(folder.apart.client.check_objects().await.unwrap_err().to_string().contains("objects_url"));
    outage.end();
    folder.apart.client.check_objects().await.unwrap();
    assert_eq!(folder.files().len(), 0);
}

/// Neither the outage before the attempt nor that after it costs the job anything.
#[tokio::test]
async fn an_outage_of_the_object_store_is_waited_out() {
    let folder = Folder::new(&[]).await;
    let id = folder.apart.client.enqueue(bulk('a', LARGE)).max_attempts(1).await.unwrap();
    let outage = folder.outage();
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let (go, going) = tokio::sync::watch::channel(false);
    let running = run(folder.apart.worker().handle(move |job: Bulk| {
        let (begun, mut going) = (begun.clone(), going.clone());
        async move {
            begun.send(()).await?;
            going.wait_for(|go| *go).await?;
            Ok::<_, JobError>(job.text)
        }
    }));
    until("the job is put off", async || folder.apart.stored(id).await.state == JobState::Scheduled).await;
    assert_eq!(folder.apart.stored(id).await.attempt, 0);
    outage.end();
    begins.recv().await.unwrap();
    let outage = folder.outage();
    go.send(true).unwrap();
    // Meanwhile others go on.
    let other = folder.bench.client.enqueue(bulk('a', 10)).await.unwrap();
    folder.bench.succeeds(other).await;
    assert_eq!(folder.apart.stored(id).await.state, JobState::Running);
    outage.end();
    let job = folder.apart.ends(id).await;
    assert_eq!((job.state, job.attempt, job.errors.len()), (JobState::Succeeded, 1, 0));
    assert_eq!(folder.apart.result(id).await.len(), LARGE);
    running.stop().await;
}

/// It does not hold up the end for ever, and the job runs again.
#[tokio::test]
async fn a_worker_that_ends_in_an_outage_leaves_a_failed_attempt() {
    let folder = Folder::new(&[]).await;
    let id = folder.apart.client.enqueue(bulk('a', 10)).await.unwrap();
    let outage = folder.outage();
    let (done, mut ends) = tokio::sync::mpsc::channel(1);
    let mut options = options();
    options.grace = Duration::from_millis(100);
    let worker = Worker::new(folder.apart.client.clone(), options);
    let running = run(worker.handle(move |_: Bulk| {
        let done = done.clone();
        async move {
            done.send(()).await?;
            Ok::<_, JobError>("x".repeat(LARGE))
        }
    }));
    ends.recv().await.unwrap();
    running.stop().await;
    let job = folder.apart.stored(id).await;
    assert!(matches!(job.state, JobState::Retrying | JobState::Queued), "{job:?}");
    assert!(job.errors[0].message.contains("objects_url"), "{:?}", job.errors);
    folder.bench.nothing_is_left().await;
    outage.end();
    let running = run(folder.apart.worker().handle(answers));
    folder.apart.ends(id).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_said_with_the_setting() {
    let folder = Folder::new(&[]).await;
    let lost = folder.apart.client.enqueue(bulk('a', LARGE)).max_attempts(1).await.unwrap();
    std::fs::remove_file(&folder.files()[0]).unwrap();
    let running = run(folder.apart.worker().handle(answers));
    let job = folder.apart.ends(lost).await;
    let message = &job.errors[0].message;
    assert!(message.contains(&format!("{lost}.payload")) && message.contains("not there"), "{message}");
    let kept = folder.apart.client.enqueue(bulk('a', LARGE)).await.unwrap();
    folder.apart.ends(kept).await;
    // One without the setting can neither run such a job nor show its result, and does not lose it.
    let error = folder.bench.client.get(kept).await.unwrap_err();
    let not_set = |error: &ClientError| {
        matches!(error, ClientError::Envelope(EnvelopeError::Objects(ObjectsError::NotSet(_))))
    };
    assert!(not_set(&error) && error.to_string().contains("objects_url"), "{error}");
    running.stop().await;
    let id = folder.apart.client.enqueue(bulk('a', LARGE)).await.unwrap();
    let running = run(folder.bench.worker().handle(answers));
    until("it fails there", async || !folder.apart.stored(id).await.errors.is_empty()).await;
    assert!(folder.apart.stored(id).await.errors[0].message.contains("objects_url is not set"));
    running.stop().await;
    let running = run(folder.apart.worker().handle(answers));
    assert_eq!(folder.apart.ends(id).await.state, JobState::Succeeded);
    running.stop().await;
}

#[tokio::test]
async fn objects_go_with_their_jobs() {
    let folder = Folder::new(&[]).await;
    let Apart { client, store, .. } = &folder.apart;
    let running = run(folder.apart.worker().handle(answers));
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let id = client.enqueue(bulk('a', LARGE)).await.unwrap();
        folder.apart.ends(id).await;
        jobs.push(id);
    }
    running.stop().await;
    let waits = client.enqueue(bulk('a', LARGE)).delay(Duration::from_secs(9_000_000)).await.unwrap();
    // Written for a job that was then not stored, since another had its key.
    let refused = client.enqueue(bulk('a', LARGE)).unique(Unique::by_key("k").unwrap());
    let held = client.enqueue(bulk('a', 10)).unique(Unique::by_key("k").unwrap()).await.unwrap();
    assert_eq!(refused.await.unwrap(), held);
    assert_eq!(folder.files().len(), 8);
    // Whoever deletes a job deletes its objects.
    client.delete(&jobs[..1], &[JobState::Succeeded]).await.unwrap();
    assert_eq!(folder.files().len(), 6);
    // What goes otherwise, such as by retention, leaves them to the sweep, as do retries the results before.
    store.operations().delete(&jobs[1..2], &[JobState::Succeeded]).await.unwrap();
    client.retry(&jobs[2..], &[JobState::Succeeded]).await.unwrap();
    let running = run(folder.apart.worker().handle(answers));
    folder.apart.ends(jobs[2]).await;
    running.stop().await;
    assert_eq!(folder.apart.sweep(0).await, 0, "they are too young to tell");
    assert_eq!(folder.apart.sweep(2).await, 4);
    let left = [format!("{}.payload", jobs[2]), format!("{}.result.2", jobs[2]), format!("{waits}.payload")];
    assert_eq!(folder.names(), left);
    assert_eq!(folder.apart.sweep(2).await, 0);
    assert_eq!(folder.apart.result(jobs[2]).await.len(), LARGE);
}

/// A result whose end is known goes then, and not with its job.
#[tokio::test]
async fn results_past_their_time_go_by_the_hour() {
    let (bench, folder) = (Bench::new().await, tempfile::tempdir().unwrap());
    let objects = in_folder(&folder);
    let envelope =
        Envelope::default().objects(Some(objects.clone())).result_ttl(Some(Duration::from_secs(7200)));
    let client =
        Client::with_envelope(bench.store.clone(), bench.broker.clone(), ClientOptions::default(), envelope);
    let running = run(Worker::new(client.clone(), options()).handle(answers));
    let id = client.enqueue(bulk('a', LARGE)).await.unwrap();
    until("it succeeds", async || bench.store.get(&[id]).await.unwrap()[0].state == JobState::Succeeded)
        .await;
    running.stop().await;
    let at = chrono::Utc::now();
    let sweep = async |hours: i64| {
        let now: Timestamp = at + chrono::TimeDelta::hours(hours);
        objects.sweep(&*bench.store, now, false).await.unwrap()
    };
    assert_eq!(sweep(2).await, 0);
    assert!(client.get(id).await.unwrap().unwrap().result.is_some());
    assert_eq!(sweep(5).await, 1);
    assert_eq!(sweep(5).await, 0);
}

#[cfg(feature = "s3")]
mod s3 {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// The address of moto, which speaks S3 as well as SQS.
    fn moto() -> String {
        let url = std::env::var("WINDLASS_TEST_MOTO_URL")
            .expect("WINDLASS_TEST_MOTO_URL is not set; run scripts/test, which starts the servers");
        url.split("endpoint=http://").nth(1).unwrap().split('&').next().unwrap().to_owned()
    }

    fn open(bucket: &str) -> Objects {
        let url = format!("s3://{bucket}/some/prefix?region=us-east-1&endpoint=http://{}", moto());
        Objects::open(&url, ABOVE, Duration::from_secs(10)).unwrap()
    }

    async fn make_bucket(name: &str) {
        let mut connection = TcpStream::connect(moto()).await.unwrap();
        let request = format!(
            "PUT /{name} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            moto()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn large_payloads_and_results_lie_in_a_bucket() {
        let name = format!("windlass-{}", JobId::new());
        make_bucket(&name).await;
        for keys in [&[][..], &["only"]] {
            let bench = Bench::new().await;
            let apart = Apart::new(bench.store.clone(), bench.broker.clone(), open(&name), keys);
            apart.client.check_objects().await.unwrap();
            apart.works().await;
            let lost = apart.client.enqueue(bulk('a', LARGE)).await.unwrap();
            apart.client.cancel(lost).await.unwrap();
            bench.store.operations().delete(&[lost], &JobState::TERMINAL).await.unwrap();
            assert_eq!(apart.sweep(0).await, 0);
            assert_eq!(apart.sweep(2).await, 1, "the one that has no job");
            let large = apart.client.enqueue(bulk('a', LARGE)).await.unwrap();
            apart.client.cancel(large).await.unwrap();
            apart.client.delete(&[large], &JobState::TERMINAL).await.unwrap();
            assert_eq!(apart.sweep(2).await, 0, "it went with its job");
            // To another store, what remains is nobody's.
            let empty = Bench::new().await;
            let now = chrono::Utc::now() + chrono::TimeDelta::days(2);
            assert_eq!(apart.objects.sweep(&*empty.store, now, true).await.unwrap(), 2);
        }
    }

    #[tokio::test]
    async fn a_missing_bucket_is_said_in_one_line() {
        let bench = Bench::new().await;
        let objects = open(&format!("windlass-{}", JobId::new()));
        let apart = Apart::new(bench.store.clone(), bench.broker.clone(), objects, &[]);
        for error in [
            apart.client.check_objects().await.unwrap_err(),
            apart.client.enqueue(bulk('a', LARGE)).await.unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("objects_url names a bucket that does not exist; "), "{text}");
            assert!(!text.contains('\n') && !error.retryable(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_waited_for() {
        let bench = Bench::new().await;
        let url = "s3://bucket?region=us-east-1&endpoint=http://127.0.0.1:9";
        let objects = Objects::open(url, ABOVE, Duration::from_secs(5)).unwrap();
        let apart = Apart::new(bench.store.clone(), bench.broker.clone(), objects, &[]);
        apart.client.check_objects().await.unwrap();
        assert!(apart.client.enqueue(bulk('a', LARGE)).await.unwrap_err().retryable());
        let stored = bench.client.dead(&Default::default(), None, 10).await.unwrap();
        assert!(stored.jobs.is_empty());
    }
}
