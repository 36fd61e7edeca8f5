use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use serde_json::value::RawValue;

use crate::{
    Edition, JobFilter, JobId, JobRecord, Kind, Limit, LimitName, QueueName, Standing, State, StoreError,
    SystemId, Tenant, Timestamp, WorkerId,
};

/// What operators see and do in a store, away from the hot paths. Every method is one transaction and may be repeated
/// after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The queues that an operator has said something of, by name.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// How many jobs of each queue are in states that have side tables: running, scheduled, retrying and dead. It looks at
    /// a bounded number of jobs, some ten thousand for each table.
    async fn tally(&self) -> Result<Tally, StoreError>;

    /// Up to `limit` workers with ids below `before`, newest first: those that live, and those whose jobs are yet to be
    /// rescued.
    async fn workers(&self, before: Option<WorkerId>, limit: usize) -> Result<Vec<WorkerRecord>, StoreError>;

    /// Pauses a queue, or resumes it, which ends its draining as well. Jobs are still accepted into a paused one; from
    /// the commit on none of them is started, and those running go on.
    async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError>;

    /// Up to `limit` jobs that fit the filter and have an id below `before`, greatest id and so newest first.
    ///
    /// `jobs` has no index but its primary key, on purpose, so one call looks at a bounded number of jobs, some ten
    /// thousand: it may find fewer than `limit`, even none, before the end, which is where [`next`](Found::next) is
    /// `None`. It also stops early where the results of what it has found are large, so that they can be read at once.
    async fn find(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Found, StoreError>;

    /// Where these jobs stand, in any order, without those that do not exist: for many jobs, often.
    async fn standing(&self, ids: &[JobId]) -> Result<Vec<Standing>, StoreError>;

    /// How often jobs that were over have been retried or removed, by operators or as their time was over. What is known of
    /// a job that is over goes on being true while this number stays, but for a result or a last word that comes to its end
    /// or arrives by itself.
    async fn revision(&self) -> Result<u64, StoreError>;

    /// The revision, for what is known outside of this process and may outlive what the store knows. `None`: this kind of
    /// store cannot tell whether it has been put back to an earlier state.
    async fn edition(&self) -> Result<Option<Edition>, StoreError>;

    /// Which system this is.
    async fn system(&self) -> Result<SystemId, StoreError>;

    /// Those of `ids` that fit the filter.
    async fn among(&self, filter: &JobFilter, ids: &[JobId]) -> Result<Vec<JobId>, StoreError>;

    /// The payloads of the jobs with these ids as they are stored, in any order, without those that do not exist. Polls leave
    /// them out, since they may be large.
    async fn payloads(&self, ids: &[JobId]) -> Result<Vec<(JobId, Box<RawValue>)>, StoreError>;

    /// Up to `limit` dead jobs that fit the filter, newest death first, from behind `after` on.
    ///
    /// One call looks at a bounded number of dead jobs, so a page may hold fewer than `limit`, even none; the list ends
    /// where [`next`](DeadPage::next) is `None`.
    async fn dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, StoreError>;

    /// Calls off those of `ids` that are in one of the `from` states, none of which is terminal: at once, or where a job
    /// runs by a request to its worker, as [`Store::cancel`](crate::Store::cancel) does. Answers which.
    ///
    /// Repeated, it finds those called off in another state, and asks for the others again.
    async fn cancel_many(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError>;

    /// Queues those of `ids` that are in one of the `from` states, all of which are terminal, with fresh attempts, in an
    /// outbox group that is due at once. Answers which. What went wrong before stays in the record; the result goes, and
    /// so does an expiry or deadline that has passed.
    ///
    /// Repeated, it finds the jobs unfinished and does nothing.
    async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError>;

    /// Removes those of `ids` that are in one of the `from` states, all of which are terminal, with everything kept of
    /// them. Answers which. A job whose end is yet to be [followed up](crate::Store::follow_up) stays until it has been.
    async fn delete(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError>;

    /// Refuses new jobs for a queue, until it is resumed. Those inside are worked off.
    async fn drain_queue(&self, queue: &QueueName) -> Result<(), StoreError>;

    /// Limits a queue as a whole, and says whether its tenants share it fairly: `window` is how many of its jobs may be
    /// on their way to a worker at once, while the others wait in an order that gives each tenant its turn.
    ///
    /// Holds at once, also for jobs that are queued already; those that run are counted, and finish.
    async fn limit_queue(
        &self,
        queue: &QueueName,
        limit: Limit,
        window: Option<u32>,
    ) -> Result<(), StoreError>;

    /// The limits that jobs may name, by name.
    async fn limits(&self) -> Result<Vec<LimitRecord>, StoreError>;

    /// Defines a limit, or changes it. Holds at once for all of its keys; what runs beyond a lower one finishes.
    async fn set_limit(&self, name: &LimitName, limit: Limit) -> Result<(), StoreError>;

    /// Forgets a limit: jobs that name it are no longer held back, and new ones are refused. `false`: there is none.
    async fn remove_limit(&self, name: &LimitName) -> Result<bool, StoreError>;

    /// How long until a rate lets a waiting job start; [`Store::follow_up`](crate::Store::follow_up) does it then.
    /// `None`: no job waits for that.
    async fn next_start(&self) -> Result<Option<Duration>, StoreError>;
}

/// What a search has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The jobs, newest first.
    pub ids: Vec<JobId>,
    /// Before which id to go on; `None` at the end.
    pub next: Option<JobId>,
}

/// Which dead jobs: those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadFilter {
    /// Of this queue.
    pub queue: Option<QueueName>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this label: its name and value.
    pub label: Option<(String, String)>,
    /// Of this tenant.
    pub tenant: Option<Tenant>,
    /// That died at this time or later.
    pub since: Option<Timestamp>,
    /// That died before this time.
    pub until: Option<Timestamp>,
}

/// A place in the list of dead jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadCursor {
    /// When the job died.
    pub at: Timestamp,
    /// The job.
    pub id: JobId,
}

/// A part of the list of dead jobs.
#[derive(Debug, Clone, Default)]
pub struct DeadPage {
    /// The jobs, newest death first.
    pub jobs: Vec<JobRecord>,
    /// Where to go on; `None` at the end of the list.
    pub next: Option<DeadCursor>,
}

/// What an operator has said of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its name.
    pub name: QueueName,
    /// Whether no job of it is started.
    pub paused: bool,
    /// Whether new jobs are refused.
    pub draining: bool,
    /// How many jobs of it may run at a time, and start in a time, in the whole fleet.
    pub limit: Limit,
    /// If its tenants share it fairly: how many of its jobs may be on their way to a worker at once.
    pub window: Option<u32>,
}

/// How many jobs there are in some of the states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many jobs of a queue are in a state; what has none is not in it.
    pub counts: HashMap<(QueueName, State), u64>,
    /// Whether all jobs were looked at. If not, there are more than that, of any queue.
    pub complete: bool,
}

/// A worker process, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its id, new at every start.
    pub id: WorkerId,
    /// A name for people, such as the host's.
    pub label: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of. `None`: it has said goodbye, and left jobs behind.
    pub seen_at: Option<Timestamp>,
    /// How long it may be silent.
    pub lease: Duration,
    /// Whether its lease still holds.
    pub alive: bool,
    /// What it handles: kinds, and the version of each.
    pub kinds: Vec<(Kind, u16)>,
    /// The jobs it runs, oldest first.
    pub running: Vec<JobId>,
}

/// A limit that jobs may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRecord {
    /// Its name.
    pub name: LimitName,
    /// What it limits.
    pub limit: Limit,
}
