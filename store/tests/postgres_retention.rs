//! Days of jobs that are dropped as a whole, on Postgres.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/postgres.rs"]
mod scratch;

use std::{collections::BTreeSet, time::Duration};

use scratch::Scratch;
use serde_json::value::RawValue;
use sqlx::{Row, postgres::PgConnection};
use windlass_core::{ClaimId, Finish, JobId, NewJob, NewWorker, Operations, Outcome, State, Store, WorkerId};
use windlass_store::{Keep, PostgresStore, Retention, StoreOptions, VirtualClock};

const DAY: Duration = Duration::from_secs(86_400);

/// A store that keeps what is over for a day, on a clock of its own.
async fn open(scratch: &Scratch, clock: &VirtualClock) -> PostgresStore {
    let options = StoreOptions {
        schema: scratch.schema.clone(),
        connections: 4,
        clock: Some(clock.clone()),
        retention: Retention {
            any: Keep { succeeded: Some(DAY), cancelled: Some(DAY), dead: Some(DAY) },
            ..Retention::default()
        },
        ..StoreOptions::default()
    };
    let store = PostgresStore::open(&scratch.url, &options).unwrap();
    store.migrate().await.unwrap();
    store
}

/// Accepts so many jobs, the first `over` of which die.
async fn jobs(store: &PostgresStore, count: usize, over: usize) -> Vec<JobId> {
    let payload = || RawValue::from_string("{}".into()).unwrap();
    let jobs: Vec<NewJob> =
        (0..count).map(|_| NewJob::new("test.kind".parse().unwrap(), payload())).collect();
    store.insert(&jobs).await.unwrap();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let (worker, claim) = (WorkerId::new(), ClaimId::new());
    let lease = Duration::from_secs(3600);
    store.register(&NewWorker { id: worker, label: "test".into(), lease, kinds: Vec::new() }).await.unwrap();
    let finishes: Vec<Finish> = store
        .claim(worker, claim, &ids[..over])
        .await
        .unwrap()
        .iter()
        .map(|job| Finish { id: job.id, fence: job.fence, outcome: Outcome::Dead { error: "e".into() } })
        .collect();
    assert_eq!(store.finish(worker, &finishes, &[claim]).await.unwrap().len(), over);
    ids
}

/// The tables of a day, for all that is partitioned.
async fn tables(scratch: &Scratch, connection: &mut PgConnection, day: &str) -> i64 {
    let count = format!(
        "SELECT count(*) FROM pg_tables WHERE schemaname = '{}' AND tablename LIKE '%\\_{day}'",
        scratch.schema
    );
    sqlx::query(sqlx::AssertSqlSafe(count)).fetch_one(connection).await.unwrap().get(0)
}

async fn left(store: &PostgresStore, ids: &[JobId]) -> BTreeSet<JobId> {
    store.get(ids).await.unwrap().iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn a_day_is_dropped_once_few_of_its_jobs_must_stay() {
    let scratch = Scratch::new();
    let clock = VirtualClock::default();
    let store = open(&scratch, &clock).await;
    let mut connection = scratch.connect().await;
    let day = clock.now().format("%Y%m%d").to_string();
    let ids = jobs(&store, 3100, 2000).await;
    assert_eq!(tables(&scratch, &mut connection, &day).await, 5);
    clock.advance(3 * DAY);
    store.maintain().await.unwrap();
    assert_eq!(tables(&scratch, &mut connection, &day).await, 5, "1100 must stay");
    assert_eq!(left(&store, &ids).await.len(), 3100);

    for id in &ids[2000..2200] {
        store.cancel(*id).await.unwrap();
    }
    clock.advance(2 * DAY);
    store.maintain().await.unwrap();
    assert_eq!(tables(&scratch, &mut connection, &day).await, 0);
    assert_eq!(left(&store, &ids).await, ids[2200..].iter().copied().collect());
    let page = store.dead(&windlass_core::DeadFilter::default(), None, 10).await.unwrap();
    assert!(page.jobs.is_empty() && page.next.is_none());
    let errors = format!("SELECT count(*) FROM {}.job_errors", scratch.schema);
    let errors = sqlx::query(sqlx::AssertSqlSafe(errors)).fetch_one(&mut connection).await.unwrap();
    assert_eq!(errors.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_long_reader_only_delays_it() {
    let scratch = Scratch::new();
    let clock = VirtualClock::default();
    let store = open(&scratch, &clock).await;
    let mut connection = scratch.connect().await;
    let day = clock.now().format("%Y%m%d").to_string();
    let ids = jobs(&store, 20, 10).await;
    clock.advance(5 * DAY);
    scratch.run(&mut connection, "BEGIN; SELECT count(*) FROM {schema}.jobs").await;
    let error = store.maintain().await.unwrap_err();
    assert!(error.retryable(), "{error}");
    assert_eq!(left(&store, &ids).await.len(), 20);
    scratch.run(&mut connection, "ROLLBACK").await;
    store.maintain().await.unwrap();
    assert_eq!(tables(&scratch, &mut connection, &day).await, 0);
    assert_eq!(left(&store, &ids).await, ids[10..].iter().copied().collect());
}

/// A retry between the search and the drop: what an operator was told is queued again is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_races_the_drop() {
    let scratch = Scratch::new();
    let clock = VirtualClock::default();
    let store = open(&scratch, &clock).await;
    let ids = jobs(&store, 2, 2).await;
    clock.advance(5 * DAY);
    let mut connection = scratch.connect().await;
    // The drop has searched when it comes to this row.
    let lock = format!("BEGIN; SELECT FROM {{schema}}.dead WHERE job_id = '{}' FOR UPDATE", ids[0]);
    scratch.run(&mut connection, &lock).await;
    let dropping = tokio::spawn({
        let store = store.clone();
        async move {
            // It does not wait for long, and begins again.
            while let Err(error) = store.maintain().await {
                assert!(error.retryable(), "{error}");
            }
        }
    });
    let blocked = "SELECT count(*) FROM pg_stat_activity
                   WHERE wait_event_type = 'Lock' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))";
    while sqlx::query(blocked).fetch_one(&mut connection).await.unwrap().get::<i64, _>(0) == 0 {
        assert!(!dropping.is_finished(), "the drop never came to the row");
    }
    let retrying = store.retry(&ids[1..], &[State::Dead]);
    let mut retrying = std::pin::pin!(retrying);
    let early = tokio::time::timeout(Duration::from_millis(300), retrying.as_mut()).await;
    scratch.run(&mut connection, "ROLLBACK").await;
    let retried = match early {
        Ok(retried) => retried.unwrap(),
        Err(_) => retrying.await.unwrap(),
    };
    dropping.await.unwrap();
    assert_eq!(left(&store, &ids).await, retried.into_iter().collect());
}

/// Dropped at any moment, as by a crash, it has done all of a day or nothing of it.
#[tokio::test]
async fn a_drop_given_up_is_whole_or_nothing() {
    for millis in [1, 5, 10, 15, 20, 30, 40, 60] {
        let scratch = Scratch::new();
        let clock = VirtualClock::default();
        let store = open(&scratch, &clock).await;
        let ids = jobs(&store, 40, 20).await;
        clock.advance(5 * DAY);
        let _ = tokio::time::timeout(Duration::from_millis(millis), store.maintain()).await;
        let kept = left(&store, &ids).await;
        assert!(kept.len() == 40 || kept == ids[20..].iter().copied().collect(), "{}", kept.len());
        store.maintain().await.unwrap();
        assert_eq!(left(&store, &ids).await, ids[20..].iter().copied().collect());
    }
}
