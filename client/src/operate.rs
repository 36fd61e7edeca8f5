//! What operators see of jobs, and do with those that are over.

use windlass_core::{DeadCursor, DeadFilter, DeadPage, JobId, LogCursor, LogRecord, State};

use crate::{Client, ClientError};

impl Client {
    /// A page of the dead jobs that fit the filter, newest death first. See
    /// [`Operations::dead`](windlass_core::Operations::dead).
    ///
    /// # Errors
    /// What the store says.
    pub async fn dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, ClientError> {
        Ok(self.store().operations().dead(filter, after, limit).await?)
    }

    /// Up to `limit` lines of a job's log from behind `after` on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, ClientError> {
        Ok(self.store().notes().logs(id, after, limit).await?)
    }

    /// Queues those of `ids` that are in one of the `from` states, which are terminal, with fresh attempts. Answers
    /// which.
    ///
    /// # Errors
    /// What the store says.
    pub async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, ClientError> {
        let retried = self.store().operations().retry(ids, from).await?;
        if !retried.is_empty() {
            self.nudge_relay();
        }
        Ok(retried)
    }

    /// Removes those of `ids` that are in one of the `from` states, which are terminal. Answers which.
    ///
    /// # Errors
    /// What the store says.
    pub async fn delete(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, ClientError> {
        let Some(objects) = self.envelope().object_store() else {
            return Ok(self.store().operations().delete(ids, from).await?);
        };
        let before = self.store().get(ids).await?;
        let deleted = self.store().operations().delete(ids, from).await?;
        objects.forget(&deleted, &before).await;
        Ok(deleted)
    }
}
