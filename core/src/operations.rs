use async_trait::async_trait;

use crate::{QueueName, StoreError};

/// What operators see and do in a store, away from the hot paths. Every method is one transaction and may be repeated
/// after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Operations: Send + Sync {
    /// The queues that an operator has said something of, by name.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError>;

    /// Pauses a queue, or resumes it. Jobs are still accepted into a paused one; from the commit on none of them is
    /// started, and those running go on.
    async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError>;
}

/// What an operator has said of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its name.
    pub name: QueueName,
    /// Whether no job of it is started.
    pub paused: bool,
}
