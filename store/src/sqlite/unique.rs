use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{InsertOutcome, KeyHolder, NewJob, Timestamp};

use super::{ids, read, statement, timestamp};
use crate::unique::{Changes, Key, Known, keys, resolve};

statement!(
    HOLDERS,
    "SELECT id, state, attempt, created_at FROM jobs WHERE id IN (SELECT value FROM json_each(?))"
);
statement!(
    REPLACE,
    "UPDATE jobs SET payload = ?2, version = ?3, run_at = iif(state = {scheduled}, coalesce(?4, run_at), NULL)
     WHERE id = ?1"
);
statement!(
    CLEAN,
    "DELETE FROM unique_keys WHERE key IN (SELECT key FROM unique_keys WHERE check_at <= ?1 ORDER BY check_at LIMIT 10000)
     AND coalesce(until <= ?1, NOT EXISTS (
         SELECT 1 FROM jobs j
         WHERE j.id = unique_keys.job_id AND j.state NOT IN ({succeeded}, {cancelled}, {dead})))"
);
statement!(
    LOOK_AGAIN,
    "UPDATE unique_keys SET check_at = ?1 + 3600000000
     WHERE key IN (SELECT key FROM unique_keys WHERE check_at <= ?1 ORDER BY check_at LIMIT 10000)
       AND until IS NULL AND EXISTS (
         SELECT 1 FROM jobs j
         WHERE j.id = unique_keys.job_id AND j.state NOT IN ({succeeded}, {cancelled}, {dead}))"
);

/// Answers those of a group's jobs whose unique keys others have, and makes the others the holders of theirs. `None`: no
/// job has such a key. Otherwise the jobs as they are to be inserted.
pub(super) async fn resolve_unique(
    connection: &mut SqliteConnection,
    jobs: &[NewJob],
    answers: &mut [Option<InsertOutcome>],
    now: i64,
) -> Result<Option<Vec<NewJob>>, Error> {
    if jobs.iter().all(|job| job.unique.is_none()) {
        return Ok(None);
    }
    let keys = keys(jobs, answers);
    let mut jobs = jobs.to_vec();
    let known = known(connection, &jobs, &keys, timestamp(now)?).await?;
    let changes = resolve(&mut jobs, answers, &keys, known);
    apply(connection, &changes).await?;
    Ok(Some(jobs))
}

async fn known(
    connection: &mut SqliteConnection,
    jobs: &[NewJob],
    keys: &[Option<Key>],
    now: Timestamp,
) -> Result<Known, Error> {
    let mut last = HashMap::new();
    let wanted: BTreeSet<Key> = keys.iter().flatten().copied().collect();
    for key in wanted {
        let select = sqlx::query("SELECT job_id, until FROM unique_keys WHERE key = ?").bind(hex(&key));
        if let Some(row) = select.fetch_optional(&mut *connection).await? {
            last.insert(key, (read::id(row.try_get(0)?)?, row.try_get::<Option<i64>, _>(1)?));
        }
    }
    let own = jobs.iter().map(|job| job.id);
    let interesting = ids(own.clone().chain(last.values().map(|(id, _)| *id)));
    let rows = sqlx::query(HOLDERS.clone()).bind(interesting).fetch_all(connection).await?;
    let mut states = HashMap::with_capacity(rows.len());
    for row in &rows {
        let state = read::state(row.try_get(1)?)?;
        let claimed = row.try_get::<i64, _>(2)? > 0;
        states.insert(read::id(row.try_get(0)?)?, (state, claimed, timestamp(row.try_get(3)?)?));
    }
    let existing: HashSet<_> = own.filter(|id| states.contains_key(id)).collect();
    let mut holders = HashMap::with_capacity(last.len());
    for (key, (id, until)) in last {
        let (state, claimed, created_at) = match states.get(&id) {
            Some((state, claimed, created_at)) => (Some(*state), *claimed, *created_at),
            None => (None, false, now),
        };
        let until = until.map(timestamp).transpose()?;
        holders.insert(key, KeyHolder { id, state, claimed, until, created_at });
    }
    Ok(Known { now, holders, existing })
}

async fn apply(connection: &mut SqliteConnection, changes: &Changes) -> Result<(), Error> {
    for (key, take) in &changes.takes {
        sqlx::query(
            "INSERT INTO unique_keys (key, job_id, until, check_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (key) DO UPDATE
             SET job_id = excluded.job_id, until = excluded.until, check_at = excluded.check_at",
        )
        .bind(hex(key))
        .bind(take.job.to_string())
        .bind(take.until.map(|until| until.timestamp_micros()))
        .bind(take.check_at.timestamp_micros())
        .execute(&mut *connection)
        .await?;
    }
    for (id, replacement) in &changes.replacements {
        let run_at = replacement.run_at.map(|at| at.timestamp_micros());
        sqlx::query(REPLACE.clone())
            .bind(id.to_string())
            .bind(&replacement.payload)
            .bind(replacement.version)
            .bind(run_at)
            .execute(&mut *connection)
            .await?;
        sqlx::query("UPDATE due SET run_at = coalesce(?2, run_at) WHERE job_id = ?1")
            .bind(id.to_string())
            .bind(run_at)
            .execute(&mut *connection)
            .await?;
    }
    for (key, holder) in &changes.moved {
        sqlx::query("UPDATE idempotency_keys SET job_id = ?2 WHERE key = ?1")
            .bind(key)
            .bind(holder.to_string())
            .execute(&mut *connection)
            .await?;
    }
    for key in &changes.freed {
        sqlx::query("DELETE FROM idempotency_keys WHERE key = ?").bind(key).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Looks at some keys whose time to be looked at has come: those of no use go.
pub(super) async fn clean(connection: &mut SqliteConnection, now: i64) -> Result<(), Error> {
    for statement in [&CLEAN, &LOOK_AGAIN] {
        sqlx::query((**statement).clone()).bind(now).execute(&mut *connection).await?;
    }
    Ok(())
}

fn hex(key: &Key) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
