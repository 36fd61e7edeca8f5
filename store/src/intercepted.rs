//! A store that a test stands between: to fail calls, to lose their answers, to see what is called.

use std::{any::Any, fmt, future::Future, ops::Deref, sync::Arc, time::Duration};

use async_trait::async_trait;
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, Finish, HeartbeatReply, Inserted, JobId, JobNotes, JobRecord, Keys,
    KindInfo, NewJob, NewWorker, Operations, OutboxGroup, OutboxId, Quotas, Rescued, Store, StoreError,
    Timetable, Webhooks, WorkerId, Workflows,
};

/// Which method of [`Store`] is called, of those that a store may have to stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the methods of the trait")]
pub enum Call {
    Migrate,
    Ping,
    Insert,
    Get,
    Cancel,
    OutboxTake,
    OutboxPublished,
    Claim,
    Finish,
    Register(WorkerId),
    Heartbeat,
    Deregister,
    Rescue,
    Kinds,
    Lead,
    PromoteDue,
    FollowUp,
    Maintain,
}

/// What happens around the calls. An error is the caller's answer.
#[async_trait]
pub trait Intercept: fmt::Debug + Send + Sync + 'static {
    /// Before the store is called; after an error it is not.
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        let _ = call;
        Ok(())
    }

    /// After the store has done it; an error takes the place of its answer.
    async fn after(&self, call: Call) -> Result<(), StoreError> {
        let _ = call;
        Ok(())
    }
}

/// A store behind an [`Intercept`], to which it dereferences.
#[derive(Debug)]
pub struct Intercepted<I> {
    store: Arc<dyn Store>,
    intercept: I,
}

impl<I: Intercept> Intercepted<I> {
    /// Puts `intercept` before `store`.
    pub fn new(store: Arc<dyn Store>, intercept: I) -> Self {
        Self { store, intercept }
    }

    async fn pass<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.intercept.before(call).await?;
        let answer = work.await?;
        self.intercept.after(call).await?;
        Ok(answer)
    }
}

impl<I> Deref for Intercepted<I> {
    type Target = I;

    fn deref(&self) -> &I {
        &self.intercept
    }
}

#[async_trait]
impl<I: Intercept> Store for Intercepted<I> {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.pass(Call::Migrate, self.store.migrate()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pass(Call::Ping, self.store.ping()).await
    }

    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        self.pass(Call::Insert, self.store.insert(jobs)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        self.pass(Call::Get, self.store.get(ids)).await
    }

    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        self.pass(Call::Cancel, self.store.cancel(id)).await
    }

    async fn outbox_take(&self, limit: usize) -> Result<Vec<OutboxGroup>, StoreError> {
        self.pass(Call::OutboxTake, self.store.outbox_take(limit)).await
    }

    async fn outbox_published(&self, groups: &[OutboxId], verify_after: Duration) -> Result<(), StoreError> {
        self.pass(Call::OutboxPublished, self.store.outbox_published(groups, verify_after)).await
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        self.pass(Call::Claim, self.store.claim(worker, claim, ids)).await
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        self.pass(Call::Finish, self.store.finish(worker, finishes, closed)).await
    }

    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError> {
        self.pass(Call::Register(worker.id), self.store.register(worker)).await
    }

    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        self.pass(Call::Heartbeat, self.store.heartbeat(worker)).await
    }

    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.pass(Call::Deregister, self.store.deregister(worker)).await
    }

    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError> {
        self.pass(Call::Rescue, self.store.rescue(crash_limit)).await
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError> {
        self.pass(Call::Kinds, self.store.kinds()).await
    }

    async fn lead(&self, name: &str, holder: WorkerId, ttl: Duration) -> Result<bool, StoreError> {
        self.pass(Call::Lead, self.store.lead(name, holder, ttl)).await
    }

    async fn promote_due(&self, limit: usize) -> Result<usize, StoreError> {
        self.pass(Call::PromoteDue, self.store.promote_due(limit)).await
    }

    async fn follow_up(&self, limit: usize) -> Result<usize, StoreError> {
        self.pass(Call::FollowUp, self.store.follow_up(limit)).await
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        self.pass(Call::Maintain, self.store.maintain()).await
    }

    fn keys(&self) -> &dyn Keys {
        self.store.keys()
    }

    fn quotas(&self) -> &dyn Quotas {
        self.store.quotas()
    }

    fn notes(&self) -> &dyn JobNotes {
        self.store.notes()
    }

    fn operations(&self) -> &dyn Operations {
        self.store.operations()
    }

    fn timetable(&self) -> &dyn Timetable {
        self.store.timetable()
    }

    fn workflows(&self) -> &dyn Workflows {
        self.store.workflows()
    }

    fn webhooks(&self) -> &dyn Webhooks {
        self.store.webhooks()
    }

    fn as_any(&self) -> &dyn Any {
        self.store.as_any()
    }
}
