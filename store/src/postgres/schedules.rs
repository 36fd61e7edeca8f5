use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Error, Row, postgres::PgRow};
use windlass_core::{ScheduleDefinition, ScheduleName, ScheduleRecord, StoreError, Timestamp, Timetable};

use super::{PostgresStore, unexpected};
use crate::schedules::{fire, first_tick, tell};

const ALL: &str = "SELECT definition, enabled, next_at, last_at, {now} FROM {schema}.schedules";

#[async_trait]
impl Timetable for PostgresStore {
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let rows = self.rare(&format!("{ALL} ORDER BY name")).fetch_all(&mut *session).await?;
            session.commit().await?;
            rows.iter().map(record).collect()
        })
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
            let mut session = self.statement().await?;
            let delete =
                self.rare("DELETE FROM {schema}.schedules WHERE name = $1").bind(name.as_str().to_owned());
            let deleted = delete.execute(&mut *session).await?.rows_affected() > 0;
            session.commit().await?;
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

impl PostgresStore {
    async fn upsert_schedule(
        &self,
        definition: &ScheduleDefinition,
        enabled: Option<bool>,
    ) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        // A row of its own from the beginning, so that there always is one to lock.
        let text = serde_json::to_string(definition).map_err(unexpected)?;
        let row = self
            .rare(
                "INSERT INTO {schema}.schedules AS s (name, definition, enabled) VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO UPDATE SET name = excluded.name
                 RETURNING definition, enabled, next_at, last_at, {now}, s.xmax = 0",
            )
            .bind(definition.name.as_str().to_owned())
            .bind(&text)
            .bind(enabled.unwrap_or(true))
            .fetch_one(&mut *session)
            .await?;
        let old = if row.try_get::<bool, _>(5)? { None } else { record(&row).ok() };
        let next_at = first_tick(&definition.schedule, old.as_ref(), enabled, row.try_get(4)?);
        self.rare(
            "UPDATE {schema}.schedules SET definition = $2, enabled = coalesce($3, enabled), next_at = $4
             WHERE name = $1",
        )
        .bind(definition.name.as_str().to_owned())
        .bind(text)
        .bind(enabled)
        .bind(next_at)
        .execute(&mut *session)
        .await?;
        session.commit().await
    }

    async fn set_enabled(&self, name: &ScheduleName, enabled: bool) -> Result<bool, Error> {
        let mut session = self.transaction().await?;
        let select = self.rare(&format!("{ALL} WHERE name = $1 FOR UPDATE")).bind(name.as_str().to_owned());
        let Some(row) = select.fetch_optional(&mut *session).await? else { return Ok(false) };
        let old = record(&row)?;
        let next_at = first_tick(&old.definition.schedule, Some(&old), Some(enabled), row.try_get(4)?);
        self.rare("UPDATE {schema}.schedules SET enabled = $2, next_at = $3 WHERE name = $1")
            .bind(name.as_str().to_owned())
            .bind(enabled)
            .bind(next_at)
            .execute(&mut *session)
            .await?;
        session.commit().await?;
        Ok(true)
    }

    /// The locks on the schedules make it once per tick: another scheduler passes over them, and finds them with their next
    /// ticks afterwards.
    async fn fire(&self, limit: usize) -> Result<usize, Error> {
        let mut session = self.transaction().await?;
        let due = format!(
            "{ALL} WHERE enabled AND next_at <= {{now}} ORDER BY next_at, name LIMIT $1 FOR UPDATE SKIP LOCKED"
        );
        let rows =
            self.rare(&due).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut *session).await?;
        let mut jobs = Vec::new();
        for row in &rows {
            let Some(fired) = fire(record(row), row.try_get(4)?) else { continue };
            self.rare(
                "UPDATE {schema}.schedules SET next_at = $2, last_at = coalesce($3, last_at) WHERE name = $1",
            )
            .bind(fired.name.as_str().to_owned())
            .bind(fired.next_at)
            .bind(fired.last_at)
            .execute(&mut *session)
            .await?;
            jobs.extend(fired.jobs);
        }
        if !jobs.is_empty() {
            let inserted = self.insert_on(&mut session, &jobs, Duration::ZERO).await?;
            tell(&jobs, &inserted.outcomes);
        }
        session.commit().await?;
        Ok(rows.len())
    }
}

fn record(row: &PgRow) -> Result<ScheduleRecord, Error> {
    Ok(ScheduleRecord {
        definition: serde_json::from_str(row.try_get(0)?).map_err(unexpected)?,
        enabled: row.try_get(1)?,
        next_at: row.try_get::<Option<Timestamp>, _>(2)?,
        last_at: row.try_get(3)?,
    })
}
