//! What only SQLite can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use tempfile::TempDir;
use windlass_core::{
    ClaimId, Finish, JobId, JobTemplate, NewJob, NewWorker, Outcome, Schedule, ScheduleDefinition, State,
    Store, StoreError, WorkerId,
};
use windlass_store::{StoreOptions, VirtualClock, open};

fn url(file: &Path) -> String {
    format!("sqlite:{}", file.display())
}

async fn open_in(folder: &TempDir) -> Arc<dyn Store> {
    open(&url(&folder.path().join("windlass.db")), &StoreOptions::default()).await.unwrap()
}

/// A connection past the store.
async fn raw(folder: &TempDir) -> SqliteConnection {
    SqliteConnection::connect(&url(&folder.path().join("windlass.db"))).await.unwrap()
}

fn job() -> NewJob {
    NewJob::new("test.kind".parse().unwrap(), serde_json::value::RawValue::from_string("{}".into()).unwrap())
}

/// The problem and remedy of an error that someone must mend; both name what it is about.
fn config(error: StoreError) -> String {
    assert!(!error.retryable());
    let StoreError::Config { problem, .. } = &error else { panic!("not for the operator: {error:?}") };
    assert!(problem.contains("store_url"), "{problem}");
    error.to_string()
}

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let job = job();
    {
        let store = open_in(&folder).await;
        store.migrate().await.unwrap();
        store.insert(std::slice::from_ref(&job)).await.unwrap();
    }
    let store = open_in(&folder).await;
    store.ping().await.unwrap();
    assert_eq!(store.get(&[job.id]).await.unwrap()[0].state, State::Queued);
}

#[tokio::test]
async fn the_schema_must_fit() {
    let folder = TempDir::new().unwrap();
    let store = open_in(&folder).await;
    assert!(config(store.ping().await.unwrap_err()).contains("windlass migrate"));
    assert!(config(store.insert(&[job()]).await.unwrap_err()).contains("windlass migrate"));
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    sqlx::query("PRAGMA user_version = 1000").execute(&mut raw(&folder).await).await.unwrap();
    assert!(config(store.ping().await.unwrap_err()).contains("1000"));
}

#[tokio::test]
async fn unusable_places_are_named() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text"), "no database, but long enough to be looked at. ".repeat(100)).unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    let urls = [
        url(&path("text")),
        url(&path("text/below.db")),
        url(&path("folder")),
        "sqlite:".into(),
        "sqlite::memory:".into(),
        "sqlite:file.db?mode=memory".into(),
        "sqlite:file.db?nonsense=1".into(),
    ];
    for url in urls {
        config(open(&url, &StoreOptions::default()).await.unwrap_err());
    }
}

#[tokio::test]
async fn a_file_that_must_not_be_written_says_so() {
    let folder = TempDir::new().unwrap();
    open_in(&folder).await.migrate().await.unwrap();
    let read_only = format!("{}?mode=ro", url(&folder.path().join("windlass.db")));
    let store = open(&read_only, &StoreOptions::default()).await.unwrap();
    assert!(config(store.insert(&[job()]).await.unwrap_err()).contains("written"));
}

