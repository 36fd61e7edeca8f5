//! The books of the gates in SQLite; [`crate::admission`] says what they are for. The write lock is the lock of the gates.

use std::collections::HashMap;

use serde::Serialize;
use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{Gating, JobId, State};

use super::{ids, insert::insert_outbox, queues, read, statement, unexpected};
use crate::admission::{self, Books, Call, Gate, Line, Noted, Passed, Place, Rules};

statement!(
    NOTED,
    "SELECT j.id, j.queue, j.priority, j.gating, j.state, coalesce(g.admitted, 0), g.line,
            (SELECT json_group_array(s.gate) FROM slots s WHERE s.job_id = j.id)
     FROM json_each(?1) i CROSS JOIN jobs j ON j.id = i.value LEFT JOIN gated g ON g.job_id = j.id
     WHERE (j.gated OR j.queue IN (SELECT name FROM queues WHERE limited)) AND NOT j.held"
);
statement!(
    HOLD,
    "UPDATE jobs SET state = {to:hold}, gated = 1, followed = 1
     WHERE id IN (SELECT value FROM json_each(?)) AND state = {queued}"
);
statement!(
    MARK,
    "UPDATE jobs SET gated = 1, followed = 1
     WHERE id IN (SELECT value FROM json_each(?)) AND state = {running} AND NOT gated"
);
statement!(
    ADMIT,
    "UPDATE jobs SET state = {to:admit}
     WHERE id IN (SELECT value FROM json_each(?)) AND state = {waiting} RETURNING id"
);

const GATES: &str = "SELECT key, taken, full_at, next_at, rank FROM gates";
const LINES: &str = "SELECT id, gates, waits_at, urgency, rank, seq FROM lines";

/// Lets these jobs, and those behind gates that are due, go on as far as they can. Answers how many gates were due.
pub(super) async fn pass_gates(
    connection: &mut SqliteConnection,
    jobs: &[String],
    limit: usize,
    now: i64,
) -> Result<usize, Error> {
    let rows = sqlx::query(NOTED.clone()).bind(ids(jobs)).fetch_all(&mut *connection).await?;
    let mut found: HashMap<JobId, Noted> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let job = noted(row)?;
        found.insert(job.call.id, job);
    }
    let (mut early, mut unmarked) = (Vec::new(), Vec::new());
    for job in found.values_mut().filter(|job| !job.admitted) {
        match job.state {
            State::Queued => {
                job.state = State::Waiting;
                early.push(job.call.id);
            }
            State::Running => unmarked.push(job.call.id),
            _ => {}
        }
    }
    for (statement, jobs) in [(HOLD.clone(), early), (MARK.clone(), unmarked)] {
        if !jobs.is_empty() {
            sqlx::query(statement).bind(ids(jobs)).execute(&mut *connection).await?;
        }
    }
    let mut in_order = Vec::with_capacity(found.len());
    for id in jobs {
        in_order.extend(found.remove(&read::id(id)?));
    }
    let Passed { admitted, due } =
        admission::pass(&mut Ledger(&mut *connection), in_order, now, limit).await?;
    if !admitted.is_empty() {
        let rows = sqlx::query(ADMIT.clone()).bind(ids(admitted)).fetch_all(&mut *connection).await?;
        let queued: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        insert_outbox(connection, queued, now, now).await?;
    }
    Ok(due)
}

struct Ledger<'a>(&'a mut SqliteConnection);

