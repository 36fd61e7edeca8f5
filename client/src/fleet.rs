//! What is the whole fleet's: queues, limits, workers, kinds. The same as over HTTP, for programs that have the store.

use windlass_core::{
    KindInfo, Limit, LimitName, LimitRecord, QueueName, QueueRecord, WorkerId, WorkerRecord,
};

use crate::{Client, ClientError};

impl Client {
    /// Whether jobs are accepted now: the store answers, and its tables are those of this release.
    ///
    /// # Errors
    /// What the store says.
    pub async fn ping(&self) -> Result<(), ClientError> {
        Ok(self.store().ping().await?)
    }

    /// All kinds that a worker has ever handled, with the schemas of their payloads.
    ///
    /// # Errors
    /// What the store says.
    pub async fn kinds(&self) -> Result<Vec<KindInfo>, ClientError> {
        Ok(self.store().kinds().await?)
    }

    /// Up to `limit` workers with ids below `before`, newest first, with what they run.
    ///
    /// # Errors
    /// What the store says.
    pub async fn workers(
        &self,
        before: Option<WorkerId>,
        limit: usize,
    ) -> Result<Vec<WorkerRecord>, ClientError> {
        Ok(self.store().operations().workers(before, limit).await?)
    }

    /// The queues that something has been said of, by name. Any other is an ordinary one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn queues(&self) -> Result<Vec<QueueRecord>, ClientError> {
        Ok(self.store().operations().queues().await?)
    }

    /// Starts none of the queue's jobs until it is [resumed](Self::resume_queue). They are still accepted.
    ///
    /// # Errors
    /// What the store says.
    pub async fn pause_queue(&self, queue: &QueueName) -> Result<(), ClientError> {
        Ok(self.store().operations().pause_queue(queue, true).await?)
    }

    /// Ends a pause and a drain.
    ///
    /// # Errors
    /// What the store says.
    pub async fn resume_queue(&self, queue: &QueueName) -> Result<(), ClientError> {
        self.store().operations().pause_queue(queue, false).await?;
        self.nudge_relay();
        Ok(())
    }

    /// Refuses new jobs for the queue until it is [resumed](Self::resume_queue), and finishes those in it.
    ///
    /// # Errors
    /// What the store says.
    pub async fn drain_queue(&self, queue: &QueueName) -> Result<(), ClientError> {
        Ok(self.store().operations().drain_queue(queue).await?)
    }

    /// Limits a queue as a whole; with a `window`, its tenants share it fairly, and so many of its jobs are on their way to
    /// a worker at a time. All of it: what is not given is no longer limited.
    ///
    /// # Errors
    /// What the store says.
    pub async fn limit_queue(
        &self,
        queue: &QueueName,
        limit: Limit,
        window: Option<u32>,
    ) -> Result<(), ClientError> {
        Ok(self.store().operations().limit_queue(queue, limit, window).await?)
    }

    /// The limits that jobs may name, by name.
    ///
    /// # Errors
    /// What the store says.
    pub async fn limits(&self) -> Result<Vec<LimitRecord>, ClientError> {
        Ok(self.store().operations().limits().await?)
    }

    /// Defines a limit, or changes it, at once for all of its keys.
    ///
    /// # Errors
    /// What the store says.
    pub async fn set_limit(&self, name: &LimitName, limit: Limit) -> Result<(), ClientError> {
        Ok(self.store().operations().set_limit(name, limit).await?)
    }

    /// Removes a limit: the jobs that name it wait for it no longer, and new ones are refused. Whether there was one.
    ///
    /// # Errors
    /// What the store says.
    pub async fn remove_limit(&self, name: &LimitName) -> Result<bool, ClientError> {
        Ok(self.store().operations().remove_limit(name).await?)
    }
}
