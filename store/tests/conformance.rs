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
        async fn client(&self) -> Arc<dyn Store> {
            let url = format!("sqlite:{}", self.0.path().join("data/windlass.db").display());
            windlass_store::open(&url, &StoreOptions::default()).await.unwrap()
        }

        async fn remove(&self) {
            // With the folder, when this is dropped.
        }
    }

    windlass_store::store_conformance!(File(tempfile::tempdir().unwrap()));
}

#[cfg(feature = "postgres")]
mod postgres {
    use sqlx::{AssertSqlSafe, Connection, PgConnection};
    use windlass_core::JobId;

    use super::*;

    /// A schema of its own.
    struct Schema(String);

    fn url() -> String {
        std::env::var("WINDLASS_TEST_POSTGRES_URL")
            .expect("WINDLASS_TEST_POSTGRES_URL is not set: run scripts/test, which starts the servers")
    }

    impl Schema {
        fn new() -> Self {
            Self(format!("t_{}", JobId::new().as_uuid().simple()))
        }
    }

    #[async_trait]
    impl Fixture for Schema {
        async fn client(&self) -> Arc<dyn Store> {
            let options = StoreOptions { schema: self.0.clone(), connections: 8, ..StoreOptions::default() };
            windlass_store::open(&url(), &options).await.unwrap()
        }

        async fn remove(&self) {
            let mut connection = PgConnection::connect(&url()).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.0));
            sqlx::query(drop).execute(&mut connection).await.unwrap();
        }
    }

    windlass_store::store_conformance!(Schema::new());
}
