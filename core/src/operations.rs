use async_trait::async_trait;

use crate::{JobId, JobRecord, Kind, QueueName, State, StoreError, Timestamp};

/// What operators see and do in a store, away from the hot paths. Every method is one transaction and may be repeated
/// after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The queues that an operator has said something of, by name.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// Pauses a queue, or resumes it. Jobs are still accepted into a paused one; from the commit on none of them is
    /// started, and those running go on.
    async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError>;

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

    /// Queues those of `ids` that are in one of the `from` states, all of which are terminal, with fresh attempts, in an
    /// outbox group that is due at once. Answers which. What went wrong before stays in the record; the result goes, and
    /// so does an expiry or deadline that has passed.
    ///
    /// Repeated, it finds the jobs unfinished and does nothing.
    async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError>;

    /// Removes those of `ids` that are in one of the `from` states, all of which are terminal, with everything kept of
    /// them. Answers which. A job whose end is yet to be [followed up](crate::Store::follow_up) stays until it has been.
    async fn delete(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError>;
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
}
