use sqlx::{Error, Row};
use windlass_core::{JobId, State};

use super::{Commit, SqliteStore, ids, micros, read, unexpected};

/// Results forgotten, and jobs removed, in one transaction.
const BATCH: i64 = 1000;

/// Jobs whose time is over by the rules: queue or null, state, microseconds. The rule of the queue counts before the one
/// of any. Without a rule, a job stays.
const OVERDUE: &str = "
SELECT id FROM jobs
WHERE finished_at <= ?1 - coalesce(
    (SELECT r.value ->> 2 FROM json_each(?2) r WHERE r.value ->> 0 = queue AND r.value ->> 1 = state),
    (SELECT r.value ->> 2 FROM json_each(?2) r WHERE r.value ->> 0 IS NULL AND r.value ->> 1 = state))
AND id NOT IN (SELECT job_id FROM followups)
AND NOT EXISTS (SELECT 1 FROM dependencies d JOIN jobs c ON c.id = d.child_id
                WHERE d.parent_id = jobs.id AND c.finished_at IS NULL)
LIMIT ?3";

impl SqliteStore {
    /// Forgets a batch of results past their time, which polls do not show any more. Whether there may be more.
    pub(super) async fn forget_results(&self) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let expired = sqlx::query(
            "DELETE FROM expiring_results WHERE job_id IN
                 (SELECT job_id FROM expiring_results WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)
             RETURNING job_id",
        )
        .bind(self.now())
        .bind(BATCH)
        .fetch_all(&mut *transaction)
        .await?;
        let expired: Vec<String> = expired.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let more = i64::try_from(expired.len()) == Ok(BATCH);
        sqlx::query("UPDATE jobs SET result = NULL WHERE id IN (SELECT value FROM json_each(?))")
            .bind(ids(expired))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(more)
    }

    /// Removes a batch of jobs that have been kept for long enough. Whether there may be more.
    pub(super) async fn remove_overdue(&self) -> Result<bool, Error> {
        let rules: Vec<_> = self
            .retention
            .rules()
            .into_iter()
            .map(|(queue, state, keep)| (queue, state.code(), micros(keep)))
            .collect();
        if rules.is_empty() {
            return Ok(false);
        }
        // The search is the readers' work; the writer looks again at what it finds.
        let overdue = sqlx::query(OVERDUE)
            .bind(self.now())
            .bind(serde_json::to_string(&rules).map_err(unexpected)?)
            .bind(BATCH)
            .fetch_all(&self.readers)
            .await?;
        let overdue: Vec<JobId> =
            overdue.iter().map(|row| read::id(row.try_get(0)?)).collect::<Result<_, _>>()?;
        let removed = self.delete_jobs(&overdue, &State::TERMINAL).await?;
        if !removed.is_empty() {
            let mut transaction = self.write(Commit::Soft).await?;
            sqlx::query("DELETE FROM workflows WHERE id NOT IN (SELECT workflow_id FROM workflow_jobs)")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(!removed.is_empty() && i64::try_from(overdue.len()) == Ok(BATCH))
    }
}
