use sqlx::{AssertSqlSafe, Error, PgConnection, Row};
use windlass_core::StoreError;

use super::PostgresStore;
use crate::template::fill;

/// Every migration, oldest first. A released one is never changed.
const MIGRATIONS: &[&str] = &[include_str!("../../../migrations/postgres/0001_jobs.sql")];

impl PostgresStore {
    pub(super) async fn migrate_schema(&self) -> Result<(), Error> {
        let mut transaction = self.pool.begin().await?;
        self.lock_schema(&mut transaction).await?;
        let prepare = "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE IF NOT EXISTS {schema}.migrations (
                 version    integer     NOT NULL PRIMARY KEY,
                 applied_at timestamptz NOT NULL DEFAULT now()
             )";
        sqlx::raw_sql(fill(prepare, &self.schema)).execute(&mut *transaction).await?;
        let done = usize::try_from(self.schema_version_on(&mut transaction).await?).unwrap_or(0);
        for (version, migration) in (1i32..).zip(MIGRATIONS).skip(done) {
            sqlx::raw_sql(fill(migration, &self.schema)).execute(&mut *transaction).await?;
            let note = format!("INSERT INTO {}.migrations (version) VALUES ({version})", self.schema);
            sqlx::raw_sql(AssertSqlSafe(note)).execute(&mut *transaction).await?;
        }
        self.make_partitions(&mut transaction).await?;
        transaction.commit().await
    }

    /// One process at a time changes the schema. The lock ends with the transaction, so poolers work.
    pub(super) async fn lock_schema(&self, connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .persistent(self.persistent)
            .bind(format!("windlass schema {}", self.schema))
            .execute(connection)
            .await
            .map(drop)
    }

    /// The newest migration applied, 0 for none.
    pub(super) async fn schema_version(&self) -> Result<i32, Error> {
        self.schema_version_on(&mut *self.pool.acquire().await?).await
    }

    async fn schema_version_on(&self, connection: &mut PgConnection) -> Result<i32, Error> {
        let statement = fill("SELECT coalesce(max(version), 0) FROM {schema}.migrations", &self.schema);
        sqlx::query(statement).persistent(self.persistent).fetch_one(connection).await?.try_get(0)
    }
}

/// Whether this release can work with a schema of `version`.
pub(super) fn check(version: i32) -> Result<(), StoreError> {
    let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
    let config = |problem: String, remedy: &str| Err(StoreError::Config { problem, remedy: remedy.into() });
    if version < known {
        config(
            format!("the schema has version {version}, and this release needs {known}"),
            "run `windlass migrate`",
        )
    } else if version > known {
        config(
            format!("the schema has version {version}, and this release knows only {known}"),
            "deploy the release that migrated it, or a later one",
        )
    } else {
        Ok(())
    }
}
