//! A store and a broker that fail on request.

use std::{
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use windlass_core::{
    Broker, BrokerError, CancelOutcome, Capabilities, ClaimId, ClaimedJob, Finish, HeartbeatReply, Inserted,
    JobId, JobNotes, JobRecord, Keys, KindInfo, Lane, Message, NewJob, NewWorker, Operations, OutboxGroup,
    OutboxId, Priorities, Rescued, Store, StoreError, Subscription, Timetable, WorkerId, Workflows,
};
use windlass_store::SqliteStore;

/// How the store fails.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Unavailable,
    Timeout,
    Config,
    Unexpected,
    Panic,
    /// Waits for the token, then works.
    Until(CancellationToken),
}

/// What the errors hold and no client may see.
pub(crate) const SECRET: &str = "hunter2";

/// The SQLite store; what the API calls fails as long as a fault is set.
#[derive(Debug, Clone)]
pub(crate) struct FaultyStore {
    store: SqliteStore,
    fault: Arc<Mutex<Option<Fault>>>,
    gets: Arc<AtomicUsize>,
}

impl FaultyStore {
    pub(crate) fn new(store: SqliteStore, fault: Arc<Mutex<Option<Fault>>>) -> Self {
        Self { store, fault, gets: Arc::default() }
    }

    /// How often jobs were read.
    pub(crate) fn gets(&self) -> Arc<AtomicUsize> {
        self.gets.clone()
    }

    async fn fail(&self) -> Result<(), StoreError> {
        let fault = self.fault.lock().unwrap().clone();
        match fault {
            None => Ok(()),
            Some(Fault::Unavailable) => Err(StoreError::Unavailable(SECRET.into())),
            Some(Fault::Timeout) => Err(StoreError::Timeout(Duration::from_secs(10))),
            Some(Fault::Config) => {
                Err(StoreError::Config { problem: SECRET.into(), remedy: "mend it".into() })
            }
            Some(Fault::Unexpected) => Err(StoreError::Unexpected(SECRET.into())),
            Some(Fault::Panic) => panic!("{SECRET}"),
            Some(Fault::Until(token)) => {
                token.cancelled().await;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.fail().await?;
        self.store.ping().await
    }

    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        self.fail().await?;
        self.store.insert(jobs).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.fail().await?;
        self.store.get(ids).await
    }

    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        self.fail().await?;
        self.store.cancel(id).await
    }

    async fn outbox_take(&self, limit: usize) -> Result<Vec<OutboxGroup>, StoreError> {
        self.store.outbox_take(limit).await
    }

    async fn outbox_published(&self, groups: &[OutboxId], verify_after: Duration) -> Result<(), StoreError> {
        self.store.outbox_published(groups, verify_after).await
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        self.store.claim(worker, claim, ids).await
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        self.store.finish(worker, finishes, closed).await
    }

    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError> {
        self.store.register(worker).await
    }

    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        self.store.heartbeat(worker).await
    }

    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.store.deregister(worker).await
    }

    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError> {
        self.store.rescue(crash_limit).await
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError> {
        self.fail().await?;
        self.store.kinds().await
    }

    async fn lead(&self, name: &str, holder: WorkerId, ttl: Duration) -> Result<bool, StoreError> {
        self.store.lead(name, holder, ttl).await
    }

    async fn promote_due(&self, limit: usize) -> Result<usize, StoreError> {
        self.store.promote_due(limit).await
    }

    async fn follow_up(&self, limit: usize) -> Result<usize, StoreError> {
        self.store.follow_up(limit).await
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        self.store.maintain().await
    }

    fn notes(&self) -> &dyn JobNotes {
        self.store.notes()
    }

    fn operations(&self) -> &dyn Operations {
        self.store.operations()
    }

    fn keys(&self) -> &dyn Keys {
        self.store.keys()
    }

    fn timetable(&self) -> &dyn Timetable {
        self.store.timetable()
    }

    fn workflows(&self) -> &dyn Workflows {
        self.store.workflows()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A broker that cannot be reached.
#[derive(Debug)]
pub(crate) struct DownBroker;

fn down() -> BrokerError {
    BrokerError::Unavailable(SECRET.into())
}

#[async_trait]
impl Broker for DownBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: false, depth: false, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        messages.iter().map(|_| Err(down())).collect()
    }

    async fn subscribe(
        &self,
        _: &[Lane],
        _: usize,
        _: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        Err(down())
    }

    async fn depth(&self, _: &Lane) -> Result<Option<u64>, BrokerError> {
        Err(down())
    }

    async fn delete(&self, _: &[Lane]) -> Result<(), BrokerError> {
        Err(down())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Err(down())
    }

    async fn close(&self) {}
}
