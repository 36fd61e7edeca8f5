use async_trait::async_trait;
use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{ScheduleDefinition, ScheduleName, ScheduleRecord, StoreError, Timetable};

use super::{Commit, SqliteStore, insert::insert_jobs, timestamp, unexpected};
use crate::schedules::{fire, first_tick, tell};

const ALL: &str = "SELECT definition, enabled, next_at, last_at FROM schedules ORDER BY name";
const ONE: &str = "SELECT definition, enabled, next_at, last_at FROM schedules WHERE name = ?";

#[async_trait]
impl Timetable for SqliteStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        self.within(async { sqlx::query(ALL).fetch_all(&self.readers).await?.iter().map(record).collect() })
            .await
    }

    async fn put_schedule(
        &self,
        definition: &ScheduleDefinition,
        enabled: Option<bool>,
    ) -> Result<(), StoreError> {
        self.within(self.upsert_schedule(definition, enabled)).await
    }

    async fn delete_schedule(&self, name: &ScheduleName) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let delete = sqlx::query("DELETE FROM schedules WHERE name = ?").bind(name.as_str());
            let deleted = delete.execute(&mut *transaction).await?.rows_affected() > 0;
            transaction.commit().await?;
            Ok(deleted)
        })
        .await
    }

    async fn enable_schedule(&self, name: &ScheduleName, enabled: bool) -> Result<bool, StoreError> {
        self.within(self.set_enabled(name, enabled)).await
    }

    async fn fire_schedules(&self, limit: usize) -> Result<usize, StoreError> {
        self.within(self.fire(limit)).await
    }

    async fn expire(&self, limit: usize) -> Result<usize, StoreError> {
        self.within(self.expire_jobs(limit)).await
    }
}

impl SqliteStore {
    async fn upsert_schedule(
        &self,
        definition: &ScheduleDefinition,
        enabled: Option<bool>,
    ) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        // One that cannot be read is replaced like any other.
        let old = one(&mut transaction, &definition.name).await?.and_then(Result::ok);
        let now = timestamp(self.now())?;
        let next_at = first_tick(&definition.schedule, old.as_ref(), enabled, now);
        sqlx::query(
            "INSERT INTO schedules (name, definition, enabled, next_at) VALUES (?1, ?2, coalesce(?3, 1), ?4)
             ON CONFLICT (name) DO UPDATE
             SET definition = excluded.definition, enabled = coalesce(?3, enabled), next_at = excluded.next_at",
        )
        .bind(definition.name.as_str())
        .bind(serde_json::to_string(definition).map_err(unexpected)?)
        .bind(enabled)
        .bind(next_at.map(|at| at.timestamp_micros()))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    async fn set_enabled(&self, name: &ScheduleName, enabled: bool) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let Some(old) = one(&mut transaction, name).await?.transpose()? else { return Ok(false) };
        let now = timestamp(self.now())?;
        let next_at = first_tick(&old.definition.schedule, Some(&old), Some(enabled), now);
        sqlx::query("UPDATE schedules SET enabled = ?2, next_at = ?3 WHERE name = ?1")
            .bind(name.as_str())
            .bind(enabled)
            .bind(next_at.map(|at| at.timestamp_micros()))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn fire(&self, limit: usize) -> Result<usize, Error> {
        let now = self.now();
        // Mostly there is nothing, and then the writer need not be troubled.
        let due = sqlx::query("SELECT 1 FROM schedules WHERE enabled AND next_at <= ? LIMIT 1").bind(now);
        if due.fetch_optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let rows = sqlx::query(
            "SELECT definition, enabled, next_at, last_at FROM schedules WHERE enabled AND next_at <= ?
             ORDER BY next_at, name LIMIT ?",
        )
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let mut jobs = Vec::new();
        for row in &rows {
            let Some(fired) = fire(record(row), timestamp(now)?) else { continue };
            sqlx::query("UPDATE schedules SET next_at = ?2, last_at = coalesce(?3, last_at) WHERE name = ?1")
                .bind(fired.name.as_str())
                .bind(fired.next_at.map(|at| at.timestamp_micros()))
                .bind(fired.last_at.map(|at| at.timestamp_micros()))
                .execute(&mut *transaction)
                .await?;
            jobs.extend(fired.jobs);
        }
        let inserted = insert_jobs(&mut transaction, &jobs, now, 0).await?;
        tell(&jobs, &inserted.outcomes);
        transaction.commit().await?;
        Ok(rows.len())
    }
}

async fn one(
    connection: &mut SqliteConnection,
    name: &ScheduleName,
) -> Result<Option<Result<ScheduleRecord, Error>>, Error> {
    let row = sqlx::query(ONE).bind(name.as_str()).fetch_optional(connection).await?;
    Ok(row.as_ref().map(record))
}

fn record(row: &SqliteRow) -> Result<ScheduleRecord, Error> {
    let time = |micros: Option<i64>| micros.map(timestamp).transpose();
    Ok(ScheduleRecord {
        definition: serde_json::from_str(row.try_get(0)?).map_err(unexpected)?,
        enabled: row.try_get(1)?,
        next_at: time(row.try_get(2)?)?,
        last_at: time(row.try_get(3)?)?,
    })
}
