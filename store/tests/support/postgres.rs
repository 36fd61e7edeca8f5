//! A schema of its own for each test on Postgres.

use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use uuid::Uuid;

/// A schema that goes with the test, also when that fails.
pub(crate) struct Scratch {
    pub(crate) url: String,
    pub(crate) schema: String,
}

impl Scratch {
    /// On the server itself.
    pub(crate) fn new() -> Self {
        Self::on("WINDLASS_TEST_POSTGRES_URL")
    }

    /// On the server that a variable names.
    pub(crate) fn on(variable: &str) -> Self {
        let url = std::env::var(variable)
            .unwrap_or_else(|_| panic!("{variable} is not set: run scripts/test, which starts the servers"));
        Self { url, schema: format!("test_{}", Uuid::now_v7().simple()) }
    }

    /// A connection past the store.
    pub(crate) async fn connect(&self) -> PgConnection {
        let url = std::env::var("WINDLASS_TEST_POSTGRES_URL").unwrap();
        PgConnection::connect(&url).await.unwrap()
    }

    /// Runs statements past the store; `{schema}` stands for the schema's name.
    pub(crate) async fn run(&self, connection: &mut PgConnection, statements: &str) {
        let statements = statements.replace("{schema}", &self.schema);
        raw_sql(AssertSqlSafe(statements)).execute(connection).await.unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let schema = std::mem::take(&mut self.schema);
        let url = std::env::var("WINDLASS_TEST_POSTGRES_URL").unwrap();
        let cleanup = async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            // Where a test still holds a lock, it fails instead of waiting for itself.
            let drop = format!("SET lock_timeout = '30s'; DROP SCHEMA IF EXISTS {schema} CASCADE");
            raw_sql(AssertSqlSafe(drop)).execute(&mut connection).await.unwrap();
        };
        // A test's runtime cannot be waited on from within.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cleaned = std::thread::spawn(move || runtime.block_on(cleanup)).join();
        assert!(cleaned.is_ok() || std::thread::panicking(), "the schema could not be dropped");
    }
}
