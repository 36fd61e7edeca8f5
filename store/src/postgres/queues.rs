use std::time::Duration;

use sqlx::{Error, PgConnection, Row, postgres::PgRow};
use windlass_core::{Limit, LimitName, LimitRecord, QueueName, QueueRecord, Rate};

use super::{PostgresStore, claim::number, unexpected};
use crate::admission::QueueRule;

/// Has those who wait at these gates looked at again, since other rules hold now. `$1` is a gate, or what its key begins
/// with.
const LOOK_AGAIN: &str = "
UPDATE {schema}.gates SET next_at = (extract(epoch FROM {now}) * 1000000)::int8
WHERE key = ANY($1) OR starts_with(key, $2)";

impl PostgresStore {
    pub(super) async fn select_queues(&self) -> Result<Vec<QueueRecord>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare(
                "SELECT name, paused, draining, max_running, rate, per_us, burst, fair_window
                 FROM {schema}.queues ORDER BY name",
            )
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
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
        let mut session = self.transaction().await?;
        self.rare(
            "INSERT INTO {schema}.queues AS q (name, paused) VALUES ($1, $2)
             ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, draining = q.draining AND excluded.paused",
        )
        .bind(queue.as_str().to_owned())
        .bind(paused)
        .execute(&mut *session)
        .await?;
        if !paused {
            // Messages of the pause were dropped at their claims, or not published again.
            self.rare("UPDATE {schema}.outbox SET due_at = {now} WHERE due_at > {now}")
                .execute(&mut *session)
                .await?;
        }
        session.commit().await
    }

    pub(super) async fn set_draining(&self, queue: &QueueName) -> Result<(), Error> {
        let mut session = self.statement().await?;
        self.rare(
            "INSERT INTO {schema}.queues (name, draining) VALUES ($1, true)
             ON CONFLICT (name) DO UPDATE SET draining = true",
        )
        .bind(queue.as_str().to_owned())
        .execute(&mut *session)
        .await?;
        session.commit().await
    }

    pub(super) async fn set_queue_limit(
        &self,
        queue: &QueueName,
        limit: Limit,
        window: Option<u32>,
    ) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        let query = self
            .rare(
                "INSERT INTO {schema}.queues (name, fair_window, max_running, rate, per_us, burst)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (name) DO UPDATE SET fair_window = excluded.fair_window,
                     max_running = excluded.max_running, rate = excluded.rate, per_us = excluded.per_us,
                     burst = excluded.burst",
            )
            .bind(queue.as_str().to_owned())
            .bind(window.map(integer));
        bind_limit(query, limit).execute(&mut *session).await?;
        // What runs already counts. What is queued finds its claim refused, and is held then.
        self.rare(
            "INSERT INTO {schema}.followups (job_id)
             SELECT j.id FROM {schema}.jobs j
             WHERE j.id = ANY(ARRAY(SELECT unnest(job_ids) FROM {schema}.claims))
             AND j.state = {running} AND j.queue = $1 AND NOT j.gated",
        )
        .bind(queue.as_str().to_owned())
        .execute(&mut *session)
        .await?;
        let gates = vec![format!("queue:{queue}"), format!("share:{queue}")];
        self.look_again(&mut session, gates, None).await?;
        session.commit().await
    }

    pub(super) async fn select_limits(&self) -> Result<Vec<LimitRecord>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare("SELECT name, max_running, rate, per_us, burst FROM {schema}.limits ORDER BY name")
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        rows.iter()
            .map(|row| {
                let name = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
                Ok(LimitRecord { name, limit: limit(row, 1)? })
            })
            .collect()
    }

    pub(super) async fn upsert_limit(&self, name: &LimitName, limit: Limit) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        let query = self
            .rare(
                "INSERT INTO {schema}.limits (name, max_running, rate, per_us, burst) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (name) DO UPDATE SET max_running = excluded.max_running, rate = excluded.rate,
                     per_us = excluded.per_us, burst = excluded.burst",
            )
            .bind(name.as_str().to_owned());
        bind_limit(query, limit).execute(&mut *session).await?;
        self.look_again(&mut session, vec![format!("limit:{name}")], Some(format!("limit:{name}/"))).await?;
        session.commit().await
    }

    pub(super) async fn delete_limit(&self, name: &LimitName) -> Result<bool, Error> {
        let mut session = self.transaction().await?;
        let delete = self.rare("DELETE FROM {schema}.limits WHERE name = $1").bind(name.as_str().to_owned());
        let deleted = delete.execute(&mut *session).await?.rows_affected() > 0;
        self.look_again(&mut session, vec![format!("limit:{name}")], Some(format!("limit:{name}/"))).await?;
        session.commit().await?;
        Ok(deleted)
    }

    async fn look_again(
        &self,
        connection: &mut PgConnection,
        gates: Vec<String>,
        prefix: Option<String>,
    ) -> Result<(), Error> {
        // A pass in between would not see these rules, and would write over the marks.
        self.lock_gates(connection).await?;
        self.rare(LOOK_AGAIN).bind(gates).bind(prefix).execute(connection).await.map(drop)
    }

    pub(super) async fn select_next_start(&self) -> Result<Option<Duration>, Error> {
        let mut session = self.statement().await?;
        let select = "SELECT min(next_at) - (extract(epoch FROM {now}) * 1000000)::int8 FROM {schema}.gates
                      WHERE next_at IS NOT NULL";
        let row = self.rare(select).fetch_one(&mut *session).await?;
        session.commit().await?;
        let left: Option<i64> = row.try_get(0)?;
        Ok(left.map(|left| Duration::from_micros(left.max(0).unsigned_abs())))
    }
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bind_limit(query: Query, limit: Limit) -> Query {
    query
        .bind(limit.max_running.map(integer))
        .bind(limit.rate.map(|rate| integer(rate.count)))
        .bind(limit.rate.map(|rate| i64::try_from(rate.per.as_micros()).unwrap_or(i64::MAX)))
        .bind(limit.rate.map(|rate| integer(rate.burst)))
}

fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A limit, from its four columns.
pub(super) fn limit(row: &PgRow, first: usize) -> Result<Limit, Error> {
    let number = |column| row.try_get::<Option<i32>, _>(column)?.map(number).transpose();
    let per: Option<i64> = row.try_get(first + 2)?;
    let rate = match (number(first + 1)?, per, number(first + 3)?) {
        (Some(count), Some(per), Some(burst)) => {
            Some(Rate { count, per: Duration::from_micros(per.max(0).unsigned_abs()), burst })
        }
        _ => None,
    };
    Ok(Limit { max_running: number(first)?, rate })
}

/// A queue's limit and window, from its five columns.
pub(super) fn rule(row: &PgRow, first: usize) -> Result<QueueRule, Error> {
    let window = row.try_get::<Option<i32>, _>(first + 4)?.map(number).transpose()?;
    Ok(QueueRule { limit: limit(row, first)?, window })
}
