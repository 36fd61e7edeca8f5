use std::collections::{HashMap, HashSet};

use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{DeadCursor, DeadFilter, DeadPage, JobId, State, Timestamp};

use super::{PostgresStore, range};

/// How many dead jobs one page looks at.
const SCAN: i64 = 10_000;

/// What else is kept of a job that is over, by table.
pub(super) const SIDE_TABLES: &[(&str, &str)] = &[
    ("job_errors", "job_id"),
    ("job_progress", "job_id"),
    ("job_logs", "job_id"),
    ("job_checkpoints", "job_id"),
    ("expiring_results", "job_id"),
    ("dead", "job_id"),
    ("due", "job_id"),
    ("timers", "job_id"),
    ("workflow_jobs", "job_id"),
    ("dependencies", "parent_id"),
    ("dependencies", "child_id"),
];

/// The next of the dead by time.
const NEXT_DEAD: &str = "
SELECT job_id, at FROM {schema}.dead
WHERE (at, job_id) < (coalesce($1, 'infinity'::timestamptz), coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
AND at >= coalesce($3, '-infinity'::timestamptz) AND at < coalesce($4, 'infinity'::timestamptz)
ORDER BY at DESC, job_id DESC LIMIT $5";

/// Locks jobs in the order in which claims do, so that the statements after it see all that was committed with their
/// ends.
const LOCK: &str = "
SELECT id FROM {schema}.jobs
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state = ANY($4) ORDER BY id FOR UPDATE";

/// While a partition is being dropped, nothing in it that is over may come to life again.
pub(super) const KEEP_RETRIES_WAITING: &str =
    "SELECT pg_advisory_xact_lock(hashtextextended('windlass retry {schema}', 0))";
const WAIT_FOR_RETENTION: &str =
    "SELECT pg_advisory_xact_lock_shared(hashtextextended('windlass retry {schema}', 0))";

/// A gated job is held at once, as when it is promoted.
pub(super) const RETRY: &str = "
WITH retried AS (
    UPDATE {schema}.jobs
    SET state = CASE WHEN gated OR held THEN {to:hold} ELSE {to:retry} END,
        uncounted = attempt, crashes = 0, cancel_requested = false,
        run_at = NULL, finished_at = NULL, result = NULL,
        expires_at = CASE WHEN expires_at > {now} THEN expires_at END,
        deadline = CASE WHEN deadline > {now} THEN deadline END
    WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state IN ({from:retry})
    RETURNING id, state
), unburied AS (
    DELETE FROM {schema}.dead WHERE job_id IN (SELECT id FROM retried)
), forgotten AS (
    DELETE FROM {schema}.expiring_results WHERE job_id IN (SELECT id FROM retried)
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM retried WHERE state = {waiting} ORDER BY id
), ledger AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM retried WHERE state = {queued} HAVING count(*) > 0
)
SELECT id FROM retried";

const DELETE: &str = "
DELETE FROM {schema}.jobs
WHERE id = ANY($1) AND id >= $2 AND id <= $3
AND id <> ALL(ARRAY(SELECT job_id FROM {schema}.followups WHERE job_id = ANY($1)))
RETURNING id";

impl PostgresStore {
    pub(super) async fn select_dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        let mut session = self.transaction().await?;
        let scanned = self
            .rare(NEXT_DEAD)
            .bind(after.map(|cursor| cursor.at))
            .bind(after.map(|cursor| cursor.id.as_uuid()))
            .bind(filter.since)
            .bind(filter.until)
            .bind(SCAN)
            .fetch_all(&mut *session)
            .await?;
        let more = i64::try_from(scanned.len()) == Ok(SCAN);
        let scanned: Vec<(Uuid, Timestamp)> =
            scanned.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?;
        let ids: Vec<Uuid> = scanned.iter().map(|(id, _)| *id).collect();
        let fitting = self.fitting(&mut session, &crate::dead::filter(filter), ids, scanned.len()).await?;
        session.commit().await?;
        let fitting: HashSet<JobId> = fitting.into_iter().map(|(id, _)| id).collect();
        let scanned: Vec<(JobId, Timestamp)> = scanned.into_iter().map(|(id, at)| (id.into(), at)).collect();
        let (ids, next) = crate::dead::page(&scanned, more, |id| fitting.contains(id), limit);
        let jobs = self.select_jobs(&ids).await?;
        let mut jobs: HashMap<JobId, _> = jobs.into_iter().map(|job| (job.id, job)).collect();
        Ok(DeadPage { jobs: ids.iter().filter_map(|id| jobs.remove(id)).collect(), next })
    }

    pub(super) async fn retry_jobs(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let mut session = self.transaction().await?;
        self.rare(WAIT_FOR_RETENTION).execute(&mut *session).await?;
        let locked = self.lock_ended(&mut session, ids, from).await?;
        let (least, greatest) = range(&locked).unwrap_or_default();
        let retry = self.rare(RETRY).bind(locked).bind(least).bind(greatest);
        let rows = retry.fetch_all(&mut *session).await?;
        let retried: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        self.note_revision(&mut session, retried.len()).await?;
        self.count_again(&mut session, retried.clone()).await?;
        session.commit().await?;
        Ok(retried.into_iter().map(Into::into).collect())
    }

    pub(super) async fn delete_jobs(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let mut session = self.transaction().await?;
        let locked = self.lock_ended(&mut session, ids, from).await?;
        let (least, greatest) = range(&locked).unwrap_or_default();
        let delete = self.rare(DELETE).bind(locked).bind(least).bind(greatest);
        let rows = delete.fetch_all(&mut *session).await?;
        let deleted: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for (table, key) in SIDE_TABLES {
            let clear = format!(
                "DELETE FROM {{schema}}.{table} WHERE {key} = ANY($1) AND {key} >= $2 AND {key} <= $3"
            );
            self.rare(&clear).bind(&deleted).bind(least).bind(greatest).execute(&mut *session).await?;
        }
        self.note_revision(&mut session, deleted.len()).await?;
        session.commit().await?;
        Ok(deleted.into_iter().map(Into::into).collect())
    }

    async fn lock_ended(
        &self,
        connection: &mut PgConnection,
        ids: &[JobId],
        from: &[State],
    ) -> Result<Vec<Uuid>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let (least, greatest) = range(&ids).unwrap_or_default();
        let from: Vec<i16> =
            from.iter().filter(|state| state.is_terminal()).map(|state| state.code()).collect();
        let lock = self.rare(LOCK).bind(ids).bind(least).bind(greatest).bind(from);
        lock.fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
    }
}
