use serde_json::value::RawValue;
use sqlx::{Error, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{CancelOutcome, JobId, JobRecord, State, UnknownState};

use super::{PostgresStore, claim::number, gates::gating, priority, range, unexpected};

/// Plan: primary keys of the partitions in range; errors and progress by theirs.
pub(super) const GET: &str = "
SELECT j.id, j.kind, j.queue, j.priority, j.state, j.attempt, j.uncounted, j.max_attempts, j.created_at, j.run_at,
       j.started_at, j.finished_at,
       CASE WHEN r.until <= {now} THEN NULL ELSE j.result END,
       j.labels::text, j.cancel_requested,
       (SELECT json_agg(json_build_object('attempt', e.attempt, 'at', e.at, 'worker', e.worker, 'message', e.message)
                        ORDER BY e.fence)::text
        FROM {schema}.job_errors e WHERE e.job_id = j.id),
       (SELECT json_build_object('value', p.value, 'message', p.message, 'at', p.at)::text
        FROM {schema}.job_progress p WHERE p.job_id = j.id),
       j.gating, j.expires_at, j.deadline, j.version, r.until
FROM {schema}.jobs j
LEFT JOIN LATERAL (
    SELECT e.expires_at FROM {schema}.expiring_results e WHERE e.job_id = j.id AND j.result IS NOT NULL LIMIT 1
) AS r (until) ON true
WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3";

/// Plan: as for [`GET`].
pub(super) const PAYLOADS: &str =
    "SELECT id, payload FROM {schema}.jobs WHERE id = ANY($1) AND id >= $2 AND id <= $3";

/// One update decides between calling off and asking, so that no claim comes in between. The job's time goes first,
/// since promotion takes times before jobs, too. Plan: primary key of one partition.
pub(super) const CANCEL: &str = "
WITH forgotten AS MATERIALIZED (
    DELETE FROM {schema}.due WHERE job_id = $1 RETURNING job_id
), called AS (
    UPDATE {schema}.jobs
    SET state = CASE WHEN state = {running} THEN {running} ELSE {to:cancel} END,
        cancel_requested = true,
        finished_at = CASE WHEN state <> {running} THEN {now} END,
        run_at = NULL
    WHERE id = $1 AND state IN ({from:cancel}, {running}) AND (SELECT count(*) FROM forgotten) >= 0
    RETURNING id, state, worker_id, followed
), asked AS (
    INSERT INTO {schema}.cancellations (job_id, worker_id)
    SELECT id, worker_id FROM called WHERE state = {running}
    ON CONFLICT (job_id) DO UPDATE SET worker_id = excluded.worker_id
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM called WHERE followed AND state <> {running}
)
SELECT state FROM called";

impl PostgresStore {
    pub(super) async fn select_jobs(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let Some((least, greatest)) = range(&ids) else { return Ok(Vec::new()) };
        let query = self.query(&self.sql.get).bind(ids).bind(least).bind(greatest);
        let mut session = self.statement().await?;
        let rows = query.fetch_all(&mut *session).await?;
        session.commit().await?;
        rows.iter().map(record).collect()
    }

    pub(super) async fn select_payloads(&self, ids: &[JobId]) -> Result<Vec<(JobId, Box<RawValue>)>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let Some((least, greatest)) = range(&ids) else { return Ok(Vec::new()) };
        let query = self.query(&self.sql.payloads).bind(ids).bind(least).bind(greatest);
        let mut session = self.statement().await?;
        let rows = query.fetch_all(&mut *session).await?;
        session.commit().await?;
        let payload = |row: &PgRow| RawValue::from_string(row.try_get(1)?).map_err(unexpected);
        rows.iter().map(|row| Ok((row.try_get::<Uuid, _>(0)?.into(), payload(row)?))).collect()
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<CancelOutcome, Error> {
        loop {
            let mut session = self.statement().await?;
            let query = self.query(&self.sql.cancel).bind(id.as_uuid());
            let called = query.fetch_optional(&mut *session).await?;
            session.commit().await?;
            if let Some(row) = called {
                return Ok(match row.try_get::<i16, _>(0)? {
                    code if code == State::Running.code() => CancelOutcome::Requested,
                    _ => CancelOutcome::Cancelled,
                });
            }
            match self.select_jobs(&[id]).await?.pop() {
                None => return Ok(CancelOutcome::NotFound),
                Some(job) if job.state.is_terminal() => return Ok(CancelOutcome::Finished(job.state)),
                // It came into being between the two statements.
                Some(_) => {}
            }
        }
    }
}

fn record(row: &PgRow) -> Result<JobRecord, Error> {
    let attempt: i32 = row.try_get(5)?;
    let uncounted: i32 = row.try_get(6)?;
    let result: Option<String> = row.try_get(12)?;
    let errors: Option<&str> = row.try_get(15)?;
    let progress: Option<&str> = row.try_get(16)?;
    Ok(JobRecord {
        id: row.try_get::<Uuid, _>(0)?.into(),
        kind: row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?,
        queue: row.try_get::<&str, _>(2)?.parse().map_err(unexpected)?,
        priority: priority(row, 3)?,
        state: row.try_get::<i16, _>(4)?.try_into().map_err(unexpected::<UnknownState>)?,
        attempt: number(attempt - uncounted)?,
        max_attempts: number(row.try_get(7)?)?,
        created_at: row.try_get(8)?,
        run_at: row.try_get(9)?,
        started_at: row.try_get(10)?,
        finished_at: row.try_get(11)?,
        expires_at: row.try_get(18)?,
        deadline: row.try_get(19)?,
        version: row.try_get::<i16, _>(20)?.unsigned_abs(),
        result_until: result.as_ref().and(row.try_get(21)?),
        result: result.map(RawValue::from_string).transpose().map_err(unexpected)?,
        progress: progress.map(serde_json::from_str).transpose().map_err(unexpected)?,
        labels: serde_json::from_str(row.try_get(13)?).map_err(unexpected)?,
        gating: gating(row, 17)?,
        cancel_requested: row.try_get(14)?,
        errors: errors.map_or(Ok(Vec::new()), serde_json::from_str).map_err(unexpected)?,
    })
}
