use std::time::Duration;

use sqlx::{Error, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{ClaimId, ClaimedJob, JobId, StoreError, WorkerId};

use super::{PostgresStore, classify, priority, range, unexpected};
use crate::workflow::tenant;

/// Claims a group in one statement, and notes whose it is. Plan: the array of ids into the primary keys of the
/// partitions in range, which also locks rows in the order of their ids. (A join with the ids turns into a scan of the
/// whole range when it is planned while a partition is small.)
pub(super) const CLAIM: &str = "
WITH claimed AS (
    UPDATE {schema}.jobs j
    SET state = {to:claim}, attempt = j.attempt + 1, worker_id = $1, started_at = {now}
    WHERE j.id = ANY($3::uuid[]) AND j.id >= $4 AND j.id <= $5 AND j.state IN ({from:claim})
    AND (j.expires_at IS NULL OR j.expires_at > {now} OR j.attempt > j.uncounted)
    AND (j.deadline IS NULL OR j.deadline > {now})
    AND NOT EXISTS (SELECT FROM {schema}.queues q WHERE q.name = j.queue AND (q.paused OR q.limited AND NOT j.gated))
    AND (NOT j.gated OR EXISTS (SELECT FROM {schema}.gated g WHERE g.job_id = j.id AND g.admitted))
    RETURNING j.id, j.attempt, j.uncounted, j.max_attempts, j.kind, j.queue, j.priority, j.payload, j.timeout_ms,
              j.created_at, j.labels::text, j.trace, j.version, extract(epoch FROM j.deadline - {now})::float8, j.followed,
              j.gating::json ->> 'tenant' AS tenant
), noted AS (
    INSERT INTO {schema}.claims (id, worker_id, job_ids)
    SELECT $2, $1, array_agg(id) FROM claimed HAVING count(*) > 0
), gone AS (
    -- They are no longer on their way, which lets another tenant's jobs set out.
    INSERT INTO {schema}.followups (job_id) SELECT id FROM claimed
    WHERE followed AND queue = ANY(ARRAY(SELECT name FROM {schema}.queues WHERE fair_window IS NOT NULL))
)
SELECT * FROM claimed";

/// Sees to jobs that are queued and were not claimed all the same. Those that have not been through their gates, for one since
/// their queue has been limited, are to be held.
/// Those whose queue is paused have lost their message, so they are published again when it is resumed.
const REFUSED: &str = "
WITH refused AS (
    SELECT j.id, q.paused,
           CASE WHEN j.gated THEN NOT EXISTS (SELECT FROM {schema}.gated g WHERE g.job_id = j.id AND g.admitted)
                ELSE q.limited END AS early
    FROM {schema}.jobs j LEFT JOIN {schema}.queues q ON q.name = j.queue
    WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3 AND j.state = {queued}
), held AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM refused WHERE early ORDER BY id
)
INSERT INTO {schema}.outbox (job_ids, due_at)
SELECT array_agg(id), {now} + interval '1 minute' FROM refused WHERE paused HAVING count(*) > 0";

/// What this very claim took when its answer was lost: a row of nulls for nothing, no row for an unknown worker.
pub(super) const CLAIMED_BEFORE: &str = "
SELECT j.id, j.attempt, j.uncounted, j.max_attempts, j.kind, j.queue, j.priority, j.payload, j.timeout_ms,
       j.created_at, j.labels::text, j.trace, j.version, extract(epoch FROM j.deadline - {now})::float8, j.followed,
       j.gating::json ->> 'tenant'
FROM {schema}.workers w
LEFT JOIN {schema}.claims c ON c.id = $2 AND c.worker_id = w.id
LEFT JOIN {schema}.jobs j
    ON j.id = ANY(ARRAY(SELECT unnest(job_ids) FROM {schema}.claims WHERE id = $2))
    AND j.state = {running} AND j.worker_id = c.worker_id
WHERE w.id = $1";

