//! SQLite as the broker through the conformance suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use windlass_brokers::conformance::{Fixture, messages};
use windlass_core::{Broker, BrokerError, Lane, Priorities, Priority};

/// A file for each process of tests, which goes with the system's temporary files.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

struct Sqlite;

fn url() -> String {
    format!("sqlite:{}", FOLDER.path().join("broker.db").display())
}

#[async_trait]
impl Fixture for Sqlite {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let mut connection = SqliteConnection::connect(&url()).await.unwrap();
        let insert = sqlx::query("INSERT INTO messages (lane, body) VALUES (?, ?)").bind(lane.to_string());
        insert.bind(bytes).execute(&mut connection).await.unwrap();
        true
    }
}

windlass_brokers::broker_conformance!(Sqlite);

#[tokio::test]
async fn a_table_of_somebody_else_is_for_the_operator() {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.path().join("theirs.db").display());
    let mut theirs = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
    sqlx::query("CREATE TABLE messages (id INTEGER, text TEXT)").execute(&mut theirs).await.unwrap();
    let lane = Lane { queue: "q".parse().unwrap(), priority: Priority::Normal };
    let broker = windlass_brokers::open(&url).await.unwrap();
    let publish = broker.publish(&messages(&lane, 1)).await.remove(0);
    let subscribe = broker.subscribe(&[lane], 1, Priorities::Weighted).await.map(drop);
    for result in [publish, subscribe] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(
            error.to_string().contains("broker_url") && error.to_string().contains("theirs.db"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_with_the_setting() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("not-a-database");
    std::fs::write(&file, "this is a text, and longer than the header of a database would be".repeat(9))
        .unwrap();
    let broker = windlass_brokers::open(&format!("sqlite:{}", file.display())).await.unwrap();
    let error = broker.ping().await.unwrap_err();
    assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
    assert!(
        error.to_string().contains("broker_url") && error.to_string().contains("not-a-database"),
        "{error}"
    );
    for url in ["sqlite:", "sqlite::memory:", "sqlite:x.db?nonsense=1"] {
        let error = windlass_brokers::open(url).await.unwrap_err();
        assert!(error.to_string().contains("broker_url"), "{error}");
    }
}
