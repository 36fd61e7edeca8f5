use std::time::Duration;

use async_trait::async_trait;

use crate::{Limit, LimitName, QueueName, StoreError};

/// What operators see and do in a store, away from the hot paths. Every method is one transaction and may be repeated
/// after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The queues that an operator has said something of, by name.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// Pauses a queue, or resumes it, which ends its draining as well. Jobs are still accepted into a paused one; from
    /// the commit on none of them is started, and those running go on.
    async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError>;

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

/// A limit that jobs may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRecord {
    /// Its name.
    pub name: LimitName,
    /// What it limits.
    pub limit: Limit,
}
