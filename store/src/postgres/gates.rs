//! The books of the gates in Postgres; [`crate::admission`] says what they are for.

use std::collections::{BTreeSet, HashMap};

use sqlx::{Error, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{JobId, State};

use super::{PostgresStore, queues, range, unexpected};
use crate::admission::{self, Books, Call, Gate, Line, Noted, Passed, Place, Rules};

/// Jobs that have to do with gates, in no order; not yet those that wait for parents. Plan: primary keys of the partitions in range.
const NOTED: &str = "
SELECT j.id, j.queue, j.priority, j.gating, j.state, coalesce(g.admitted, false), g.line,
       ARRAY(SELECT s.gate FROM {schema}.slots s WHERE s.job_id = j.id)
FROM {schema}.jobs j LEFT JOIN {schema}.gated g ON g.job_id = j.id
WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3
AND (j.gated OR j.queue = ANY(ARRAY(SELECT name FROM {schema}.queues WHERE limited)))
AND NOT j.held";

/// Queued jobs that have not been through the gates: of queues that have been limited since, or revived.
const HOLD: &str = "
UPDATE {schema}.jobs SET state = {to:hold}, gated = true, followed = true
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state = {queued}
RETURNING id";

/// Jobs that were running when their queue was limited.
const MARK: &str = "
UPDATE {schema}.jobs SET gated = true, followed = true
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state = {running} AND NOT gated";

/// What was called off meanwhile leaves a follow-up of its own.
const ADMIT: &str = "
WITH admitted AS (
    UPDATE {schema}.jobs SET state = {to:admit}
    WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state = {waiting}
    RETURNING id
)
INSERT INTO {schema}.outbox (job_ids, due_at) SELECT array_agg(id), {now} FROM admitted HAVING count(*) > 0";

impl PostgresStore {
    /// One process at a time lets jobs through. Taken before the notes are, so that they are seen to in their order.
    pub(super) async fn lock_gates(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let lock = self.rare("SELECT pg_advisory_xact_lock(hashtextextended('windlass gates {schema}', 0))");
        lock.execute(connection).await.map(drop)
    }

    /// Lets these jobs, and those behind gates that are due, go on as far as they can. Answers how many gates were due.
    pub(super) async fn pass_gates(
        &self,
        connection: &mut PgConnection,
        jobs: &[Uuid],
        limit: usize,
    ) -> Result<usize, Error> {
        let now = self.rare("SELECT (extract(epoch FROM {now}) * 1000000)::int8");
        let now: i64 = now.fetch_one(&mut *connection).await?.try_get(0)?;
        let noted = self.noted(connection, jobs).await?;
        let unmarked: Vec<Uuid> = noted
            .iter()
            .filter(|job| job.state == State::Running && !job.admitted)
            .map(|job| job.call.id.as_uuid())
            .collect();
        self.jobs(MARK, connection, unmarked).await?;
        let mut books = Ledger { store: self, connection: &mut *connection };
        let Passed { admitted, due } = admission::pass(&mut books, noted, now, limit).await?;
        self.jobs(ADMIT, connection, admitted.iter().map(|id| id.as_uuid()).collect()).await?;
        Ok(due)
    }

    async fn noted(&self, connection: &mut PgConnection, jobs: &[Uuid]) -> Result<Vec<Noted>, Error> {
        let Some((least, greatest)) = range(jobs) else { return Ok(Vec::new()) };
        let query = self.rare(NOTED).bind(jobs.to_vec()).bind(least).bind(greatest);
        let rows = query.fetch_all(&mut *connection).await?;
        let mut found: HashMap<Uuid, Noted> = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert(row.try_get(0)?, noted(row)?);
        }
        let early = found.iter().filter(|(_, job)| job.state == State::Queued && !job.admitted);
        let early: Vec<Uuid> = early.map(|(id, _)| *id).collect();
        let held = self.jobs(HOLD, connection, early.clone()).await?;
        for id in early {
            if held.contains(&id) {
                if let Some(job) = found.get_mut(&id) {
                    job.state = State::Waiting;
                }
            } else {
                found.remove(&id);
            }
        }
        Ok(jobs.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Runs a statement over jobs, which are locked in the order of their ids.
    async fn jobs(
        &self,
        statement: &str,
        connection: &mut PgConnection,
        mut ids: Vec<Uuid>,
    ) -> Result<BTreeSet<Uuid>, Error> {
        ids.sort_unstable();
        let Some((least, greatest)) = range(&ids) else { return Ok(BTreeSet::new()) };
        let query = self.rare(statement).bind(ids).bind(least).bind(greatest);
        query.fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
    }
}

struct Ledger<'a> {
    store: &'a PostgresStore,
    connection: &'a mut PgConnection,
}

impl Books for Ledger<'_> {
    async fn rules(&mut self) -> Result<Rules, Error> {
        let limits = self
            .store
            .rare("SELECT name, max_running, rate, per_us, burst FROM {schema}.limits")
            .fetch_all(&mut *self.connection)
            .await?;
        let queues = self
            .store
            .rare("SELECT name, max_running, rate, per_us, burst, fair_window FROM {schema}.queues WHERE limited")
            .fetch_all(&mut *self.connection)
            .await?;
        let limits = limits.iter().map(|row| Ok((row.try_get(0)?, queues::limit(row, 1)?)));
        let queues = queues.iter().map(|row| Ok((row.try_get(0)?, queues::rule(row, 1)?)));
        Ok(Rules {
            limits: limits.collect::<Result<_, Error>>()?,
            queues: queues.collect::<Result<_, Error>>()?,
        })
    }

    async fn gates(&mut self, keys: &[String]) -> Result<Vec<Gate>, Error> {
        let query = self
            .store
            .rare("SELECT key, taken, full_at, next_at, rank FROM {schema}.gates WHERE key = ANY($1)");
        query.bind(keys.to_vec()).fetch_all(&mut *self.connection).await?.iter().map(gate).collect()
    }

    async fn due_gates(&mut self, now: i64, limit: usize) -> Result<Vec<Gate>, Error> {
        let query = self.store.rare(
            "SELECT key, taken, full_at, next_at, rank FROM {schema}.gates WHERE next_at <= $1
             ORDER BY next_at LIMIT $2",
        );
        let query = query.bind(now).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&mut *self.connection).await?.iter().map(gate).collect()
    }

    async fn write_gates(&mut self, gates: &[Gate], idle: &[Gate]) -> Result<(), Error> {
        self.store
            .rare(
                "INSERT INTO {schema}.gates (key, taken, full_at, next_at, rank)
                 SELECT * FROM unnest($1::text[], $2::int4[], $3::int8[], $4::int8[], $5::int8[])
                 ON CONFLICT (key) DO UPDATE SET taken = excluded.taken, full_at = excluded.full_at,
                     next_at = excluded.next_at, rank = excluded.rank",
            )
            .bind(gates.iter().map(|gate| gate.key.clone()).collect::<Vec<_>>())
            .bind(gates.iter().map(|gate| i32::try_from(gate.taken).unwrap_or(i32::MAX)).collect::<Vec<_>>())
            .bind(gates.iter().map(|gate| gate.full_at).collect::<Vec<_>>())
            .bind(gates.iter().map(|gate| gate.next_at).collect::<Vec<_>>())
            .bind(gates.iter().map(|gate| gate.rank).collect::<Vec<_>>())
            .execute(&mut *self.connection)
            .await?;
        let query = self.store.rare("DELETE FROM {schema}.gates WHERE key = ANY($1)");
        let query = query.bind(idle.iter().map(|gate| gate.key.clone()).collect::<Vec<_>>());
        query.execute(&mut *self.connection).await.map(drop)
    }

    async fn write_slots(
        &mut self,
        left: &[(JobId, String)],
        taken: &[(JobId, String)],
    ) -> Result<(), Error> {
        for (statement, slots) in [
            (
                "DELETE FROM {schema}.slots s USING unnest($1::uuid[], $2::text[]) AS i (job_id, gate)
                 WHERE s.job_id = i.job_id AND s.gate = i.gate",
                left,
            ),
            ("INSERT INTO {schema}.slots (job_id, gate) SELECT * FROM unnest($1::uuid[], $2::text[])", taken),
        ] {
            self.store
                .rare(statement)
                .bind(slots.iter().map(|(job, _)| job.as_uuid()).collect::<Vec<_>>())
                .bind(slots.iter().map(|(_, gate)| gate.clone()).collect::<Vec<_>>())
                .execute(&mut *self.connection)
                .await?;
        }
        Ok(())
    }

    async fn find_line(&mut self, gates: &str) -> Result<Option<Line>, Error> {
        let query = self
            .store
            .rare("SELECT id, gates, waits_at, urgency, rank, seq FROM {schema}.lines WHERE gates = $1");
        query
            .bind(gates.to_owned())
            .fetch_optional(&mut *self.connection)
            .await?
            .as_ref()
            .map(line)
            .transpose()
    }

    async fn best_line(&mut self, gate: &str) -> Result<Option<Line>, Error> {
        let query = self.store.rare(
            "SELECT id, gates, waits_at, urgency, rank, seq FROM {schema}.lines WHERE waits_at = $1
             ORDER BY urgency, rank, seq LIMIT 1",
        );
        query
            .bind(gate.to_owned())
            .fetch_optional(&mut *self.connection)
            .await?
            .as_ref()
            .map(line)
            .transpose()
    }

    async fn add_line(&mut self, gates: &str, waits_at: &str) -> Result<i64, Error> {
        let query = self.store.rare(
            "INSERT INTO {schema}.lines (gates, waits_at, urgency, rank, seq) VALUES ($1, $2, 0, 0, 0) RETURNING id",
        );
        let query = query.bind(gates.to_owned()).bind(waits_at.to_owned());
        query.fetch_one(&mut *self.connection).await?.try_get(0)
    }

    async fn move_line(&mut self, line: i64, waits_at: &str, place: Place) -> Result<(), Error> {
        self.store
            .rare("UPDATE {schema}.lines SET waits_at = $2, urgency = $3, rank = $4, seq = $5 WHERE id = $1")
            .bind(line)
            .bind(waits_at.to_owned())
            .bind(place.urgency)
            .bind(place.rank)
            .bind(place.seq)
            .execute(&mut *self.connection)
            .await
            .map(drop)
    }

    async fn drop_line(&mut self, line: i64) -> Result<(), Error> {
        let query = self.store.rare("DELETE FROM {schema}.lines WHERE id = $1").bind(line);
        query.execute(&mut *self.connection).await.map(drop)
    }

    async fn first_in(&mut self, line: i64) -> Result<Option<(JobId, Place)>, Error> {
        let query = self.store.rare(
            "SELECT job_id, urgency, rank, seq FROM {schema}.gated WHERE line = $1
             ORDER BY urgency, rank, seq LIMIT 1",
        );
        let row = query.bind(line).fetch_optional(&mut *self.connection).await?;
        row.map(|row| Ok((row.try_get::<Uuid, _>(0)?.into(), place(&row, 1)?))).transpose()
    }

    async fn join(&mut self, job: JobId, urgency: i16, rank: i64, line: i64) -> Result<i64, Error> {
        self.store
            .rare(
                "INSERT INTO {schema}.gated (job_id, urgency, rank, line, admitted) VALUES ($1, $2, $3, $4, false)
                 ON CONFLICT (job_id) DO UPDATE SET urgency = excluded.urgency, rank = excluded.rank,
                     line = excluded.line, admitted = false
                 RETURNING seq",
            )
            .bind(job.as_uuid())
            .bind(urgency)
            .bind(rank)
            .bind(line)
            .fetch_one(&mut *self.connection)
            .await?
            .try_get(0)
    }

    async fn leave(&mut self, jobs: &[JobId], admitted: bool) -> Result<(), Error> {
        self.store
            .rare(
                "INSERT INTO {schema}.gated (job_id, urgency, rank, admitted)
                 SELECT job_id, 0, 0, $2 FROM unnest($1::uuid[]) AS i (job_id)
                 ON CONFLICT (job_id) DO UPDATE SET line = NULL, admitted = excluded.admitted",
            )
            .bind(jobs.iter().map(|job| job.as_uuid()).collect::<Vec<_>>())
            .bind(admitted)
            .execute(&mut *self.connection)
            .await
            .map(drop)
    }

    async fn forget(&mut self, jobs: &[JobId]) -> Result<(), Error> {
        let query = self.store.rare("DELETE FROM {schema}.gated WHERE job_id = ANY($1)");
        let query = query.bind(jobs.iter().map(|job| job.as_uuid()).collect::<Vec<_>>());
        query.execute(&mut *self.connection).await.map(drop)
    }

    async fn call(&mut self, job: JobId) -> Result<Option<Call>, Error> {
        let query = self.store.rare("SELECT id, queue, priority, gating FROM {schema}.jobs WHERE id = $1");
        let row = query.bind(job.as_uuid()).fetch_optional(&mut *self.connection).await?;
        row.as_ref().map(call).transpose()
    }

    async fn share(&mut self, queue: &str, tenant: &str) -> Result<Option<i64>, Error> {
        let query = self.store.rare("SELECT rank FROM {schema}.shares WHERE queue = $1 AND tenant = $2");
        let query = query.bind(queue.to_owned()).bind(tenant.to_owned());
        query.fetch_optional(&mut *self.connection).await?.map(|row| row.try_get(0)).transpose()
    }

    async fn write_shares(&mut self, shares: &HashMap<(String, String), i64>) -> Result<(), Error> {
        self.store
            .rare(
                "INSERT INTO {schema}.shares (queue, tenant, rank)
                 SELECT * FROM unnest($1::text[], $2::text[], $3::int8[])
                 ON CONFLICT (queue, tenant) DO UPDATE SET rank = excluded.rank",
            )
            .bind(shares.keys().map(|(queue, _)| queue.clone()).collect::<Vec<_>>())
            .bind(shares.keys().map(|(_, tenant)| tenant.clone()).collect::<Vec<_>>())
            .bind(shares.values().copied().collect::<Vec<_>>())
            .execute(&mut *self.connection)
            .await
            .map(drop)
    }
}

