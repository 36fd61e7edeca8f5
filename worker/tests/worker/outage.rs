//! A store that fails as a network can make it fail: before the call, or after its commit.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, Finish, HeartbeatReply, Inserted, JobId, JobNotes, JobRecord, Keys,
    KindInfo, NewJob, NewWorker, Operations, OutboxGroup, OutboxId, Rescued, Store, StoreError, Timetable,
    WorkerId, Workflows,
};

/// Passes everything on to a real store, and fails as told.
#[derive(Debug)]
pub struct Faulty {
    store: Arc<dyn Store>,
    /// Every heartbeat fails without reaching the store.
    pub heartbeats_fail: AtomicBool,
    /// Every finish fails without reaching the store.
    pub finishes_fail: AtomicBool,
    failed_finishes: AtomicUsize,
    /// So many claims will commit, and then their answers are lost.
    pub claims_to_lose: AtomicUsize,
    /// The same for finishes.
    pub finishes_to_lose: AtomicUsize,
    /// The worker that registered last.
    worker: std::sync::Mutex<Option<WorkerId>>,
    registered: AtomicUsize,
}

impl Faulty {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            heartbeats_fail: AtomicBool::default(),
            finishes_fail: AtomicBool::default(),
            failed_finishes: AtomicUsize::default(),
            claims_to_lose: AtomicUsize::default(),
            finishes_to_lose: AtomicUsize::default(),
            worker: std::sync::Mutex::default(),
            registered: AtomicUsize::default(),
        }
    }

    /// The worker that registered last.
    pub fn worker(&self) -> WorkerId {
        self.worker.lock().unwrap().expect("a worker has registered")
    }

    /// How many workers have registered.
    pub fn registered(&self) -> usize {
        self.registered.load(Ordering::SeqCst)
    }

    /// How many finishes have failed without reaching the store.
    pub fn failed_finishes(&self) -> usize {
        self.failed_finishes.load(Ordering::SeqCst)
    }
}

pub fn set(fault: &AtomicBool, on: bool) {
    fault.store(on, Ordering::SeqCst);
}

fn lost() -> StoreError {
    StoreError::Unavailable("the connection was lost".into())
}

fn fail_if(fault: &AtomicBool) -> Result<(), StoreError> {
    if fault.load(Ordering::SeqCst) { Err(lost()) } else { Ok(()) }
}

/// The answer, unless it is one of those to be lost.
fn lose<T>(left: &AtomicUsize, answer: T) -> Result<T, StoreError> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(lost()),
        Err(_) => Ok(answer),
    }
}

#[async_trait]
impl Store for Faulty {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        self.store.insert(jobs).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        self.store.get(ids).await
    }

    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
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
        let claimed = self.store.claim(worker, claim, ids).await?;
        lose(&self.claims_to_lose, claimed)
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        fail_if(&self.finishes_fail).inspect_err(|_| {
            self.failed_finishes.fetch_add(1, Ordering::SeqCst);
        })?;
        let finished = self.store.finish(worker, finishes, closed).await?;
        lose(&self.finishes_to_lose, finished)
    }

    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError> {
        self.store.register(worker).await?;
        *self.worker.lock().unwrap() = Some(worker.id);
        self.registered.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        fail_if(&self.heartbeats_fail)?;
        self.store.heartbeat(worker).await
    }

    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.store.deregister(worker).await
    }

    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError> {
        self.store.rescue(crash_limit).await
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError> {
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
        self.store.as_any()
    }
}
