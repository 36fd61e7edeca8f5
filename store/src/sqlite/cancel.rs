use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{JobId, State};

use super::{Commit, SqliteStore, followup::note_followups, ids, read, statement, unexpected};

statement!(
    CANCEL_ALL,
    "UPDATE jobs
     SET state = iif(state = {running}, {running}, {to:cancel}),
         cancel_requested = 1,
         finished_at = iif(state = {running}, NULL, ?2),
         run_at = NULL
     WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ({from:cancel}, {running})
       AND state IN (SELECT value FROM json_each(?3))
     RETURNING id, state, worker_id, followed"
);

impl SqliteStore {
    pub(super) async fn cancel_jobs(&self, wanted: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let called = call_off(&mut transaction, &ids(wanted), from, self.now()).await?;
        transaction.commit().await?;
        called.iter().map(|id| read::id(id)).collect()
    }
}

/// Calls off those of `wanted` that are in one of the states.
pub(super) async fn call_off(
    connection: &mut SqliteConnection,
    wanted: &str,
    from: &[State],
    now: i64,
) -> Result<Vec<String>, Error> {
    let from: Vec<i16> = from.iter().map(|state| state.code()).collect();
    let rows = sqlx::query(CANCEL_ALL.clone())
        .bind(wanted)
        .bind(now)
        .bind(serde_json::to_string(&from).map_err(unexpected)?)
        .fetch_all(&mut *connection)
        .await?;
    let (mut called, mut off, mut followed) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let job: String = row.try_get(0)?;
        called.push(job.clone());
        if read::state(row.try_get(1)?)? == State::Running {
            sqlx::query("INSERT INTO cancellations (job_id, worker_id) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(job)
                .bind(row.try_get::<String, _>(2)?)
                .execute(&mut *connection)
                .await?;
            continue;
        }
        if row.try_get(3)? {
            followed.push(job.clone());
        }
        off.push(job);
    }
    if !off.is_empty() {
        let forget = sqlx::query("DELETE FROM due WHERE job_id IN (SELECT value FROM json_each(?))");
        forget.bind(ids(off)).execute(&mut *connection).await?;
    }
    note_followups(connection, followed).await?;
    Ok(called)
}