fn noted(row: &PgRow) -> Result<Noted, Error> {
    Ok(Noted {
        call: call(row)?,
        state: row.try_get::<i16, _>(4)?.try_into().map_err(unexpected::<windlass_core::UnknownState>)?,
        admitted: row.try_get(5)?,
        line: row.try_get(6)?,
        slots: row.try_get(7)?,
    })
}

fn call(row: &PgRow) -> Result<Call, Error> {
    Ok(Call {
        id: row.try_get::<Uuid, _>(0)?.into(),
        queue: row.try_get(1)?,
        urgency: -row.try_get::<i16, _>(2)?,
        gating: gating(row, 3)?,
    })
}

/// What a job may have to wait for.
pub(super) fn gating(row: &PgRow, column: usize) -> Result<windlass_core::Gating, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map_or(Ok(windlass_core::Gating::default()), |text| serde_json::from_str(text).map_err(unexpected))
}

fn gate(row: &PgRow) -> Result<Gate, Error> {
    Ok(Gate {
        key: row.try_get(0)?,
        taken: row.try_get::<i32, _>(1)?.max(0).unsigned_abs(),
        full_at: row.try_get(2)?,
        next_at: row.try_get(3)?,
        rank: row.try_get(4)?,
    })
}

fn line(row: &PgRow) -> Result<Line, Error> {
    Ok(Line {
        id: row.try_get(0)?,
        gates: serde_json::from_str(row.try_get(1)?).map_err(unexpected)?,
        waits_at: row.try_get(2)?,
        place: place(row, 3)?,
    })
}

fn place(row: &PgRow, first: usize) -> Result<Place, Error> {
    Ok(Place { urgency: row.try_get(first)?, rank: row.try_get(first + 1)?, seq: row.try_get(first + 2)? })
}
