use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use serde::Serialize;
use serde_json::value::to_raw_value;
use sqlx::{Postgres, pool::PoolConnection};
use windlass_client::ClientError;
use windlass_core::Finish;
use windlass_store::{PostgresStore, PostgresTransaction};

use crate::{Context, JobError, context::Completion};

/// A transaction in which the handler's own writes and the job's success become real together, or not at all (P5).
///
/// Use it as the connection it derefs to, and end with [`complete`](Self::complete). Dropped before, it rolls back.
pub struct JobTransaction {
    context: Context,
    store: PostgresStore,
    transaction: PostgresTransaction,
}

impl Context {
    /// Begins a transaction on the store's database, for writes that are to be one with the job's success.
    ///
    /// ```no_run
    /// # use windlass_worker::{Context, JobError};
    /// # async fn handler(ctx: Context) -> Result<i64, JobError> {
    /// let mut tx = ctx.transaction().await?;
    /// sqlx::query("INSERT INTO payments (job_id) VALUES ($1)")
    ///     .bind(ctx.job_id().as_uuid())
    ///     .execute(&mut **tx)
    ///     .await?;
    /// tx.complete(42).await
    /// # }
    /// ```
    ///
    /// Your own statements take as long as the server does to answer them, and a connection whose other end is gone without
    /// a word does not tell them so: give the kind a `timeout`.
    ///
    /// # Errors
    /// When the store is not Postgres, or cannot be reached. Any error of the attempt's may be retried: nothing has
    /// happened.
    pub async fn transaction(&self) -> Result<JobTransaction, JobError> {
        let store = self
            .client()
            .store()
            .as_any()
            .downcast_ref::<PostgresStore>()
            .ok_or(ClientError::NeedsPostgres { what: "ctx.transaction()" })?
            .clone();
        let transaction = store.begin().await?;
        self.set_completion(Completion::Begun);
        Ok(JobTransaction { context: self.clone(), store, transaction })
    }
}

impl JobTransaction {
    /// Records the job's success with `value` as its result, commits everything, and gives the value back to be
    /// returned.
    ///
    /// # Errors
    /// Nothing is committed if the lease was lost meanwhile. If the connection is lost during the commit, or it takes longer
    /// than `store_timeout`, it may or may not have happened; the attempt's failure is recorded only if it has not.
    pub async fn complete<R: Serialize>(mut self, value: R) -> Result<R, JobError> {
        let result = to_raw_value(&value)?;
        let result = (result.get() != "null").then_some(result);
        let (id, keep) = (self.context.job_id(), self.context.result_ttl());
        let (envelope, fence) = (self.context.client().envelope(), self.context.job().fence);
        let mut outcome = envelope.seal_result(id, result, keep).map_err(JobError::discard)?;
        envelope.move_out_result(id, fence, &mut outcome).await?;
        let finish = Finish { id, fence, outcome };
        let worker = self.context.worker();
        if !self.store.finish_in(&mut self.transaction, worker, &finish).await? {
            return Err(JobError::retry("the lease was lost before the transaction could be committed"));
        }
        self.transaction.commit().await?;
        self.context.set_completion(Completion::Committed);
        Ok(value)
    }
}

impl Deref for JobTransaction {
    type Target = PoolConnection<Postgres>;

    fn deref(&self) -> &Self::Target {
        &self.transaction
    }
}

impl DerefMut for JobTransaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.transaction
    }
}

impl fmt::Debug for JobTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobTransaction").field("context", &self.context).finish_non_exhaustive()
    }
}
