use std::collections::{HashMap, HashSet};

use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{DeadCursor, DeadFilter, DeadPage, JobId, State, Timestamp};

use super::{
    Commit, SqliteStore, find, followup::note_followups, ids, insert::insert_outbox, quotas::count_again,
    read, standing::note_revision, statement, timestamp, unexpected,
};

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
SELECT job_id, at FROM dead
WHERE (at, job_id) < (coalesce(?1, 9223372036854775807), coalesce(?2, 'g'))
  AND at >= coalesce(?3, -9223372036854775808) AND at < coalesce(?4, 9223372036854775807)
ORDER BY at DESC, job_id DESC LIMIT ?5";

statement!(
    // A gated job is held at once, as when it is promoted.
    RETRY,
    "UPDATE jobs
     SET state = iif(gated OR held, {to:hold}, {to:retry}),
         uncounted = attempt, crashes = 0, cancel_requested = 0,
         run_at = NULL, finished_at = NULL, result = NULL,
         expires_at = iif(expires_at > ?3, expires_at, NULL),
         deadline = iif(deadline > ?3, deadline, NULL)
     WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ({from:retry})
       AND state IN (SELECT value FROM json_each(?2))
     RETURNING id, state"
);

impl SqliteStore {
    pub(super) async fn select_dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, Error> {
        let micros = |time: Option<Timestamp>| time.map(|time| time.timestamp_micros());
        let mut transaction = self.readers.begin().await?;
        let scanned = sqlx::query(NEXT_DEAD)
            .bind(micros(after.map(|cursor| cursor.at)))
            .bind(after.map(|cursor| cursor.id.to_string()))
            .bind(micros(filter.since))
            .bind(micros(filter.until))
            .bind(SCAN)
            .fetch_all(&mut *transaction)
            .await?;
        let more = i64::try_from(scanned.len()) == Ok(SCAN);
        let scanned: Vec<(JobId, Timestamp)> = scanned
            .iter()
            .map(|row| Ok((read::id(row.try_get(0)?)?, timestamp(row.try_get(1)?)?)))
            .collect::<Result<_, Error>>()?;
        let looked_at: Vec<JobId> = scanned.iter().map(|(id, _)| *id).collect();
        let filter = crate::dead::filter(filter);
        let fitting = find::fitting(&mut transaction, &filter, &looked_at, looked_at.len()).await?;
        drop(transaction);
        let fitting: HashSet<JobId> = fitting.into_iter().map(|(id, _)| id).collect();
        let (found, next) = crate::dead::page(&scanned, more, |id| fitting.contains(id), limit);
        let jobs = self.select_jobs(&found).await?;
        let mut jobs: HashMap<JobId, _> = jobs.into_iter().map(|job| (job.id, job)).collect();
        Ok(DeadPage { jobs: found.iter().filter_map(|id| jobs.remove(id)).collect(), next })
    }

    pub(super) async fn retry_jobs(&self, wanted: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let now = self.now();
        let rows = sqlx::query(RETRY.clone())
            .bind(ids(wanted))
            .bind(states(from)?)
            .bind(now)
            .fetch_all(&mut *transaction)
            .await?;
        let (mut queued, mut held) = (Vec::new(), Vec::new());
        for row in &rows {
            let waits = read::state(row.try_get(1)?)? == State::Waiting;
            if waits { &mut held } else { &mut queued }.push(row.try_get::<String, _>(0)?);
        }
        let retried: Vec<String> = queued.iter().chain(&held).cloned().collect();
        for table in ["dead", "expiring_results"] {
            clear(&mut transaction, table, "job_id", &retried).await?;
        }
        insert_outbox(&mut transaction, queued, now, now).await?;
        note_followups(&mut transaction, held).await?;
        count_again(&mut transaction, &retried).await?;
        note_revision(&mut transaction, retried.len()).await?;
        transaction.commit().await?;
        retried.iter().map(|id| read::id(id)).collect()
    }

    pub(super) async fn delete_jobs(&self, wanted: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let rows = sqlx::query(
            "DELETE FROM jobs
             WHERE id IN (SELECT value FROM json_each(?1)) AND state IN (SELECT value FROM json_each(?2))
               AND id NOT IN (SELECT job_id FROM followups)
             RETURNING id",
        )
        .bind(ids(wanted))
        .bind(states(from)?)
        .fetch_all(&mut *transaction)
        .await?;
        let deleted: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        for (table, key) in SIDE_TABLES {
            clear(&mut transaction, table, key, &deleted).await?;
        }
        note_revision(&mut transaction, deleted.len()).await?;
        transaction.commit().await?;
        deleted.iter().map(|id| read::id(id)).collect()
    }
}

fn states(from: &[State]) -> Result<String, Error> {
    let codes: Vec<i16> = from.iter().filter(|state| state.is_terminal()).map(|state| state.code()).collect();
    serde_json::to_string(&codes).map_err(unexpected)
}

/// Removes what a side table has of these jobs.
async fn clear(
    connection: &mut SqliteConnection,
    table: &'static str,
    key: &'static str,
    jobs: &[String],
) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    let clear = format!("DELETE FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))");
    sqlx::query(sqlx::AssertSqlSafe(clear)).bind(ids(jobs)).execute(connection).await.map(drop)
}
