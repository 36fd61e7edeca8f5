//! A store, a broker, a client, and what it takes to watch a worker on them.

use std::{
    collections::HashSet,
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use windlass_brokers::Memory;
use windlass_client::{Client, ClientOptions, Settings};
use windlass_core::{Broker, Job, JobId, JobRecord, Message, NewJob, Rescued, RetryPolicy, State, Store};
use windlass_store::{SqliteStore, StoreOptions};
use windlass_worker::{Worker, WorkerError, WorkerOptions};

use crate::outage::{FaultyStore, faulty};

/// What no wait in these tests ever takes unless something is wrong.
const DEADLINE: Duration = Duration::from_secs(30);

/// The payload of nearly every test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    pub number: u32,
}

impl Job for Task {
    const KIND: &'static str = "test.task";
    const RETRY: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(1));
}

/// A payload of another kind in the same queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Other {}

impl Job for Other {
    const KIND: &'static str = "test.other";
}

/// One installation: everything ends with it.
pub struct Bench {
    pub store: Arc<FaultyStore>,
    pub broker: Arc<Memory>,
    pub client: Client,
    _folder: TempDir,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(ClientOptions { relay_interval: Duration::from_millis(50), ..ClientOptions::default() })
            .await
    }

    pub async fn with(options: ClientOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
        let store = SqliteStore::open(&url, &StoreOptions::default()).await.unwrap();
        store.migrate().await.unwrap();
        let store = faulty(Arc::new(store));
        let broker = Arc::new(Memory::new());
        let client = Client::new(store.clone(), broker.clone(), options);
        Self { store, broker, client, _folder: folder }
    }

    pub fn worker(&self) -> Worker {
        self.worker_with(options())
    }

    pub fn worker_with(&self, options: WorkerOptions) -> Worker {
        Worker::new(self.client.clone(), options)
    }

    /// Enqueues a task with this number.
    pub async fn task(&self, number: u32) -> JobId {
        self.client.enqueue(Task { number }).await.unwrap()
    }

    pub async fn tasks(&self, count: u32) -> Vec<JobId> {
        futures::future::join_all((0..count).map(|number| self.task(number))).await
    }

    /// Puts a job into the store as an API would, whatever its payload.
    pub async fn accept(&self, job: NewJob) -> JobId {
        let id = job.id;
        self.client.accept(job).await.unwrap();
        id
    }

    pub async fn get(&self, id: JobId) -> JobRecord {
        self.client.get(id).await.unwrap().expect("the job exists")
    }

    /// Waits until the job is in `state`. Fails at once when it ends in another.
    pub async fn reaches(&self, id: JobId, state: State) -> JobRecord {
        let mut last = self.get(id).await;
        until(&format!("job {id} is {state}"), async || {
            last = self.get(id).await;
            assert!(last.state == state || !last.state.is_terminal(), "wanted {state}: {last:?}");
            last.state == state
        })
        .await;
        last
    }

    pub async fn succeeds(&self, id: JobId) -> JobRecord {
        self.reaches(id, State::Succeeded).await
    }

    pub async fn all_succeed(&self, ids: &[JobId]) {
        for id in ids {
            self.succeeds(*id).await;
        }
    }

    /// Publishes messages again, as a broker that repeats itself would.
    pub async fn publish(&self, messages: &[Message]) {
        for answer in self.broker.publish(messages).await {
            answer.unwrap();
        }
    }

    /// After all workers have stopped: none has left anything for a rescue.
    pub async fn nothing_is_left(&self) {
        assert_eq!(self.store.rescue(3).await.unwrap(), Rescued::default());
    }
}

/// Short times, so that the tests are short.
pub fn options() -> WorkerOptions {
    let mut options = WorkerOptions::from(&Settings::default());
    options.concurrency = 8;
    options.buffer = 8;
    options.label = "test".into();
    options.lease = Duration::from_secs(3);
    options.grace = Duration::from_secs(10);
    options
}

/// A worker that runs in the background.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), WorkerError>>,
}

pub fn run(worker: Worker) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(worker.run_until(stop.clone()));
    Running { stop, task }
}

impl Running {
    /// Asks it to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }

    /// Stops it in good order.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.task).await.expect("the worker stops in time");
        ended.expect("the worker does not panic").expect("the worker ends well");
    }

    /// Drops it where it stands.
    pub async fn drop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// Waits for a condition.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, met).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// Waits for something that has to happen.
pub async fn within<T>(what: &str, happens: impl Future<Output = T>) -> T {
    timeout(DEADLINE, happens).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}

/// Notes of handlers, shared between them and the test.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Noted>);

#[derive(Debug, Default)]
struct Noted {
    runs: Mutex<Vec<JobId>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Notes {
    /// A run of this job begins; it ends when the answer is dropped.
    pub fn begin(&self, id: JobId) -> impl Drop + Send + use<> {
        struct Run(Notes);
        impl Drop for Run {
            fn drop(&mut self) {
                self.0.0.at_once.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.0.runs.lock().unwrap().push(id);
        let now = self.0.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_at_once.fetch_max(now, Ordering::SeqCst);
        Run(self.clone())
    }

    pub fn runs(&self) -> usize {
        self.0.runs.lock().unwrap().len()
    }

    pub fn runs_of(&self, id: JobId) -> usize {
        self.0.runs.lock().unwrap().iter().filter(|run| **run == id).count()
    }

    pub fn jobs(&self) -> HashSet<JobId> {
        self.0.runs.lock().unwrap().iter().copied().collect()
    }

    pub fn running(&self) -> usize {
        self.0.at_once.load(Ordering::SeqCst)
    }

    pub fn most_at_once(&self) -> usize {
        self.0.most_at_once.load(Ordering::SeqCst)
    }

    pub async fn until_running(&self, count: usize) {
        until(&format!("{count} handlers run"), async || self.running() == count).await;
    }
}