impl PostgresStore {
    pub(super) async fn claim_group(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        // Sorted, so that concurrent claims lock rows in one order.
        let mut ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        ids.sort_unstable();
        ids.dedup();
        let claimed = match range(&ids) {
            Some((least, greatest)) => self.claim_rows(worker, claim, ids, least, greatest).await,
            None => Ok(Vec::new()),
        };
        let rows = match claimed {
            Ok(rows) if !rows.is_empty() => rows,
            // None left to claim, or this claim is noted already. Perhaps an earlier call under this id took them,
            // which may have been under way when this one began, so only a new statement can tell.
            Ok(_) => self.claimed_before(worker, claim).await?,
            Err(Error::Database(e)) if e.is_unique_violation() => self.claimed_before(worker, claim).await?,
            Err(Error::Database(e)) if e.is_foreign_key_violation() => {
                return Err(StoreError::WorkerUnknown(worker));
            }
            Err(error) => return Err(classify(error)),
        };
        rows.iter().map(claimed_job).collect::<Result<_, _>>().map_err(classify)
    }

    async fn claim_rows(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: Vec<Uuid>,
        least: Uuid,
        greatest: Uuid,
    ) -> Result<Vec<PgRow>, Error> {
        let query = self.query(&self.sql.claim).bind(worker.as_uuid()).bind(claim.as_uuid());
        let mut session = self.statement().await?;
        let rows = query.bind(ids.clone()).bind(least).bind(greatest).fetch_all(&mut *session).await?;
        session.commit().await?;
        if rows.len() < ids.len() {
            let refused = self.rare(REFUSED).bind(ids).bind(least).bind(greatest);
            let mut session = self.statement().await?;
            refused.execute(&mut *session).await?;
            session.commit().await?;
        }
        Ok(rows)
    }

    async fn claimed_before(&self, worker: WorkerId, claim: ClaimId) -> Result<Vec<PgRow>, StoreError> {
        let select = async {
            let query = self.query(&self.sql.claimed_before).bind(worker.as_uuid()).bind(claim.as_uuid());
            let mut session = self.statement().await?;
            let rows = query.fetch_all(&mut *session).await?;
            session.commit().await?;
            Ok(rows)
        };
        let mut rows = select.await.map_err(classify)?;
        if rows.is_empty() {
            return Err(StoreError::WorkerUnknown(worker));
        }
        rows.retain(|row| !matches!(row.try_get::<Option<Uuid>, _>(0), Ok(None)));
        Ok(rows)
    }
}

fn claimed_job(row: &PgRow) -> Result<ClaimedJob, Error> {
    let attempt: i32 = row.try_get(1)?;
    let uncounted: i32 = row.try_get(2)?;
    let payload: String = row.try_get(7)?;
    let trace: Option<String> = row.try_get(11)?;
    Ok(ClaimedJob {
        id: row.try_get::<Uuid, _>(0)?.into(),
        fence: number(attempt)?,
        attempt: number(attempt - uncounted)?,
        max_attempts: number(row.try_get(3)?)?,
        kind: row.try_get::<&str, _>(4)?.parse().map_err(unexpected)?,
        queue: row.try_get::<&str, _>(5)?.parse().map_err(unexpected)?,
        priority: priority(row, 6)?,
        payload: serde_json::value::RawValue::from_string(payload).map_err(unexpected)?,
        timeout: row.try_get::<Option<i64>, _>(8)?.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
        created_at: row.try_get(9)?,
        labels: serde_json::from_str(row.try_get(10)?).map_err(unexpected)?,
        trace: trace.and_then(|trace| trace.parse().ok()),
        version: row.try_get::<i16, _>(12)?.unsigned_abs(),
        time_left: row
            .try_get::<Option<f64>, _>(13)?
            .map(|left| Duration::try_from_secs_f64(left).unwrap_or_default()),
        followed: row.try_get(14)?,
        tenant: tenant(row.try_get(15)?)?,
    })
}

pub(super) fn number(value: i32) -> Result<u32, Error> {
    u32::try_from(value).map_err(unexpected)
}
