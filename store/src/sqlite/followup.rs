use sqlx::{Error, Row, SqliteConnection};

use super::{Commit, SqliteStore, ids, workflows::resolve};

impl SqliteStore {
    pub(super) async fn follow_up_jobs(&self, limit: usize) -> Result<usize, Error> {
        // Mostly there is nothing, and then the writer need not be troubled.
        let any = sqlx::query("SELECT 1 FROM followups LIMIT 1");
        if any.fetch_optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let noted = sqlx::query(
            "DELETE FROM followups WHERE id IN (SELECT id FROM followups ORDER BY id LIMIT ?) RETURNING job_id",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let jobs: Vec<String> = noted.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let more = resolve(&mut transaction, &jobs, self.now()).await?;
        transaction.commit().await?;
        Ok(if more { noted.len().max(limit) } else { noted.len() })
    }
}

/// Notes that these jobs, which are followed, have come to an end or a pause.
pub(super) async fn note_followups(
    connection: &mut SqliteConnection,
    jobs: Vec<String>,
) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query("INSERT INTO followups (job_id) SELECT value FROM json_each(?)")
        .bind(ids(jobs))
        .execute(connection)
        .await
        .map(drop)
}

/// Lists these jobs among the dead.
pub(super) async fn bury(
    connection: &mut SqliteConnection,
    jobs: Vec<String>,
    now: i64,
) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query("INSERT INTO dead (job_id, at) SELECT value, ?2 FROM json_each(?1)")
        .bind(ids(jobs))
        .bind(now)
        .execute(connection)
        .await
        .map(drop)
}