impl Books for Ledger<'_> {
    async fn rules(&mut self) -> Result<Rules, Error> {
        let limits = sqlx::query("SELECT name, max_running, rate, per_us, burst FROM limits")
            .fetch_all(&mut *self.0)
            .await?;
        let queues = sqlx::query(
            "SELECT name, max_running, rate, per_us, burst, fair_window FROM queues WHERE limited",
        )
        .fetch_all(&mut *self.0)
        .await?;
        let limits = limits.iter().map(|row| Ok((row.try_get(0)?, queues::limit(row, 1)?)));
        let queues = queues.iter().map(|row| Ok((row.try_get(0)?, queues::rule(row, 1)?)));
        Ok(Rules {
            limits: limits.collect::<Result<_, Error>>()?,
            queues: queues.collect::<Result<_, Error>>()?,
        })
    }

    async fn gates(&mut self, keys: &[String]) -> Result<Vec<Gate>, Error> {
        let query = format!("{GATES} WHERE key IN (SELECT value FROM json_each(?))");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(json(keys)?);
        query.fetch_all(&mut *self.0).await?.iter().map(gate).collect()
    }

    async fn due_gates(&mut self, now: i64, limit: usize) -> Result<Vec<Gate>, Error> {
        let query = format!("{GATES} WHERE next_at <= ? ORDER BY next_at LIMIT ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(now);
        let query = query.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        query.fetch_all(&mut *self.0).await?.iter().map(gate).collect()
    }

    async fn write_gates(&mut self, used: &[Gate], idle: &[Gate]) -> Result<(), Error> {
        let used: Vec<_> = used.iter().map(|g| (&g.key, g.taken, g.full_at, g.next_at, g.rank)).collect();
        sqlx::query(
            "INSERT INTO gates (key, taken, full_at, next_at, rank)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true
             ON CONFLICT (key) DO UPDATE SET taken = excluded.taken, full_at = excluded.full_at,
                 next_at = excluded.next_at, rank = excluded.rank",
        )
        .bind(json(&used)?)
        .execute(&mut *self.0)
        .await?;
        let idle: Vec<_> = idle.iter().map(|gate| &gate.key).collect();
        let delete = sqlx::query("DELETE FROM gates WHERE key IN (SELECT value FROM json_each(?))");
        delete.bind(json(&idle)?).execute(&mut *self.0).await.map(drop)
    }

    async fn write_slots(
        &mut self,
        left: &[(JobId, String)],
        taken: &[(JobId, String)],
    ) -> Result<(), Error> {
        for (statement, slots) in [
            (
                "DELETE FROM slots
                 WHERE (job_id, gate) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
                left,
            ),
            ("INSERT INTO slots (job_id, gate) SELECT value ->> 0, value ->> 1 FROM json_each(?)", taken),
        ] {
            sqlx::query(statement).bind(json(slots)?).execute(&mut *self.0).await?;
        }
        Ok(())
    }

    async fn find_line(&mut self, gates: &str) -> Result<Option<Line>, Error> {
        let query = sqlx::query(sqlx::AssertSqlSafe(format!("{LINES} WHERE gates = ?"))).bind(gates);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(line).transpose()
    }

    async fn best_line(&mut self, gate: &str) -> Result<Option<Line>, Error> {
        let query = format!("{LINES} WHERE waits_at = ? ORDER BY urgency, rank, seq LIMIT 1");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(gate);
        query.fetch_optional(&mut *self.0).await?.as_ref().map(line).transpose()
    }

    async fn add_line(&mut self, gates: &str, waits_at: &str) -> Result<i64, Error> {
        let add = "INSERT INTO lines (gates, waits_at, urgency, rank, seq) VALUES (?, ?, 0, 0, 0)";
        let added = sqlx::query(add).bind(gates).bind(waits_at).execute(&mut *self.0).await?;
        Ok(added.last_insert_rowid())
    }

    async fn move_line(&mut self, line: i64, waits_at: &str, place: Place) -> Result<(), Error> {
        sqlx::query("UPDATE lines SET waits_at = ?2, urgency = ?3, rank = ?4, seq = ?5 WHERE id = ?1")
            .bind(line)
            .bind(waits_at)
            .bind(place.urgency)
            .bind(place.rank)
            .bind(place.seq)
            .execute(&mut *self.0)
            .await
            .map(drop)
    }

    async fn drop_line(&mut self, line: i64) -> Result<(), Error> {
        let query = sqlx::query("DELETE FROM lines WHERE id = ?").bind(line);
        query.execute(&mut *self.0).await.map(drop)
    }

    async fn first_in(&mut self, line: i64) -> Result<Option<(JobId, Place)>, Error> {
        let query = sqlx::query(
            "SELECT job_id, urgency, rank, seq FROM gated WHERE line = ?
             ORDER BY urgency, rank, seq LIMIT 1",
        );
        let row = query.bind(line).fetch_optional(&mut *self.0).await?;
        row.map(|row| Ok((read::id(row.try_get(0)?)?, place(&row, 1)?))).transpose()
    }

    async fn join(&mut self, job: JobId, urgency: i16, rank: i64, line: i64) -> Result<i64, Error> {
        sqlx::query(
            "INSERT INTO gated (job_id, urgency, rank, line, admitted) VALUES (?, ?, ?, ?, 0)
             ON CONFLICT (job_id) DO UPDATE SET urgency = excluded.urgency, rank = excluded.rank,
                 line = excluded.line, admitted = 0
             RETURNING seq",
        )
        .bind(job.to_string())
        .bind(urgency)
        .bind(rank)
        .bind(line)
        .fetch_one(&mut *self.0)
        .await?
        .try_get(0)
    }

    async fn leave(&mut self, jobs: &[JobId], admitted: bool) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO gated (job_id, urgency, rank, admitted)
             SELECT value, 0, 0, ?2 FROM json_each(?1) WHERE true
             ON CONFLICT (job_id) DO UPDATE SET line = NULL, admitted = excluded.admitted",
        )
        .bind(ids(jobs))
        .bind(admitted)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }

    async fn forget(&mut self, jobs: &[JobId]) -> Result<(), Error> {
        let query = sqlx::query("DELETE FROM gated WHERE job_id IN (SELECT value FROM json_each(?))");
        query.bind(ids(jobs)).execute(&mut *self.0).await.map(drop)
    }

    async fn call(&mut self, job: JobId) -> Result<Option<Call>, Error> {
        let query = sqlx::query("SELECT id, queue, priority, gating FROM jobs WHERE id = ?");
        let row = query.bind(job.to_string()).fetch_optional(&mut *self.0).await?;
        row.as_ref().map(call).transpose()
    }

    async fn share(&mut self, queue: &str, tenant: &str) -> Result<Option<i64>, Error> {
        let query = sqlx::query("SELECT rank FROM shares WHERE queue = ? AND tenant = ?");
        let row = query.bind(queue).bind(tenant).fetch_optional(&mut *self.0).await?;
        row.map(|row| row.try_get(0)).transpose()
    }

    async fn write_shares(&mut self, shares: &HashMap<(String, String), i64>) -> Result<(), Error> {
        let shares: Vec<_> = shares.iter().map(|((queue, tenant), rank)| (queue, tenant, rank)).collect();
        sqlx::query(
            "INSERT INTO shares (queue, tenant, rank)
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true
             ON CONFLICT (queue, tenant) DO UPDATE SET rank = excluded.rank",
        )
        .bind(json(&shares)?)
        .execute(&mut *self.0)
        .await
        .map(drop)
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(unexpected)
}

