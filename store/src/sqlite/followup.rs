use sqlx::{Error, Row, SqliteConnection};

use super::{
    Commit, SqliteStore, gates::pass_gates, ids, quotas::free_ended, webhooks::tell_webhooks,
    workflows::resolve,
};

impl SqliteStore {
    pub(super) async fn follow_up_jobs(&self, limit: usize) -> Result<usize, Error> {
        // Mostly there is nothing, and then the writer need not be troubled.
        let now = self.now();
        let any = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM followups) OR EXISTS (SELECT 1 FROM gates WHERE next_at <= ?)",
        );
        if !any.bind(now).fetch_one(&self.readers).await?.try_get::<bool, _>(0)? {
            return Ok(0);
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let noted = sqlx::query(
            "DELETE FROM followups WHERE id IN (SELECT id FROM followups ORDER BY id LIMIT ?) RETURNING id, job_id",
        )
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let mut jobs: Vec<(i64, String)> =
            noted.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?;
        jobs.sort_unstable_by_key(|(note, _)| *note);
        let jobs: Vec<String> = jobs.into_iter().map(|(_, job)| job).collect();
        // First the parents, then the gates and quotas.
        let more = resolve(&mut transaction, &jobs, now).await?;
        let due = pass_gates(&mut transaction, &jobs, limit, now).await?;
        tell_webhooks(&mut transaction, &jobs, now).await?;
        free_ended(&mut transaction, &jobs).await?;
        transaction.commit().await?;
        let done = noted.len().max(due);
        Ok(if more { done.max(limit) } else { done })
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
