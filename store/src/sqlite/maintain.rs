use sqlx::{AssertSqlSafe, Error, Row, SqliteConnection};
use windlass_core::StoreError;

use super::{Commit, SqliteStore, unique, webhooks};

/// Every migration, oldest first. A released one is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../../migrations/sqlite/0002_semantics.sql"),
    include_str!("../../../migrations/sqlite/0003_records.sql"),
    include_str!("../../../migrations/sqlite/0004_time.sql"),
    include_str!("../../../migrations/sqlite/0005_workflows.sql"),
    include_str!("../../../migrations/sqlite/0006_gates.sql"),
    include_str!("../../../migrations/sqlite/0007_kinds.sql"),
    include_str!("../../../migrations/sqlite/0008_revision.sql"),
    include_str!("../../../migrations/sqlite/0009_keys.sql"),
    include_str!("../../../migrations/sqlite/0010_webhooks.sql"),
    include_str!("../../../migrations/sqlite/0011_quotas.sql"),
    include_str!("../../../migrations/sqlite/0012_system.sql"),
];

impl SqliteStore {
    /// The write lock keeps other processes waiting until the schema is there.
    pub(super) async fn migrate_schema(&self) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let done = usize::try_from(version(&mut transaction).await?).unwrap_or(0);
        for (number, migration) in (1..).zip(MIGRATIONS).skip(done) {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
            let note = AssertSqlSafe(format!("PRAGMA user_version = {number}"));
            sqlx::raw_sql(note).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// The newest migration applied, 0 for none.
    pub(super) async fn schema_version(&self) -> Result<i64, Error> {
        version(&mut *self.readers.acquire().await?).await
    }

    pub(super) async fn keep_house(&self) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= ?")
            .bind(self.now())
            .execute(&mut *transaction)
            .await?;
        unique::clean(&mut transaction, self.now()).await?;
        webhooks::forget_deliveries(&mut transaction, self.now()).await?;
        // Gates whose buckets are full again, and tenants whose turn is as anybody's.
        sqlx::query("DELETE FROM gates WHERE taken = 0 AND next_at IS NULL AND rank = 0 AND full_at <= ?")
            .bind(self.now())
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "DELETE FROM shares AS s WHERE rank <= (SELECT rank FROM gates g WHERE g.key = 'queue:' || s.queue)",
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, Error> {
    sqlx::query("PRAGMA user_version").fetch_one(connection).await?.try_get(0)
}

/// Whether this release can work with a schema of `version`.
pub(super) fn check(version: i64) -> Result<(), StoreError> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    let remedy = match version.cmp(&known) {
        std::cmp::Ordering::Equal => return Ok(()),
        std::cmp::Ordering::Less => "run `windlass migrate`",
        std::cmp::Ordering::Greater => "use the release that migrated it, or a later one",
    };
    Err(StoreError::Config {
        problem: format!("store_url: the schema has version {version}, and this release needs {known}"),
        remedy: remedy.into(),
    })
}
