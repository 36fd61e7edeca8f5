use std::collections::{HashMap, HashSet};

use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{InsertOutcome, JobId, KeyHolder, NewJob, Timestamp, Unique, UnknownState};

use super::{PostgresStore, range, unexpected};
use crate::unique::{Changes, Key, Known, keys, resolve};

/// Locks the keys, each new one in the name of a job that wants it, and answers who had them last. Keys come sorted, so
/// that groups with the same keys cannot wait for each other in a circle.
const LOCK: &str = "
INSERT INTO {schema}.unique_keys AS k (key, job_id, check_at)
SELECT key, job_id, {now} FROM unnest($1::bytea[], $2::uuid[]) AS i (key, job_id)
ON CONFLICT (key) DO UPDATE SET key = excluded.key
RETURNING k.key, k.job_id, k.until, {now}";

/// The jobs that have the keys, in a statement of its own, so that it sees what was committed while the keys were waited
/// for. `{lock}` keeps those that may be replaced from being claimed meanwhile.
pub(super) const HOLDERS: &str = "
SELECT id, state, attempt, created_at FROM {schema}.jobs WHERE id = ANY($1) AND id >= $2 AND id <= $3 ORDER BY id {lock}";

const TAKE: &str = "
UPDATE {schema}.unique_keys k SET job_id = i.job_id, until = i.until, check_at = i.check_at
FROM unnest($1::bytea[], $2::uuid[], $3::timestamptz[], $4::timestamptz[]) AS i (key, job_id, until, check_at)
WHERE k.key = i.key";

/// The holders are locked, and have not been claimed. The time moves only where one is waited for.
pub(super) const REPLACE: &str = "
WITH replaced AS (
    UPDATE {schema}.jobs j
    SET payload = i.payload, version = i.version,
        run_at = CASE WHEN j.state = {scheduled} THEN coalesce(i.run_at, j.run_at) END
    FROM ROWS FROM (
        unnest($1::uuid[], $2::text[], $3::int2[], $4::timestamptz[]), generate_series(1, cardinality($1::uuid[]))
    ) AS i (id, payload, version, run_at, place)
    WHERE j.id = ANY($1) AND j.id >= $5 AND j.id <= $6 AND j.id = i.id
    RETURNING j.id, j.state, j.run_at
)
UPDATE {schema}.due d SET run_at = r.run_at FROM replaced r WHERE d.job_id = r.id AND r.state = {scheduled}";

/// Looks at some keys whose time to be looked at has come: those of no use go, except those that an insert is just taking.
///
/// Plan: as for the outbox, the array of ids into the primary keys of the partitions in range.
pub(super) const CLEAN: &str = "
WITH looked AS MATERIALIZED (
    SELECT key, job_id, until FROM {schema}.unique_keys WHERE check_at <= {now}
    ORDER BY check_at LIMIT 10000 FOR UPDATE SKIP LOCKED
), wanted AS MATERIALIZED (
    SELECT ARRAY(SELECT job_id FROM looked WHERE until IS NULL ORDER BY job_id) AS ids
), live AS MATERIALIZED (
    SELECT id FROM {schema}.jobs
    WHERE id = ANY((SELECT ids FROM wanted)::uuid[])
    AND id >= (SELECT ids[1] FROM wanted) AND id <= (SELECT ids[cardinality(ids)] FROM wanted)
    AND state NOT IN ({succeeded}, {cancelled}, {dead})
), free AS MATERIALIZED (
    SELECT l.key FROM looked l LEFT JOIN live ON live.id = l.job_id WHERE coalesce(l.until <= {now}, live.id IS NULL)
), gone AS (
    DELETE FROM {schema}.unique_keys WHERE key = ANY(ARRAY(SELECT key FROM free))
)
UPDATE {schema}.unique_keys SET check_at = {now} + interval '1 hour'
WHERE key = ANY(ARRAY(SELECT key FROM looked EXCEPT SELECT key FROM free))";

impl PostgresStore {
    /// Answers those of a group's jobs whose unique keys others have, and makes the others the holders of theirs. `None`: no
    /// job has such a key. Otherwise the jobs as they are to be inserted.
    pub(super) async fn resolve_unique(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
        answers: &mut [Option<InsertOutcome>],
    ) -> Result<Option<Vec<NewJob>>, Error> {
        if jobs.iter().all(|job| job.unique.is_none()) {
            return Ok(None);
        }
        let keys = keys(jobs, answers);
        let mut jobs = jobs.to_vec();
        if let Some(known) = self.known(connection, &jobs, &keys).await? {
            let changes = resolve(&mut jobs, answers, &keys, known);
            self.apply(connection, &changes).await?;
        }
        Ok(Some(jobs))
    }