#[tokio::test]
async fn a_lock_held_elsewhere_passes() {
    let folder = TempDir::new().unwrap();
    let options = StoreOptions { deadline: Duration::from_millis(400), ..StoreOptions::default() };
    let store = open(&url(&folder.path().join("windlass.db")), &options).await.unwrap();
    store.migrate().await.unwrap();
    let job = job();
    let mut other = raw(&folder).await;
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let error = store.insert(std::slice::from_ref(&job)).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    assert!(store.get(&[job.id]).await.unwrap().is_empty(), "readers go on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    store.insert(std::slice::from_ref(&job)).await.unwrap();
    assert_eq!(store.get(&[job.id]).await.unwrap().len(), 1);
}

/// When all is over, nothing is left of it but the jobs and their errors.
#[tokio::test]
async fn side_tables_empty_themselves() {
    let folder = TempDir::new().unwrap();
    let store = open_in(&folder).await;
    store.migrate().await.unwrap();
    let jobs: Vec<NewJob> = (0..4).map(|_| job()).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let group = store.insert(&jobs).await.unwrap().outbox.unwrap();
    let worker =
        NewWorker { id: WorkerId::new(), label: String::new(), lease: Duration::ZERO, kinds: Vec::new() };
    store.register(&worker).await.unwrap();
    assert_eq!(store.claim(worker.id, ClaimId::new(), &ids).await.unwrap().len(), 4);
    store.cancel(ids[0]).await.unwrap();
    store.cancel(ids[1]).await.unwrap();
    let finish = |id, outcome| Finish { id, fence: 1, outcome };
    let error = || "no".to_owned();
    let finishes = [
        finish(ids[0], Outcome::Cancelled),
        finish(ids[2], Outcome::Retry { after: Duration::ZERO, error: error() }),
        finish(ids[3], Outcome::Dead { error: error() }),
    ];
    assert_eq!(store.finish(worker.id, &finishes, &[]).await.unwrap().len(), 3);
    store.rescue(3).await.unwrap();
    store.cancel(ids[2]).await.unwrap();
    store.outbox_published(&[group], Duration::ZERO).await.unwrap();
    assert!(store.outbox_take(10).await.unwrap().is_empty());
    let mut raw = raw(&folder).await;
    for table in ["due", "outbox", "workers", "claims", "cancellations"] {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let rows: i64 = sqlx::query(count).fetch_one(&mut raw).await.unwrap().get(0);
        assert_eq!(rows, 0, "{table}");
    }
}

/// A due time left behind by hand, for a job that does not wait for it, is dropped.
#[tokio::test]
async fn stale_times_do_no_harm() {
    let folder = TempDir::new().unwrap();
    let store = open_in(&folder).await;
    store.migrate().await.unwrap();
    let worker =
        NewWorker { id: WorkerId::new(), label: String::new(), lease: Duration::MAX, kinds: Vec::new() };
    store.register(&worker).await.unwrap();
    let jobs = [job(), job()];
    store.insert(&jobs).await.unwrap();
    assert_eq!(store.claim(worker.id, ClaimId::new(), &[jobs[0].id]).await.unwrap().len(), 1);
    let mut raw = raw(&folder).await;
    for id in [jobs[0].id, jobs[1].id, JobId::new()] {
        let stale = sqlx::query("INSERT INTO due (job_id, run_at) VALUES (?, 0)").bind(id.to_string());
        stale.execute(&mut raw).await.unwrap();
    }
    store.promote_due(10).await.unwrap();
    assert_eq!(store.promote_due(10).await.unwrap(), 0);
    assert_eq!(store.get(&[jobs[0].id]).await.unwrap()[0].state, State::Running);
    assert_eq!(store.get(&[jobs[1].id]).await.unwrap()[0].state, State::Queued);
}

/// Three schedulers whose clocks differ by up to an hour and a half, and move: no tick fires twice, none is left out.
#[tokio::test]
async fn schedulers_with_wrong_clocks_fire_each_tick_once() {
    let folder = TempDir::new().unwrap();
    let begun: windlass_core::Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
    let mut processes = Vec::new();
    for minutes in [0, 30, 90] {
        let clock = VirtualClock::at(begun + chrono::TimeDelta::minutes(minutes));
        let options = StoreOptions { clock: Some(clock.clone()), ..StoreOptions::default() };
        let store = open(&url(&folder.path().join("windlass.db")), &options).await.unwrap();
        processes.push((clock, store));
    }
    processes[0].1.migrate().await.unwrap();
    let schedule = Schedule::every(Duration::from_secs(60)).unwrap().missed(windlass_core::Missed::All);
    let job = JobTemplate::new("test.kind".parse().unwrap(), job().payload);
    let definition = ScheduleDefinition { name: "minutely".parse().unwrap(), schedule, job };
    processes[0].1.timetable().put_schedule(&definition, None).await.unwrap();
    for round in 0..200u64 {
        let (clock, store) = &processes[usize::try_from(round % 3).unwrap()];
        clock.advance(Duration::from_secs(round * 7 % 120));
        store.timetable().fire_schedules(10).await.unwrap();
    }
    let record = processes[0].1.timetable().schedules().await.unwrap().remove(0);
    let first = begun + chrono::TimeDelta::seconds(30);
    let ticks = (record.last_at.unwrap() - first).num_minutes() + 1;
    let mut file = raw(&folder).await;
    let jobs: i64 = sqlx::query("SELECT count(*) FROM jobs").fetch_one(&mut file).await.unwrap().get(0);
    assert_eq!(jobs, ticks);
    assert!(ticks > 150, "{ticks}");
    assert_eq!(record.next_at.unwrap() - record.last_at.unwrap(), chrono::TimeDelta::minutes(1));
}
