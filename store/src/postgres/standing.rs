use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{Edition, JobId, Standing, SystemId, UnknownState};

use super::{PostgresStore, claim::number, range, unexpected};

/// Plan: primary keys of the partitions in range.
pub(super) const STANDING: &str = "
SELECT j.id, j.state, j.attempt - j.uncounted, j.run_at, j.cancel_requested, p.at
FROM {schema}.jobs j
LEFT JOIN {schema}.job_progress p ON p.job_id = j.id AND p.job_id >= $2 AND p.job_id <= $3
WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3";

const REVISION: &str = "SELECT number FROM {schema}.revision";

/// The row's random number, together with where it lies, since a copy of the tables has the same number.
macro_rules! system {
    () => {
        "concat_ws('/', r.system, c.system_identifier,
                   (SELECT oid FROM pg_database WHERE datname = current_database()), r.tableoid)"
    };
}

const SYSTEM: &str = concat!("SELECT ", system!(), " FROM {schema}.revision r, pg_control_system() c");

/// A server that is promoted, as one is after a failover or once a backup has been replayed, begins another timeline of its
/// log. What has been put back otherwise shows in the transaction that wrote the row.
const EDITION: &str = concat!(
    "SELECT r.number, ",
    system!(),
    ", concat_ws('/', left(pg_walfile_name(pg_current_wal_lsn()), 8), r.xmin), {now}
     FROM {schema}.revision r, pg_control_system() c"
);

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

    pub(super) async fn select_system(&self) -> Result<SystemId, Error> {
        let mut session = self.statement().await?;
        let row = self.rare(SYSTEM).fetch_one(&mut *session).await?;
        session.commit().await?;
        Ok(SystemId::new(row.try_get(0)?))
    }

    pub(super) async fn select_edition(&self) -> Result<Edition, Error> {
        let mut session = self.statement().await?;
        let row = self.rare(EDITION).fetch_one(&mut *session).await?;
        session.commit().await?;
        Ok(Edition {
            system: SystemId::new(row.try_get(1)?),
            history: row.try_get(2)?,
            revision: row.try_get::<i64, _>(0)?.unsigned_abs(),
            at: row.try_get(3)?,
        })
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
