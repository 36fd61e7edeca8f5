use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{JobId, Standing, SystemId};

use super::{SqliteStore, ids, read, statement, timestamp};

statement!(
    STANDING,
    "SELECT id, state, attempt - uncounted, run_at, cancel_requested, p.at
     FROM jobs LEFT JOIN job_progress p ON p.job_id = jobs.id WHERE id IN (SELECT value FROM json_each(?))"
);

impl SqliteStore {
    pub(super) async fn select_standing(&self, wanted: &[JobId]) -> Result<Vec<Standing>, Error> {
        let rows = sqlx::query(STANDING.clone()).bind(ids(wanted)).fetch_all(&self.readers).await?;
        let standing = |row| -> Result<Standing, Error> {
            let row: &sqlx::sqlite::SqliteRow = row;
            let time = |micros: Option<i64>| micros.map(timestamp).transpose();
            Ok(Standing {
                id: read::id(row.try_get(0)?)?,
                state: read::state(row.try_get(1)?)?,
                attempt: row.try_get(2)?,
                run_at: time(row.try_get(3)?)?,
                cancel_requested: row.try_get(4)?,
                progress_at: time(row.try_get(5)?)?,
            })
        };
        rows.iter().map(standing).collect()
    }

    pub(super) async fn select_revision(&self) -> Result<u64, Error> {
        let row = sqlx::query("SELECT number FROM revision").fetch_one(&self.readers).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    pub(super) async fn select_system(&self) -> Result<SystemId, Error> {
        let row = sqlx::query("SELECT system FROM revision").fetch_one(&self.readers).await?;
        Ok(SystemId::new(row.try_get(0)?))
    }
}

/// Notes that so many jobs which were over have been changed.
pub(super) async fn note_revision(connection: &mut SqliteConnection, changed: usize) -> Result<(), Error> {
    if changed == 0 {
        return Ok(());
    }
    sqlx::query("UPDATE revision SET number = number + 1").execute(connection).await.map(drop)
}
