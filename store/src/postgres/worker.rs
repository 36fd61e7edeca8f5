use std::collections::BTreeMap;

use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{ClaimId, HeartbeatReply, JobId, KindInfo, NewWorker, Rescued, State, WorkerId};

use super::{PostgresStore, claim::number, error::is_deadlock, finish::seconds, range, unexpected};

/// Renews the lease and brings back cancellation requests and claims. No row at all: the worker is unknown, or has said
/// goodbye.
pub(super) const HEARTBEAT: &str = "
WITH beat AS (
    UPDATE {schema}.workers SET heartbeat_at = {now} WHERE id = $1 AND heartbeat_at > '-infinity' RETURNING id
)
SELECT c.job_id, NULL::uuid FROM beat LEFT JOIN {schema}.cancellations c ON c.worker_id = beat.id
UNION ALL
SELECT NULL, c.id FROM beat JOIN {schema}.claims c ON c.worker_id = beat.id";

/// Takes the jobs of dead workers from them. Plan: as for a finish, joined with who held what.
pub(super) const RESCUE: &str = "
WITH lost AS (
    UPDATE {schema}.jobs j
    SET state = CASE
            WHEN j.cancel_requested THEN {to:abort}
            WHEN j.crashes + 1 >= $5 OR j.attempt - j.uncounted >= j.max_attempts THEN {to:quarantine}
            ELSE {to:leaselost} END,
        finished_at = CASE
            WHEN j.cancel_requested OR j.crashes + 1 >= $5 OR j.attempt - j.uncounted >= j.max_attempts
            THEN {now} END,
        crashes = j.crashes + 1
    FROM ROWS FROM (unnest($1::uuid[], $2::uuid[]), generate_series(1, cardinality($1::uuid[]))) AS h (id, worker_id, place)
    WHERE j.id = ANY($1::uuid[]) AND j.id >= $3 AND j.id <= $4
    AND j.id = h.id AND j.worker_id = h.worker_id AND j.state IN ({from:leaselost})
    RETURNING j.id, j.state, j.attempt, j.uncounted, j.followed, h.worker_id
), noted AS (
    INSERT INTO {schema}.job_errors (job_id, fence, attempt, worker, message)
    SELECT l.id, l.attempt, l.attempt - l.uncounted, w.label, 'the worker was lost during this attempt'
    FROM lost l JOIN {schema}.workers w ON w.id = l.worker_id
), requeued AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM lost WHERE state = {queued} HAVING count(*) > 0
), settled AS (
    DELETE FROM {schema}.cancellations WHERE job_id IN (SELECT id FROM lost)
), buried AS (
    INSERT INTO {schema}.dead (job_id, at) SELECT id, {now} FROM lost WHERE state = {dead}
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM lost WHERE followed AND state <> {queued}
)
SELECT state, count(*) FROM lost GROUP BY state";

fn version(info: &KindInfo) -> i16 {
    i16::try_from(info.version).unwrap_or(i16::MAX)
}

