use std::{any::Any, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{
    ClaimId, ClaimedJob, Finish, JobId, JobNotes, JobRecord, Keys, KindInfo, Message, NewJob, Operations,
    Quotas, Source, State, Timestamp, Timetable, Webhooks, WorkerId, Workflows,
};

/// Keeps the truth. Every method is one transaction, most are one statement, and all time is the store's clock.
///
/// Each call has a deadline, after which it fails with a [retryable](StoreError::retryable) error. Every method may
/// be repeated after such an error without harm, also when the first call did commit: the methods say how.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Brings the schema up to date. Safe to call from many processes at once, on an empty database too.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// Whether the store answers and its schema fits this release.
    async fn ping(&self) -> Result<(), StoreError>;

    // ---- accept and read ----

    /// Accepts `jobs`, all or none. Answers come in the order of the jobs. A job whose id exists is left as it is,
    /// so the call may be repeated.
    ///
    /// Jobs that are due at once become `queued` and are listed in one outbox group, which the caller publishes and
    /// then [confirms](Self::outbox_published); if it dies first, the relay finds the group a few seconds later.
    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError>;

    /// The jobs with these ids, in any order, without those that do not exist.
    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError>;

    /// Calls off a job: at once if it is not running, else by a request that its worker's next heartbeat carries.
    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError>;

    // ---- outbox ----

    /// Up to `limit` outbox groups that are due, oldest first, with messages for those of their jobs that are still
    /// `queued`. Groups with no such job are removed and not answered. Those answered are not due again for some
    /// seconds, so that relays do not repeat each other's work.
    async fn outbox_take(&self, limit: usize) -> Result<Vec<OutboxGroup>, StoreError>;

    /// Notes that the broker confirmed these groups. They become due again after `verify_after`, when
    /// [`outbox_take`](Self::outbox_take) shows whether any of their jobs still waits: its message may be lost.
    async fn outbox_published(&self, groups: &[OutboxId], verify_after: Duration) -> Result<(), StoreError>;

    // ---- attempts ----

    /// Claims those of `ids` that are `queued` for `worker`: they become `running`, with the next fence. Those not
    /// answered are duplicates, stale or cancelled.
    ///
    /// Repeated under the same `claim`, it answers with the jobs of that claim that are still running, and takes
    /// nothing more, until the claim is [closed](Self::finish).
    ///
    /// # Errors
    /// [`StoreError::WorkerUnknown`] if the worker has been declared dead.
    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError>;

    /// Records outcomes, each only if its fence is the newest and the job is running, and forgets the `closed`
    /// claims, whose jobs have all ended. Answers with the jobs recorded.
    ///
    /// A retry, snooze or release of a job with a cancellation request becomes a cancellation.
    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError>;

    // ---- workers ----

    /// Makes a worker known, with the kinds it handles.
    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError>;

    /// Renews the worker's lease on everything it runs.
    ///
    /// # Errors
    /// [`StoreError::WorkerUnknown`] if it has been declared dead or has said goodbye: whatever it runs is no longer
    /// its own.
    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError>;

    /// Says goodbye. Whatever the worker still holds is free for [`rescue`](Self::rescue) at once.
    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError>;

    /// Takes everything from workers whose lease has run out, and forgets them. A job goes back to `queued`, or to
    /// `dead` once its attempts are used up or it has lost `crash_limit` workers. Each lost attempt leaves an error
    /// record. Requeued jobs are in an outbox group that is due at once.
    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError>;

    /// The kinds that workers have made known, ever.
    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError>;

    // ---- maintenance ----

    /// Takes or renews the lease `name` for `holder` if nobody else has it: who gets `true` leads for `ttl`, which is about
    /// the same for all who ask for that name.
    ///
    /// One that ends later than anyone can have taken it for tells that the clock has been set back meanwhile. It is
    /// free then, and leases of workers, waiting for rates and the outbox go on from the present.
    async fn lead(&self, name: &str, holder: WorkerId, ttl: Duration) -> Result<bool, StoreError>;

    /// Queues up to `limit` jobs whose time has come, in an outbox group that is due at once. Answers how many.
    async fn promote_due(&self, limit: usize) -> Result<usize, StoreError>;

    /// Does what up to `limit` ends and pauses of jobs leave to do: room under limits, turns, children, webhooks.
    /// Answers how many; fewer than `limit` means that no more remain. What it queues is in an outbox group that is due
    /// at once.
    ///
    /// The need is noted in the transaction that records the end, so it survives whoever was to see to it. Workers call
    /// this right after, and the leader now and then.
    async fn follow_up(&self, limit: usize) -> Result<usize, StoreError>;

    /// Housekeeping for the leader, every minute or so: partitions ahead of need, keys past their time.
    async fn maintain(&self) -> Result<(), StoreError>;

    /// What running attempts say about themselves.
    fn notes(&self) -> &dyn JobNotes;

    /// What operators do, as opposed to workers.
    fn operations(&self) -> &dyn Operations;

    /// Who may do what over HTTP.
    fn keys(&self) -> &dyn Keys;

    /// How many unfinished jobs tenants may have.
    fn quotas(&self) -> &dyn Quotas;

    /// What is done by the clock.
    fn timetable(&self) -> &dyn Timetable;

    /// Jobs that wait for others.
    fn workflows(&self) -> &dyn Workflows;

    /// Who is told that jobs are over.
    fn webhooks(&self) -> &dyn Webhooks;

    /// A replica, for reads that may be as far behind as the settings allow. `None`: there is none, or none that is near
    /// enough just now, or the store is a replica itself.
    ///
    /// Nothing can be written by it. What it does not have may be too new for it, and where it fails the store itself
    /// may still answer.
    fn replica(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// The concrete store, for what only one kind can do (`enqueue_in`, `ctx.transaction()`).
    fn as_any(&self) -> &dyn Any;
}

/// What became of an accepted group.
#[derive(Debug, Clone)]
pub struct Inserted {
    /// When, by the store's clock: the `created_at` of the jobs created.
    pub at: Timestamp,
    /// One answer per job, in order.
    pub outcomes: Vec<InsertOutcome>,
    /// The group to publish now: the jobs created as [`State::Queued`].
    pub outbox: Option<OutboxId>,
}

/// What became of one job of an accepted group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InsertOutcome {
    /// It is new, and `queued`, `waiting` or `scheduled`.
    Created(State),
    /// Its idempotency key was used before by the same request, which made this job.
    Existing(JobId),
    /// Its idempotency key was used before by another request. Nothing was stored for it.
    KeyReused,
    /// This job has its unique key. Nothing was stored for it.
    Held(JobId),
    /// This job, which has its unique key and has not been started, got its payload.
    Replaced(JobId),
    /// This job has its unique key, and so it was refused. Nothing was stored for it.
    Refused(JobId),
    /// Nobody has defined its limit with this index. Nothing was stored for it.
    UnknownLimit(usize),
    /// Its queue is being drained. Nothing was stored for it.
    QueueDraining,
    /// Its tenant has as many unfinished jobs as its [quota](Quotas) allows. Nothing was stored for it.
    OverQuota,
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// There is no such job.
    NotFound,
    /// It is cancelled.
    Cancelled,
    /// It is running; its handler will be told.
    Requested,
    /// It is over already.
    Finished(State),
}

