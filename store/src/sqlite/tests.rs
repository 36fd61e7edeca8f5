use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;
use windlass_core::NewJob;

use super::*;

async fn store() -> (TempDir, SqliteStore) {
    let folder = TempDir::new().unwrap();
    let url = format!("sqlite:{}", folder.path().join("windlass.db").display());
    let store = SqliteStore::open(&url, &StoreOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    (folder, store)
}

/// However large the tables are, each statement finds its jobs by their keys.
#[tokio::test]
async fn no_statement_scans_the_jobs() {
    let (_folder, store) = store().await;
    let searches = [find::SCAN, find::LAST, find::FITTING].map(find::filled);
    let statements = [
        &*attempt::CLAIM,
        &attempt::CLAIMED_BEFORE,
        &attempt::FINISH,
        &attempt::INSERT_ERRORS,
        &insert::INSERT_DUE,
        &outbox::STILL_QUEUED,
        &outbox::PROMOTE,
        &read::CANCEL,
        &read::GET,
        &read::GET_ERRORS,
        &timers::EXPIRE,
        &timers::INSERT_TIMERS,
        &timers::KEEP,
        &timers::NOTE,
        &unique::CLEAN,
        &unique::HOLDERS,
        &unique::REPLACE,
        &webhooks::ENDED,
        &worker::RESCUE,
    ];
    for statement in statements.into_iter().chain(&searches) {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.as_str()));
        let rows = sqlx::query(explain).fetch_all(&store.readers).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let by_key = |step: &String| step.starts_with("SEARCH") && !step.contains("AUTOMATIC");
        let on_jobs =
            |step: &&String| [" jobs", " j ", " job_errors"].iter().any(|table| step.contains(table));
        let steps: Vec<&String> = plan.iter().filter(on_jobs).collect();
        assert!(!steps.is_empty() && steps.into_iter().all(by_key), "{}\n{plan:#?}", statement.as_str());
    }
}

/// What must survive a power cut waits for the disk; the rest need not.
#[tokio::test]
async fn commits_wait_for_the_disk_where_it_counts() {
    let (_folder, store) = store().await;
    for (commit, synchronous) in [(Commit::Durable, 2), (Commit::Soft, 1), (Commit::Durable, 2)] {
        let mut transaction = store.write(commit).await.unwrap();
        let row = sqlx::query("PRAGMA synchronous").fetch_one(&mut *transaction).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), synchronous, "{commit:?}");
    }
    let mode = sqlx::query("PRAGMA journal_mode").fetch_one(&store.readers).await.unwrap();
    assert_eq!(mode.get::<String, _>(0), "wal");
}

/// A full disk is trouble that passes, and what did not fit is not there in part.
#[tokio::test]
async fn a_full_disk_passes() {
    let (_folder, store) = store().await;
    let pages: i64 = sqlx::query("PRAGMA page_count").fetch_one(&store.writer).await.unwrap().get(0);
    let limit = async |pages: i64| {
        let pragma = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(pragma).execute(&store.writer).await.unwrap();
    };
    limit(pages + 10).await;
    let payload = serde_json::value::RawValue::from_string(format!("\"{}\"", "x".repeat(1000))).unwrap();
    let jobs: Vec<NewJob> =
        (0..200).map(|_| NewJob::new("test.kind".parse().unwrap(), payload.clone())).collect();
    let error = store.insert(&jobs).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    assert!(store.get(&ids).await.unwrap().is_empty());
    limit(pages + 10_000).await;
    store.insert(&jobs).await.unwrap();
    assert_eq!(store.get(&ids).await.unwrap().len(), 200);
}
