use sqlx::{Error, Row};
use uuid::Uuid;

use super::PostgresStore;

impl PostgresStore {
    pub(super) async fn follow_up_jobs(&self, limit: usize) -> Result<usize, Error> {
        let mut session = self.transaction().await?;
        let noted = self
            .rare("SELECT id, job_id FROM {schema}.followups ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *session)
            .await?;
        let mut more = false;
        if !noted.is_empty() {
            let notes: Vec<i64> = noted.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
            let jobs: Vec<Uuid> = noted.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
            self.rare("DELETE FROM {schema}.followups WHERE id = ANY($1)")
                .bind(notes)
                .execute(&mut *session)
                .await?;
            more = self.resolve(&mut session, &jobs).await?;
        }
        session.commit().await?;
        Ok(if more { noted.len().max(limit) } else { noted.len() })
    }
}
