use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{JobId, Standing, UnknownState};

use super::{PostgresStore, claim::number, range, unexpected};

/// Plan: primary keys of the partitions in range.
pub(super) const STANDING: &str = "
SELECT j.id, j.state, j.attempt - j.uncounted, j.run_at, j.cancel_requested, p.at
FROM {schema}.jobs j
LEFT JOIN {schema}.job_progress p ON p.job_id = j.id AND p.job_id >= $2 AND p.job_id <= $3
WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3";

const REVISION: &str = "SELECT number FROM {schema}.revision";

const REVISED: &str = "UPDATE {schema}.revision SET number = number + 1";

impl PostgresStore {
    pub(super) async fn select_standing(&self, ids: &[JobId]) -> Result<Vec<Standing>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let Some((least, greatest)) = range(&ids) else { return Ok(Vec::new()) };
        let query = self.rare(STANDING).bind(ids).bind(least).bind(greatest);
        let mut session = self.statement().await?;
        let rows = query.fetch_all(&mut *session).await?;
        session.commit().await?;
        let standing = |row| -> Result<Standing, Error> {
            let row: &sqlx::postgres::PgRow = row;
            Ok(Standing {
                id: row.try_get::<Uuid, _>(0)?.into(),
                state: row.try_get::<i16, _>(1)?.try_into().map_err(unexpected::<UnknownState>)?,
                attempt: number(row.try_get(2)?)?,
                run_at: row.try_get(3)?,
                cancel_requested: row.try_get(4)?,
                progress_at: row.try_get(5)?,
            })
        };
        rows.iter().map(standing).collect()
    }

    pub(super) async fn select_revision(&self) -> Result<u64, Error> {
        let mut session = self.statement().await?;
        let row = self.rare(REVISION).fetch_one(&mut *session).await?;
        session.commit().await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    /// Notes that so many jobs which were over have been changed. The last statement before the commit, since everyone
    /// who does so waits for the row.
    pub(super) async fn note_revision(
        &self,
        connection: &mut PgConnection,
        changed: usize,
    ) -> Result<(), Error> {
        if changed == 0 {
            return Ok(());
        }
        self.rare(REVISED).execute(connection).await.map(drop)
    }
}
