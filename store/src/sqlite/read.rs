use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::{Error, Row, sqlite::SqliteRow};
use windlass_core::{CancelOutcome, ErrorRecord, JobId, JobRecord, Priority, Progress, State};

use super::{
    Commit, SqliteStore, followup::note_followups, gates::gating, ids, statement, timestamp, unexpected,
};

statement!(
    GET,
    "SELECT id, kind, queue, priority, state, attempt, uncounted, max_attempts, created_at, run_at, started_at,
            finished_at,
            iif(r.expires_at <= ?2, NULL, result),
            labels, cancel_requested, p.value, p.message, p.at, gating,
            jobs.expires_at, deadline, version, r.expires_at
     FROM jobs LEFT JOIN job_progress p ON p.job_id = jobs.id
     LEFT JOIN expiring_results r ON r.job_id = jobs.id WHERE id IN (SELECT value FROM json_each(?1))"
);
statement!(
    GET_ERRORS,
    "SELECT job_id, attempt, at, worker, message FROM job_errors
     WHERE job_id IN (SELECT value FROM json_each(?)) ORDER BY job_id, fence"
);
statement!(
    CANCEL,
    "UPDATE jobs
     SET state = iif(state = {running}, {running}, {to:cancel}),
         cancel_requested = 1,
         finished_at = iif(state = {running}, NULL, ?2),
         run_at = NULL
     WHERE id = ?1 AND state IN ({from:cancel}, {running})
     RETURNING state, worker_id, followed"
);

impl SqliteStore {
    pub(super) async fn select_jobs(&self, wanted: &[JobId]) -> Result<Vec<JobRecord>, Error> {
        let wanted = ids(wanted);
        // One snapshot for both statements.
        let mut transaction = self.readers.begin().await?;
        let rows =
            sqlx::query(GET.clone()).bind(&wanted).bind(self.now()).fetch_all(&mut *transaction).await?;
        let errors = sqlx::query(GET_ERRORS.clone()).bind(&wanted).fetch_all(&mut *transaction).await?;
        let mut by_job: HashMap<String, Vec<ErrorRecord>> = HashMap::new();
        for row in &errors {
            by_job.entry(row.try_get(0)?).or_default().push(ErrorRecord {
                attempt: row.try_get(1)?,
                at: timestamp(row.try_get(2)?)?,
                worker: row.try_get(3)?,
                message: row.try_get(4)?,
            });
        }
        rows.iter().map(|row| record(row, &mut by_job)).collect()
    }

    pub(super) async fn select_payloads(
        &self,
        wanted: &[JobId],
    ) -> Result<Vec<(JobId, Box<RawValue>)>, Error> {
        let rows = sqlx::query("SELECT id, payload FROM jobs WHERE id IN (SELECT value FROM json_each(?))")
            .bind(ids(wanted))
            .fetch_all(&self.readers)
            .await?;
        let payload = |row: &SqliteRow| RawValue::from_string(row.try_get(1)?).map_err(unexpected);
        rows.iter().map(|row| Ok((id(row.try_get(0)?)?, payload(row)?))).collect()
    }

    pub(super) async fn cancel_job(&self, id: JobId) -> Result<CancelOutcome, Error> {
        let id = id.to_string();
        let mut transaction = self.write(Commit::Durable).await?;
        let called =
            sqlx::query(CANCEL.clone()).bind(&id).bind(self.now()).fetch_optional(&mut *transaction).await?;
        let Some(row) = called else {
            let now = sqlx::query("SELECT state FROM jobs WHERE id = ?").bind(&id);
            return match now.fetch_optional(&mut *transaction).await? {
                None => Ok(CancelOutcome::NotFound),
                Some(row) => Ok(CancelOutcome::Finished(state(row.try_get(0)?)?)),
            };
        };
        let outcome = if state(row.try_get(0)?)? == State::Running {
            sqlx::query("INSERT INTO cancellations (job_id, worker_id) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(&id)
                .bind(row.try_get::<String, _>(1)?)
                .execute(&mut *transaction)
                .await?;
            CancelOutcome::Requested
        } else {
            sqlx::query("DELETE FROM due WHERE job_id = ?").bind(&id).execute(&mut *transaction).await?;
            if row.try_get(2)? {
                note_followups(&mut transaction, vec![id]).await?;
            }
            CancelOutcome::Cancelled
        };
        transaction.commit().await?;
        Ok(outcome)
    }
}

fn record(row: &SqliteRow, errors: &mut HashMap<String, Vec<ErrorRecord>>) -> Result<JobRecord, Error> {
    let time = |micros: Option<i64>| micros.map(timestamp).transpose();
    let (attempt, uncounted): (u32, u32) = (row.try_get(5)?, row.try_get(6)?);
    let result: Option<String> = row.try_get(12)?;
    let text: &str = row.try_get(0)?;
    let progress = match row.try_get::<Option<f64>, _>(15)? {
        Some(value) => Some(Progress { value, message: row.try_get(16)?, at: timestamp(row.try_get(17)?)? }),
        None => None,
    };
    Ok(JobRecord {
        id: id(text)?,
        kind: row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?,
        queue: row.try_get::<&str, _>(2)?.parse().map_err(unexpected)?,
        priority: priority(row.try_get(3)?)?,
        state: state(row.try_get(4)?)?,
        attempt: attempt.saturating_sub(uncounted),
        max_attempts: row.try_get(7)?,
        created_at: timestamp(row.try_get(8)?)?,
        run_at: time(row.try_get(9)?)?,
        started_at: time(row.try_get(10)?)?,
        finished_at: time(row.try_get(11)?)?,
        expires_at: time(row.try_get(19)?)?,
        deadline: time(row.try_get(20)?)?,
        version: row.try_get(21)?,
        result_until: result.as_ref().and(time(row.try_get(22)?)?),
        result: result.map(RawValue::from_string).transpose().map_err(unexpected)?,
        progress,
        labels: serde_json::from_str(row.try_get(13)?).map_err(unexpected)?,
        cancel_requested: row.try_get(14)?,
        gating: gating(row, 18)?,
        errors: errors.remove(text).unwrap_or_default(),
    })
}

pub(super) fn id(text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|error: windlass_core::InvalidId| unexpected(error))
}

pub(super) fn state(code: i16) -> Result<State, Error> {
    code.try_into().map_err(|error: windlass_core::UnknownState| unexpected(error))
}

pub(super) fn priority(code: u8) -> Result<Priority, Error> {
    code.try_into().map_err(|error: windlass_core::InvalidPriority| unexpected(error))
}
