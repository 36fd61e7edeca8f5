//! Both stores through the conformance suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::Store;
use windlass_store::StoreOptions;
use windlass_store::conformance::Fixture;

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;

    /// A file in a folder of its own, which is not there yet.
    struct File(tempfile::TempDir);

    #[async_trait]
    impl Fixture for File {
        async fn client(&self, options: StoreOptions) -> Arc<dyn Store> {
            let url = format!("sqlite:{}", self.0.path().join("data/windlass.db").display());
            windlass_store::open(&url, &options).await.unwrap()
        }

        async fn remove(&self) {
            // With the folder, when this is dropped.
        }
    }

    windlass_store::store_conformance!(File(tempfile::tempdir().unwrap()));
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
    use windlass_core::JobId;

    use super::*;

    /// A schema of its own.
    pub(crate) struct Schema {
        url: String,
        name: String,
    }

    impl Schema {
        /// On the server, or behind the pooler, whose URL the variable holds.
        pub(crate) fn on(variable: &str, parameters: &str) -> Self {
            let url = std::env::var(variable).unwrap_or_else(|_| {
                panic!("{variable} is not set: run scripts/test, which starts the servers")
            });
            Self { url: url + parameters, name: format!("t_{}", JobId::new().as_uuid().simple()) }
        }
    }

    #[async_trait]
    impl Fixture for Schema {
        async fn client(&self, options: StoreOptions) -> Arc<dyn Store> {
            let options = StoreOptions { schema: self.name.clone(), connections: 8, ..options };
            windlass_store::open(&self.url, &options).await.unwrap()
        }

        async fn remove(&self) {
            let mut connection = PgConnection::connect(&self.url).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name));
            raw_sql(drop).execute(&mut connection).await.unwrap();
        }
    }

    windlass_store::store_conformance!(Schema::on("WINDLASS_TEST_POSTGRES_URL", ""));
}

/// Postgres behind a pooler that gives a connection for one transaction at a time and keeps no prepared statements.
#[cfg(feature = "postgres")]
mod pgbouncer {
    use super::postgres::Schema;

    windlass_store::store_conformance!(Schema::on(
        "WINDLASS_TEST_PGBOUNCER_URL",
        "?statement-cache-capacity=0"
    ));
}
