use sqlx::{Error, PgConnection, Row, raw_sql};
use windlass_core::StoreError;

use super::{PostgresStore, session::SHOW_TIME};

/// Every migration, oldest first. A released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/postgres/0001_jobs.sql"),
    include_str!("../../../migrations/postgres/0002_semantics.sql"),
    include_str!("../../../migrations/postgres/0003_records.sql"),
    include_str!("../../../migrations/postgres/0004_time.sql"),
    include_str!("../../../migrations/postgres/0005_workflows.sql"),
    include_str!("../../../migrations/postgres/0006_gates.sql"),
    include_str!("../../../migrations/postgres/0007_kinds.sql"),
    include_str!("../../../migrations/postgres/0008_revision.sql"),
    include_str!("../../../migrations/postgres/0009_keys.sql"),
    include_str!("../../../migrations/postgres/0010_webhooks.sql"),
    include_str!("../../../migrations/postgres/0011_quotas.sql"),
    include_str!("../../../migrations/postgres/0012_system.sql"),
];

const VERSIONS: &str = "
CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
    version    integer     NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// Where a virtual clock shows its time.
const CLOCK: &str = "
CREATE TABLE IF NOT EXISTS {schema}.clock (at timestamptz NOT NULL);
INSERT INTO {schema}.clock SELECT '-infinity' WHERE NOT EXISTS (SELECT FROM {schema}.clock);
CREATE OR REPLACE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM {schema}.clock'";

impl PostgresStore {
    pub(super) async fn migrate_schema(&self) -> Result<(), Error> {
        let mut session = self.session(true).await?;
        self.lock_schema(&mut session).await?;
        // `IF NOT EXISTS` would want the right to create schemas, also where an administrator has made this one.
        let exists =
            self.rare("SELECT to_regnamespace('{schema}') IS NOT NULL").fetch_one(&mut *session).await?;
        if !exists.try_get::<bool, _>(0)? {
            raw_sql(self.fill("CREATE SCHEMA {schema}")).execute(&mut *session).await?;
        }
        if let Some(clock) = &self.clock {
            raw_sql(self.fill(CLOCK)).execute(&mut *session).await?;
            self.rare(SHOW_TIME).bind(clock.now()).execute(&mut *session).await?;
        }
        raw_sql(self.fill(VERSIONS)).execute(&mut *session).await?;
        let done = usize::try_from(self.schema_version_on(&mut session).await?).unwrap_or(0);
        for (version, migration) in (1i32..).zip(MIGRATIONS).skip(done) {
            raw_sql(self.fill(migration)).execute(&mut *session).await?;
            let note = self.rare("INSERT INTO {schema}.schema_migrations (version) VALUES ($1)");
            note.bind(version).execute(&mut *session).await?;
        }
        self.make_partitions(&mut session).await?;
        session.commit().await
    }

    /// One process at a time changes the schema. The lock ends with the transaction, so poolers work.
    pub(super) async fn lock_schema(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let lock = self.rare("SELECT pg_advisory_xact_lock(hashtextextended('windlass schema {schema}', 0))");
        lock.execute(connection).await.map(drop)
    }

    /// The newest migration applied, 0 for none.
    pub(super) async fn schema_version(&self) -> Result<i32, Error> {
        let mut session = self.statement().await?;
        let version = self.schema_version_on(&mut session).await?;
        session.commit().await?;
        Ok(version)
    }

    async fn schema_version_on(&self, connection: &mut PgConnection) -> Result<i32, Error> {
        let select = self.rare("SELECT coalesce(max(version), 0) FROM {schema}.schema_migrations");
        select.fetch_one(connection).await?.try_get(0)
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
