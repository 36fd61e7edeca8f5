use sqlx::{Error, Row};
use windlass_core::{QueueName, QueueRecord};

use super::{Commit, SqliteStore, unexpected};

impl SqliteStore {
    pub(super) async fn select_queues(&self) -> Result<Vec<QueueRecord>, Error> {
        let rows =
            sqlx::query("SELECT name, paused FROM queues ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| {
                let name = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
                Ok(QueueRecord { name, paused: row.try_get(1)? })
            })
            .collect()
    }

    pub(super) async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        sqlx::query(
            "INSERT INTO queues (name, paused) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused",
        )
        .bind(queue.as_str())
        .bind(paused)
        .execute(&mut *transaction)
        .await?;
        if !paused {
            // Messages of the pause were dropped at their claims.
            sqlx::query("UPDATE outbox SET due_at = ?1 WHERE published AND due_at > ?1")
                .bind(self.now())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }
}