impl PostgresStore {
    pub(super) async fn insert_worker(&self, worker: &NewWorker) -> Result<(), Error> {
        let mut kinds: Vec<&KindInfo> = worker.kinds.iter().collect();
        // In one order, so that workers starting together do not wait for each other in a circle. The newest word on
        // a kind is the last.
        kinds.sort_by(|a, b| a.kind.cmp(&b.kind));
        kinds.reverse();
        kinds.dedup_by(|a, b| a.kind == b.kind);
        let mut session = self.transaction().await?;
        self.rare(
            "INSERT INTO {schema}.workers (id, label, lease, kinds)
             VALUES ($1, $2, make_interval(secs => $3), $4)
             ON CONFLICT (id) DO UPDATE SET heartbeat_at = {now}",
        )
        .bind(worker.id.as_uuid())
        .bind(worker.label.replace('\0', ""))
        .bind(seconds(worker.lease))
        .bind(crate::kinds::written(&worker.kinds).map_err(unexpected)?)
        .execute(&mut *session)
        .await?;
        self.rare(
            "INSERT INTO {schema}.kinds AS k (kind, queue, max_attempts, version)
             SELECT * FROM unnest($1::text[], $2::text[], $3::int4[], $4::int2[])
             ON CONFLICT (kind) DO UPDATE SET queue = excluded.queue, max_attempts = excluded.max_attempts,
                                              version = greatest(k.version, excluded.version)
             WHERE (k.queue, k.max_attempts) IS DISTINCT FROM (excluded.queue, excluded.max_attempts)
             OR excluded.version > k.version",
        )
        .bind(kinds.iter().map(|info| info.kind.as_str()).collect::<Vec<_>>())
        .bind(kinds.iter().map(|info| info.queue.as_str()).collect::<Vec<_>>())
        .bind(kinds.iter().map(|i| i32::try_from(i.max_attempts).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .bind(kinds.iter().map(|info| version(info)).collect::<Vec<_>>())
        .execute(&mut *session)
        .await?;
        // Under the locks of their kinds.
        let names: Vec<_> = kinds.iter().map(|info| info.kind.as_str()).collect();
        let schemas: Vec<_> = kinds.iter().map(|info| info.schemas.get(&info.version)).collect();
        for statement in [
            "DELETE FROM {schema}.kind_schemas WHERE (kind, version) IN
                 (SELECT k, v FROM unnest($1::text[], $2::int2[], $3::text[]) AS n (k, v, s) WHERE s IS NULL)",
            "INSERT INTO {schema}.kind_schemas AS k (kind, version, schema)
             SELECT * FROM unnest($1::text[], $2::int2[], $3::text[]) AS n (k, v, s) WHERE s IS NOT NULL
             ON CONFLICT (kind, version) DO UPDATE SET schema = excluded.schema WHERE k.schema <> excluded.schema",
        ] {
            self.rare(statement)
                .bind(names.clone())
                .bind(kinds.iter().map(|info| version(info)).collect::<Vec<_>>())
                .bind(schemas.clone())
                .execute(&mut *session)
                .await?;
        }
        session.commit().await
    }

    pub(super) async fn beat(&self, worker: WorkerId) -> Result<Option<HeartbeatReply>, Error> {
        let mut session = self.statement().await?;
        let query = self.query(&self.sql.heartbeat).bind(worker.as_uuid());
        let rows = query.fetch_all(&mut *session).await?;
        session.commit().await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut reply = HeartbeatReply::default();
        for row in &rows {
            reply.cancel.extend(row.try_get::<Option<Uuid>, _>(0)?.map(JobId::from));
            reply.claims.extend(row.try_get::<Option<Uuid>, _>(1)?.map(ClaimId::from));
        }
        Ok(Some(reply))
    }

    /// Forgets a worker that holds nothing; one that does is dead from now on, and rescued.
    pub(super) async fn delete_worker(&self, worker: WorkerId) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        for statement in [
            "UPDATE {schema}.workers SET heartbeat_at = '-infinity' WHERE id = $1",
            "DELETE FROM {schema}.workers w WHERE id = $1
             AND NOT EXISTS (SELECT FROM {schema}.claims c WHERE c.worker_id = w.id)",
        ] {
            self.rare(statement).bind(worker.as_uuid()).execute(&mut *session).await?;
        }
        session.commit().await
    }

    /// Again where it met, in a circle, a claim of jobs that it rescues: the two lock them in no common order.
    pub(super) async fn rescue_jobs(&self, crash_limit: u32) -> Result<Rescued, Error> {
        loop {
            let mut session = self.transaction().await?;
            match self.rescue_on(&mut session, crash_limit).await {
                Ok(rescued) => {
                    session.commit().await?;
                    return Ok(rescued);
                }
                // The server tells of it before it lets go of the locks, which would be skipped.
                Err(error) if is_deadlock(&error) => session.roll_back().await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn rescue_on(&self, session: &mut PgConnection, crash_limit: u32) -> Result<Rescued, Error> {
        // The lock keeps heartbeats and claims of these workers waiting until they find themselves forgotten.
        let dead = self
            .rare(
                "SELECT id FROM {schema}.workers WHERE heartbeat_at <= {now} - lease
                 ORDER BY id FOR UPDATE SKIP LOCKED",
            )
            .fetch_all(&mut *session)
            .await?;
        let dead: Vec<Uuid> = dead.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let mut rescued = Rescued::default();
        if dead.is_empty() {
            return Ok(rescued);
        }
        let held = self
            .rare(
                "SELECT DISTINCT i.id, c.worker_id FROM {schema}.claims c CROSS JOIN LATERAL unnest(c.job_ids) AS i (id)
                 WHERE c.worker_id = ANY($1) ORDER BY i.id",
            )
            .bind(&dead)
            .fetch_all(&mut *session)
            .await?;
        let ids: Vec<Uuid> = held.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let workers: Vec<Uuid> = held.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        if let Some((least, greatest)) = range(&ids) {
            let query = self.query(&self.sql.rescue).bind(ids).bind(workers).bind(least).bind(greatest);
            let crash_limit = i32::try_from(crash_limit).unwrap_or(i32::MAX);
            for row in query.bind(crash_limit).fetch_all(&mut *session).await? {
                let count = row.try_get::<i64, _>(1)?.unsigned_abs();
                if row.try_get::<i16, _>(0)? == State::Dead.code() {
                    rescued.dead += count;
                } else {
                    rescued.requeued += count;
                }
            }
        }
        // Claims after jobs, as when a worker finishes.
        for statement in [
            "DELETE FROM {schema}.claims WHERE worker_id = ANY($1)",
            "DELETE FROM {schema}.workers WHERE id = ANY($1)",
        ] {
            self.rare(statement).bind(&dead).execute(&mut *session).await?;
        }
        rescued.workers = dead.into_iter().map(Into::into).collect();
        Ok(rescued)
    }

    pub(super) async fn select_kinds(&self) -> Result<Vec<KindInfo>, Error> {
        let mut session = self.statement().await?;
        let select = self.rare(
            "SELECT k.kind, k.queue, k.max_attempts, k.version, s.version, s.schema
             FROM {schema}.kinds k LEFT JOIN {schema}.kind_schemas s USING (kind) ORDER BY k.kind",
        );
        let rows = select.fetch_all(&mut *session).await?;
        session.commit().await?;
        let said = rows.iter().map(|row| {
            let number_of = |column| -> Result<u16, Error> {
                u16::try_from(row.try_get::<i16, _>(column)?).map_err(unexpected)
            };
            let info = KindInfo {
                kind: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
                queue: row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?,
                max_attempts: number(row.try_get(2)?)?,
                version: number_of(3)?,
                schemas: BTreeMap::new(),
            };
            let schema = match row.try_get::<Option<String>, _>(5)? {
                Some(schema) => Some((number_of(4)?, schema)),
                None => None,
            };
            Ok((info, schema))
        });
        Ok(crate::kinds::gathered(said.collect::<Result<_, Error>>()?))
    }
}