fn noted(row: &SqliteRow) -> Result<Noted, Error> {
    Ok(Noted {
        call: call(row)?,
        state: read::state(row.try_get(4)?)?,
        admitted: row.try_get(5)?,
        line: row.try_get(6)?,
        slots: serde_json::from_str(row.try_get(7)?).map_err(unexpected)?,
    })
}

fn call(row: &SqliteRow) -> Result<Call, Error> {
    Ok(Call {
        id: read::id(row.try_get(0)?)?,
        queue: row.try_get(1)?,
        urgency: -row.try_get::<i16, _>(2)?,
        gating: gating(row, 3)?,
    })
}

/// What a job may have to wait for.
pub(super) fn gating(row: &SqliteRow, column: usize) -> Result<Gating, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map_or(Ok(Gating::default()), |text| serde_json::from_str(text).map_err(unexpected))
}

fn gate(row: &SqliteRow) -> Result<Gate, Error> {
    Ok(Gate {
        key: row.try_get(0)?,
        taken: row.try_get(1)?,
        full_at: row.try_get(2)?,
        next_at: row.try_get(3)?,
        rank: row.try_get(4)?,
    })
}

fn line(row: &SqliteRow) -> Result<Line, Error> {
    Ok(Line {
        id: row.try_get(0)?,
        gates: serde_json::from_str(row.try_get(1)?).map_err(unexpected)?,
        waits_at: row.try_get(2)?,
        place: place(row, 3)?,
    })
}

fn place(row: &SqliteRow, first: usize) -> Result<Place, Error> {
    Ok(Place { urgency: row.try_get(first)?, rank: row.try_get(first + 1)?, seq: row.try_get(first + 2)? })
}