/// Names an outbox group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId(pub i64);

/// An outbox group that needs attention.
#[derive(Debug, Clone)]
pub struct OutboxGroup {
    /// The group.
    pub id: OutboxId,
    /// Whether the broker has confirmed it before: then its messages may be waiting there, or may be lost.
    pub published: bool,
    /// How long ago it was accepted.
    pub age: Duration,
    /// A message for each of its jobs that is still queued; never empty.
    pub messages: Vec<Message>,
}

/// A worker process that starts.
#[derive(Debug, Clone)]
pub struct NewWorker {
    /// Its id, new at every start.
    pub id: WorkerId,
    /// A name for people, such as the host's.
    pub label: String,
    /// How long it may be silent before its jobs are taken away.
    pub lease: Duration,
    /// What it handles.
    pub kinds: Vec<KindInfo>,
}

/// What a heartbeat brings back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Jobs of this worker that someone wants cancelled. Repeated until each has ended.
    pub cancel: Vec<JobId>,
    /// The worker's claims that are not closed. One that it does not know of was made by a call that it had given up: the
    /// network may bring that to the store long after, when the claim has been repeated, and closed.
    pub claims: Vec<ClaimId>,
}

/// What a rescue did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// The workers declared dead.
    pub workers: Vec<WorkerId>,
    /// How many of their jobs went back to `queued` (or to `cancelled`, where that had been asked for).
    pub requeued: u64,
    /// How many went to `dead`.
    pub dead: u64,
}

/// What a store answers when it cannot do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, the connection was lost, or the server cut the call short. Passes by itself.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] Source),
    /// It did not answer in time. Passes by itself; what was asked may have happened.
    #[error("the store did not answer within {0:?}")]
    Timeout(Duration),
    /// The worker has been declared dead, or never registered.
    #[error("worker {0} is not registered: its lease has run out and its jobs have been given to others")]
    WorkerUnknown(WorkerId),
    /// It will not work before someone changes a setting, a right or the schema.
    #[error("{problem}; {remedy}")]
    Config {
        /// What is wrong, with the name of the setting.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// It answered with something that this release does not understand, or refused a statement. A bug, or a
    /// schema changed by hand.
    #[error("the store answered unexpectedly: {0}")]
    Unexpected(#[source] Source),
}

impl StoreError {
    /// Whether trying again later can help without anyone's doing.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_))
    }
}
