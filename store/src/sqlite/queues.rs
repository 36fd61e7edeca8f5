use std::time::Duration;

use sqlx::{Error, Row, Sqlite, SqliteConnection, query::Query, sqlite::SqliteArguments, sqlite::SqliteRow};
use windlass_core::{Limit, LimitName, LimitRecord, QueueName, QueueRecord, Rate};

use super::{Commit, SqliteStore, micros, statement, unexpected};
use crate::admission::QueueRule;

statement!(
    UNCOUNTED,
    "INSERT INTO followups (job_id)
     SELECT j.id FROM claims c, json_each(c.job_ids) i CROSS JOIN jobs j ON j.id = i.value
     WHERE j.state = {running} AND j.queue = ? AND NOT j.gated"
);

impl SqliteStore {
    pub(super) async fn select_queues(&self) -> Result<Vec<QueueRecord>, Error> {
        let rows = sqlx::query(
            "SELECT name, paused, draining, max_running, rate, per_us, burst, fair_window
             FROM queues ORDER BY name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                let QueueRule { limit, window } = rule(row, 3)?;
                Ok(QueueRecord {
                    name: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
                    paused: row.try_get(1)?,
                    draining: row.try_get(2)?,
                    limit,
                    window,
                })
            })
            .collect()
    }

    pub(super) async fn set_paused(&self, queue: &QueueName, paused: bool) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        sqlx::query(
            "INSERT INTO queues AS q (name, paused) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, draining = q.draining AND excluded.paused",
        )
        .bind(queue.as_str())
        .bind(paused)
        .execute(&mut *transaction)
        .await?;
        if !paused {
            // Messages of the pause were dropped at their claims, or not published again.
            sqlx::query("UPDATE outbox SET due_at = ?1 WHERE due_at > ?1")
                .bind(self.now())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await
    }

    pub(super) async fn set_draining(&self, queue: &QueueName) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        sqlx::query(
            "INSERT INTO queues (name, draining) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET draining = 1",
        )
        .bind(queue.as_str())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    pub(super) async fn set_queue_limit(
        &self,
        queue: &QueueName,
        limit: Limit,
        window: Option<u32>,
    ) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let query = sqlx::query(
            "INSERT INTO queues (name, fair_window, max_running, rate, per_us, burst) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET fair_window = excluded.fair_window,
                 max_running = excluded.max_running, rate = excluded.rate, per_us = excluded.per_us,
                 burst = excluded.burst",
        );
        bind_limit(query.bind(queue.as_str()).bind(window), limit).execute(&mut *transaction).await?;
        // What runs already counts. What is queued finds its claim refused, and is held then.
        sqlx::query(UNCOUNTED.clone()).bind(queue.as_str()).execute(&mut *transaction).await?;
        for gate in [format!("queue:{queue}"), format!("share:{queue}")] {
            self.look_again(&mut transaction, &gate).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn select_limits(&self) -> Result<Vec<LimitRecord>, Error> {
        let rows = sqlx::query("SELECT name, max_running, rate, per_us, burst FROM limits ORDER BY name")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| {
                let name = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
                Ok(LimitRecord { name, limit: limit(row, 1)? })
            })
            .collect()
    }

    pub(super) async fn upsert_limit(&self, name: &LimitName, limit: Limit) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let query = sqlx::query(
            "INSERT INTO limits (name, max_running, rate, per_us, burst) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET max_running = excluded.max_running, rate = excluded.rate,
                 per_us = excluded.per_us, burst = excluded.burst",
        );
        bind_limit(query.bind(name.as_str()), limit).execute(&mut *transaction).await?;
        self.look_again(&mut transaction, &format!("limit:{name}")).await?;
        transaction.commit().await
    }

    pub(super) async fn delete_limit(&self, name: &LimitName) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let delete = sqlx::query("DELETE FROM limits WHERE name = ?").bind(name.as_str());
        let deleted = delete.execute(&mut *transaction).await?.rows_affected() > 0;
        self.look_again(&mut transaction, &format!("limit:{name}")).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    /// Has those who wait at this gate, or at those of its keys, looked at again, since other rules hold now.
    async fn look_again(&self, connection: &mut SqliteConnection, gate: &str) -> Result<(), Error> {
        sqlx::query(
            "UPDATE gates SET next_at = ?1 WHERE key = ?2 OR substr(key, 1, length(?2) + 1) = ?2 || '/'",
        )
        .bind(self.now())
        .bind(gate)
        .execute(connection)
        .await
        .map(drop)
    }

    pub(super) async fn select_next_start(&self) -> Result<Option<Duration>, Error> {
        let row = sqlx::query("SELECT min(next_at) FROM gates WHERE next_at IS NOT NULL")
            .fetch_one(&self.readers)
            .await?;
        let at: Option<i64> = row.try_get(0)?;
        Ok(at.map(|at| Duration::from_micros((at - self.now()).max(0).unsigned_abs())))
    }
}

fn bind_limit<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    limit: Limit,
) -> Query<'q, Sqlite, SqliteArguments> {
    query
        .bind(limit.max_running)
        .bind(limit.rate.map(|rate| rate.count))
        .bind(limit.rate.map(|rate| micros(rate.per)))
        .bind(limit.rate.map(|rate| rate.burst))
}

/// A limit, from its four columns.
pub(super) fn limit(row: &SqliteRow, first: usize) -> Result<Limit, Error> {
    let per: Option<i64> = row.try_get(first + 2)?;
    let rate = match (row.try_get(first + 1)?, per, row.try_get(first + 3)?) {
        (Some(count), Some(per), Some(burst)) => {
            Some(Rate { count, per: Duration::from_micros(per.max(0).unsigned_abs()), burst })
        }
        _ => None,
    };
    Ok(Limit { max_running: row.try_get(first)?, rate })
}

/// A queue's limit and window, from its five columns.
pub(super) fn rule(row: &SqliteRow, first: usize) -> Result<QueueRule, Error> {
    Ok(QueueRule { limit: limit(row, first)?, window: row.try_get(first + 4)? })
}
