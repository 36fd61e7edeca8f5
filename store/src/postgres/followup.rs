use sqlx::{Error, Row};
use uuid::Uuid;

use super::PostgresStore;

/// Whether there is anything to do, which mostly there is not.
const ANY: &str = "
SELECT EXISTS (SELECT FROM {schema}.followups)
    OR EXISTS (SELECT FROM {schema}.gates WHERE next_at <= (extract(epoch FROM {now}) * 1000000)::int8)";

/// With the notes, whether there is a webhook or a place under a quota at all: what a job was marked for is seen with the
/// note of its end.
const NOTED: &str = "
SELECT id, job_id, EXISTS (SELECT FROM {schema}.webhooks WHERE enabled), EXISTS (SELECT FROM {schema}.quota_places)
FROM {schema}.followups
ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED";

impl PostgresStore {
    pub(super) async fn follow_up_jobs(&self, limit: usize) -> Result<usize, Error> {
        let mut session = self.statement().await?;
        let any: bool = self.rare(ANY).fetch_one(&mut *session).await?.try_get(0)?;
        session.commit().await?;
        if !any {
            return Ok(0);
        }
        let mut session = self.transaction().await?;
        self.lock_gates(&mut session).await?;
        let noted =
            self.rare(NOTED).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut *session).await?;
        let notes: Vec<i64> = noted.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let jobs: Vec<Uuid> = noted.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        // First the parents, then the gates; last the quotas, whose rows are held by those who accept.
        let more = self.resolve(&mut session, &jobs).await?;
        let due = self.pass_gates(&mut session, &jobs, limit).await?;
        let is_there = |what| noted.first().map_or(Ok(false), |row| row.try_get(what));
        if is_there(2)? {
            self.tell_webhooks(&mut session, &jobs).await?;
        }
        if is_there(3)? {
            self.free_ended(&mut session, &jobs).await?;
        }
        if !notes.is_empty() {
            self.rare("DELETE FROM {schema}.followups WHERE id = ANY($1)")
                .bind(notes)
                .execute(&mut *session)
                .await?;
        }
        session.commit().await?;
        let done = noted.len().max(due);
        Ok(if more { done.max(limit) } else { done })
    }
}