    async fn known(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
        keys: &[Option<Key>],
    ) -> Result<Option<Known>, Error> {
        let wanting = jobs.iter().zip(keys).filter_map(|(job, key)| Some(((*key)?, job.id.as_uuid())));
        let mut wanted: Vec<(Key, Uuid)> = wanting.clone().collect();
        // Stable: of several jobs with one key, the first.
        wanted.sort_by_key(|(key, _)| *key);
        wanted.dedup_by_key(|(key, _)| *key);
        let rows = self
            .rare(LOCK)
            .bind(wanted.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>())
            .bind(wanted.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let now: Timestamp = first.try_get(3)?;
        let mut ids: Vec<Uuid> = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        ids.extend(wanting.map(|(_, id)| id));
        let Some((least, greatest)) = range(&ids) else { return Ok(None) };
        let replaces = jobs.iter().filter_map(|job| job.unique.as_deref()).any(Unique::may_replace);
        if replaces {
            // Times before jobs, as promotion takes them.
            self.rare("SELECT FROM {schema}.due WHERE job_id = ANY($1) ORDER BY job_id FOR UPDATE")
                .bind(ids.clone())
                .execute(&mut *connection)
                .await?;
        }
        let select = HOLDERS.replace("{lock}", if replaces { "FOR UPDATE" } else { "" });
        let found =
            self.rare(&select).bind(ids).bind(least).bind(greatest).fetch_all(&mut *connection).await?;
        let mut states = HashMap::with_capacity(found.len());
        for row in &found {
            let state = row.try_get::<i16, _>(1)?.try_into().map_err(unexpected::<UnknownState>)?;
            let claimed = row.try_get::<i32, _>(2)? > 0;
            states.insert(row.try_get::<Uuid, _>(0)?, (state, claimed, row.try_get::<Timestamp, _>(3)?));
        }
        let mut holders = HashMap::with_capacity(rows.len());
        for row in &rows {
            let key: Key =
                row.try_get::<Vec<u8>, _>(0)?.try_into().map_err(|_| unexpected("a key's length"))?;
            let id: Uuid = row.try_get(1)?;
            let (state, claimed, created_at) = match states.get(&id) {
                Some((state, claimed, created_at)) => (Some(*state), *claimed, *created_at),
                None => (None, false, now),
            };
            let until = row.try_get(2)?;
            holders.insert(key, KeyHolder { id: id.into(), state, claimed, until, created_at });
        }
        let existing: HashSet<JobId> =
            jobs.iter().map(|job| job.id).filter(|id| states.contains_key(&id.as_uuid())).collect();
        Ok(Some(Known { now, holders, existing }))
    }

    async fn apply(&self, connection: &mut PgConnection, changes: &Changes) -> Result<(), Error> {
        if !changes.takes.is_empty() {
            let takes = || changes.takes.values();
            self.rare(TAKE)
                .bind(changes.takes.keys().map(|key| key.to_vec()).collect::<Vec<_>>())
                .bind(takes().map(|take| take.job.as_uuid()).collect::<Vec<_>>())
                .bind(takes().map(|take| take.until).collect::<Vec<_>>())
                .bind(takes().map(|take| take.check_at).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let ids: Vec<Uuid> = changes.replacements.keys().map(|id| id.as_uuid()).collect();
        if let Some((least, greatest)) = range(&ids) {
            let replacements = || changes.replacements.values();
            self.rare(REPLACE)
                .bind(ids)
                .bind(replacements().map(|r| r.payload.clone()).collect::<Vec<_>>())
                .bind(
                    replacements().map(|r| i16::try_from(r.version).unwrap_or(i16::MAX)).collect::<Vec<_>>(),
                )
                .bind(replacements().map(|r| r.run_at).collect::<Vec<_>>())
                .bind(least)
                .bind(greatest)
                .execute(&mut *connection)
                .await?;
        }
        if !changes.moved.is_empty() {
            self.rare(
                "UPDATE {schema}.idempotency_keys k SET job_id = i.job_id
                 FROM unnest($1::bytea[], $2::uuid[]) AS i (key, job_id) WHERE k.key = i.key",
            )
            .bind(changes.moved.iter().map(|(key, _)| key.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(changes.moved.iter().map(|(_, id)| id.as_uuid()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        }
        if !changes.freed.is_empty() {
            self.rare("DELETE FROM {schema}.idempotency_keys WHERE key = ANY($1)")
                .bind(changes.freed.iter().map(|key| key.as_bytes().to_vec()).collect::<Vec<_>>())
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    pub(super) async fn clean_unique_keys(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.rare(CLEAN).execute(connection).await.map(drop)
    }
}
