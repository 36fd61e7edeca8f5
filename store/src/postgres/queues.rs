use sqlx::{Error, Row};
use windlass_core::{QueueName, QueueRecord};

use super::{PostgresStore, unexpected};

impl PostgresStore {
    pub(super) async fn select_queues(&self) -> Result<Vec<QueueRecord>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare("SELECT name, paused FROM {schema}.queues ORDER BY name")
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        rows.iter()
            .map(|row| {
                let name = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
                Ok(QueueRecord { name, paused: row.try_get(1)? })
            })
            .collect()
    }

    pub(super) async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        self.rare(
            "INSERT INTO {schema}.queues (name, paused) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
        )
        .bind(queue.as_str().to_owned())
        .bind(paused)
        .execute(&mut *session)
        .await?;
        if !paused {
            // Messages of the pause were dropped at their claims.
            self.rare("UPDATE {schema}.outbox SET due_at = {now} WHERE published AND due_at > {now}")
                .execute(&mut *session)
                .await?;
        }
        session.commit().await
    }
}
