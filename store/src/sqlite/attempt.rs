use std::time::Duration;

use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{ClaimId, ClaimedJob, Finish, JobId, Outcome, State, WorkerId};

use super::{
    Commit, SqliteStore, ids, insert::insert_outbox, micros, read, statement, timestamp, unexpected,
};

const CLAIMED: &str = "id, attempt, uncounted, max_attempts, kind, queue, priority, payload, timeout_ms, created_at, labels, trace";

statement!(
    CLAIM,
    &format!(
        "UPDATE jobs SET state = {{to:claim}}, attempt = attempt + 1, worker_id = ?2, started_at = ?3
         WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ({{from:claim}}) RETURNING {CLAIMED}"
    )
);
statement!(
    CLAIMED_BEFORE,
    &format!(
        "SELECT {CLAIMED} FROM jobs
         WHERE id IN (SELECT value FROM json_each((SELECT job_ids FROM claims WHERE id = ?1 AND worker_id = ?2)))
           AND state = {{running}} AND worker_id = ?2"
    )
);
statement!(
    FINISH,
    "UPDATE jobs
     SET state = iif(cancel_requested AND ?3 NOT IN ({succeeded}, {dead}), {to:abort}, ?3),
         uncounted = uncounted + ?4,
         run_at = iif(cancel_requested, NULL, ?5),
         finished_at = iif(cancel_requested OR ?3 IN ({succeeded}, {cancelled}, {dead}), ?7, NULL),
         result = ?6
     WHERE id = ?1 AND attempt = ?2 AND state = {running}
     RETURNING state, attempt - uncounted, cancel_requested, run_at"
);

impl SqliteStore {
    /// `None`: the worker is unknown.
    pub(super) async fn claim_group(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        wanted: &[JobId],
    ) -> Result<Option<Vec<ClaimedJob>>, Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let known = sqlx::query("SELECT 1 FROM workers WHERE id = ?").bind(worker.to_string());
        if known.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(None);
        }
        let before = sqlx::query(CLAIMED_BEFORE.clone())
            .bind(claim.to_string())
            .bind(worker.to_string())
            .fetch_all(&mut *transaction)
            .await?;
        if !before.is_empty() {
            return before.iter().map(claimed_job).collect::<Result<_, _>>().map(Some);
        }
        let rows = sqlx::query(CLAIM.clone())
            .bind(ids(wanted))
            .bind(worker.to_string())
            .bind(self.now())
            .fetch_all(&mut *transaction)
            .await?;
        let jobs: Vec<ClaimedJob> = rows.iter().map(claimed_job).collect::<Result<_, _>>()?;
        if !jobs.is_empty() {
            sqlx::query("INSERT INTO claims (id, worker_id, job_ids) VALUES (?, ?, ?)")
                .bind(claim.to_string())
                .bind(worker.to_string())
                .bind(ids(jobs.iter().map(|job| job.id)))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Some(jobs))
    }

    pub(super) async fn finish_group(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let now = self.now();
        let label = sqlx::query("SELECT label FROM workers WHERE id = ?").bind(worker.to_string());
        let label = match label.fetch_optional(&mut *transaction).await? {
            Some(row) => row.try_get(0)?,
            None => worker.to_string(),
        };
        let (mut recorded, mut released) = (Vec::with_capacity(finishes.len()), Vec::new());
        for finish in finishes {
            match finish_one(&mut transaction, finish, &label, now).await? {
                None => continue,
                Some(State::Queued) => released.push(finish.id.to_string()),
                Some(_) => {}
            }
            recorded.push(finish.id);
        }
        insert_outbox(&mut transaction, released, now, now).await?;
        if !closed.is_empty() {
            sqlx::query("DELETE FROM claims WHERE id IN (SELECT value FROM json_each(?))")
                .bind(ids(closed))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(recorded)
    }
}

/// Records one outcome under its fence; answers the job's new state, or `None` if the fence is not the newest.
async fn finish_one(
    connection: &mut SqliteConnection,
    finish: &Finish,
    label: &str,
    now: i64,
) -> Result<Option<State>, Error> {
    let (after, result, error) = match &finish.outcome {
        Outcome::Succeeded { result } => (None, result.as_deref().map(|result| result.get()), None),
        Outcome::Retry { after, error } => (Some(*after), None, Some(error)),
        Outcome::Snoozed { after } => (Some(*after), None, None),
        Outcome::Dead { error } => (None, None, Some(error)),
        Outcome::Cancelled | Outcome::Released => (None, None, None),
    };
    let id = finish.id.to_string();
    let row = sqlx::query(FINISH.clone())
        .bind(&id)
        .bind(finish.fence)
        .bind(finish.outcome.event().target().map(State::code))
        .bind(i64::from(!finish.outcome.counts()))
        .bind(after.map(|after| now + micros(after)))
        .bind(result)
        .bind(now)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let state = read::state(row.try_get(0)?)?;
    if let Some(error) = error {
        insert_error(connection, &id, finish.fence, row.try_get(1)?, now, label, error).await?;
    }
    if row.try_get(2)? {
        let cancelled = sqlx::query("DELETE FROM cancellations WHERE job_id = ?").bind(&id);
        cancelled.execute(&mut *connection).await?;
    }
    if matches!(state, State::Scheduled | State::Retrying) {
        sqlx::query(
            "INSERT INTO due (job_id, run_at) VALUES (?, ?)
             ON CONFLICT (job_id) DO UPDATE SET run_at = excluded.run_at",
        )
        .bind(&id)
        .bind(row.try_get::<i64, _>(3)?)
        .execute(connection)
        .await?;
    }
    Ok(Some(state))
}

pub(super) async fn insert_error(
    connection: &mut SqliteConnection,
    job_id: &str,
    fence: u32,
    attempt: u32,
    now: i64,
    worker: &str,
    message: &str,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO job_errors (job_id, fence, attempt, at, worker, message) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(job_id)
    .bind(fence)
    .bind(attempt)
    .bind(now)
    .bind(worker)
    .bind(message)
    .execute(connection)
    .await
    .map(drop)
}

fn claimed_job(row: &SqliteRow) -> Result<ClaimedJob, Error> {
    let (attempt, uncounted): (u32, u32) = (row.try_get(1)?, row.try_get(2)?);
    let trace: Option<&str> = row.try_get(11)?;
    Ok(ClaimedJob {
        id: read::id(row.try_get(0)?)?,
        fence: attempt,
        attempt: attempt.saturating_sub(uncounted),
        max_attempts: row.try_get(3)?,
        kind: row.try_get::<&str, _>(4)?.parse().map_err(unexpected)?,
        queue: row.try_get::<&str, _>(5)?.parse().map_err(unexpected)?,
        priority: read::priority(row.try_get(6)?)?,
        payload: serde_json::value::RawValue::from_string(row.try_get(7)?).map_err(unexpected)?,
        timeout: row.try_get::<Option<i64>, _>(8)?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
        created_at: timestamp(row.try_get(9)?)?,
        labels: serde_json::from_str(row.try_get(10)?).map_err(unexpected)?,
        trace: trace.and_then(|trace| trace.parse().ok()),
    })
}
