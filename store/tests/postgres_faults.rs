//! Postgres that is slow, gone, killed, behind a pooler, or not ours.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/postgres.rs"]
mod scratch;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use scratch::Scratch;
use serde_json::value::RawValue;
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};
use tokio::time::Instant;
use windlass_core::{
    ClaimId, Finish, InsertOutcome, JobId, NewJob, NewWorker, Outcome, State, Store, StoreError, WorkerId,
};
use windlass_store::{PostgresStore, StoreOptions};

fn open(url: &str, scratch: &Scratch, deadline: Duration) -> PostgresStore {
    let options =
        StoreOptions { schema: scratch.schema.clone(), connections: 4, deadline, ..StoreOptions::default() };
    PostgresStore::open(url, &options).unwrap()
}

fn jobs(n: usize) -> Vec<NewJob> {
    let payload = || RawValue::from_string("{}".into()).unwrap();
    (0..n).map(|_| NewJob::new("test.kind".parse().unwrap(), payload())).collect()
}

fn worker() -> NewWorker {
    NewWorker {
        id: WorkerId::new(),
        label: "test".into(),
        lease: Duration::from_secs(3600),
        kinds: Vec::new(),
    }
}

fn with(url: &str, parameter: &str) -> String {
    format!("{url}{}{parameter}", if url.contains('?') { '&' } else { '?' })
}

/// A statement that lasts until another one of the test waits for a lock.
fn until_one_waits(scratch: &Scratch) -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..6000 LOOP
             IF EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                        WHERE NOT l.granted AND a.query LIKE '%{}%') THEN RETURN; END IF;
             PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01);
         END LOOP; RAISE 'nothing waits'; END $$",
        scratch.schema
    )
}

/// A store as its callers use it: they repeat what fails with a retryable error.
struct Persistent<'a> {
    store: &'a PostgresStore,
    failures: AtomicUsize,
}

impl Persistent<'_> {
    async fn call<T, F: Future<Output = Result<T, StoreError>>>(&self, call: impl Fn() -> F) -> T {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) if error.retryable() && Instant::now() < deadline => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    /// A group of jobs from enqueue to success, each claimed and recorded once.
    async fn run_group(&self, worker: WorkerId, n: usize) {
        let store = self.store;
        let jobs = jobs(n);
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let inserted = self.call(|| store.insert(&jobs)).await;
        assert!(inserted.outcomes.iter().all(|outcome| *outcome == InsertOutcome::Created(State::Queued)));
        let claim = ClaimId::new();
        let claimed = self.call(|| store.claim(worker, claim, &ids)).await;
        assert_eq!(claimed.len(), n, "the answer to a claim was lost");
        let outcome = || Outcome::Succeeded { result: None, keep: None };
        let finishes: Vec<_> =
            claimed.iter().map(|job| Finish { id: job.id, fence: job.fence, outcome: outcome() }).collect();
        let closed = [claim];
        self.call(|| store.finish(worker, &finishes, &closed)).await;
        let records = self.call(|| store.get(&ids)).await;
        assert_eq!(records.len(), n);
        for record in records {
            assert_eq!((record.state, record.attempt), (State::Succeeded, 1), "{record:?}");
        }
    }
}

// ---- lost connections ----

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_nothing_and_repeat_nothing() {
    let scratch = Scratch::new();
    let url = with(&scratch.url, &format!("application_name={}", scratch.schema));
    let store = open(&url, &scratch, Duration::from_secs(10));
    store.migrate().await.unwrap();
    let persistent = Persistent { store: &store, failures: AtomicUsize::new(0) };
    let worker = worker();
    persistent.call(|| store.register(&worker)).await;

    let mut connection = scratch.connect().await;
    let rounds = AtomicUsize::new(0);
    let killer = async {
        let (mut pause, mut seen) = (1, 0);
        loop {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            // Short pauses hit every statement, long ones let the longest operations through, however slow the machine.
            let done = rounds.load(Ordering::Relaxed);
            (pause, seen) = (if done > seen { 1 } else { pause * 2 }, done);
            sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1")
                .bind(&scratch.schema)
                .execute(&mut connection)
                .await
                .unwrap();
        }
    };
    let lane = async || {
        while persistent.failures.load(Ordering::Relaxed) < 100 {
            persistent.run_group(worker.id, 10).await;
            persistent.call(|| store.heartbeat(worker.id)).await;
            persistent.call(|| store.maintain()).await;
            rounds.fetch_add(1, Ordering::Relaxed);
        }
    };
    let lanes = futures::future::join3(lane(), lane(), lane());
    // Dropped in the middle of a statement in the end, which costs the killer its connection and nothing else.
    tokio::select! {
        () = killer => unreachable!(),
        _ = lanes => {}
        () = tokio::time::sleep(Duration::from_secs(120)) => panic!("hardly any call failed"),
    }
    let mut connection = scratch.connect().await;
    scratch.run(&mut connection, "DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM {schema}.claims); END $$").await;
}

/// The driver's own `begin` gives its connection back within the transaction when whoever waits for it is dropped; a claim
/// on it was answered, and then rolled back.
#[tokio::test]
async fn a_begin_that_is_given_up_leaves_no_transaction_behind() {
    let scratch = Scratch::new();
    let one = StoreOptions { schema: scratch.schema.clone(), connections: 1, ..StoreOptions::default() };
    let url = with(&scratch.url, &format!("application_name={}", scratch.schema));
    let store = PostgresStore::open(&url, &one).unwrap();
    store.migrate().await.unwrap();
    let worker = worker();
    store.register(&worker).await.unwrap();
    let mut connection = scratch.connect().await;
    let has_begun = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = $1 AND state = 'idle in transaction')";
    let mut given_up = 0;
    while given_up < 8 {
        let job = jobs(1);
        store.insert(&job).await.unwrap();
        {
            let mut begun = std::pin::pin!(store.begin());
            // Until the server has begun: its answer is there, and nobody has read it, unless it was very quick.
            while futures::poll!(begun.as_mut()).is_pending() {
                let has_begun = sqlx::query_scalar(has_begun).bind(&scratch.schema);
                if has_begun.fetch_one(&mut connection).await.unwrap() {
                    given_up += 1;
                    break;
                }
            }
        }
        let id = job[0].id;
        assert_eq!(store.claim(worker.id, ClaimId::new(), &[id]).await.unwrap().len(), 1);
        let running =
            format!("SELECT FROM {{schema}}.jobs WHERE id = '{id}' AND state = {}", State::Running.code());
        scratch.run(&mut connection, &format!("DO $$ BEGIN ASSERT EXISTS ({running}); END $$")).await;
    }
}

#[tokio::test]
async fn a_call_that_waits_too_long_ends_and_may_be_repeated() {
    let scratch = Scratch::new();
    let store = open(&scratch.url, &scratch, Duration::from_secs(10));
    store.migrate().await.unwrap();
    let worker = worker();
    store.register(&worker).await.unwrap();
    let jobs = jobs(2);
    store.insert(&jobs).await.unwrap();
    let ids = [jobs[0].id, jobs[1].id];

    let hasty = open(&scratch.url, &scratch, Duration::from_secs(1));
    let persistent = Persistent { store: &hasty, failures: AtomicUsize::new(0) };
    let mut connection = scratch.connect().await;
    scratch
        .run(
            &mut connection,
            &format!("BEGIN; SELECT FROM {{schema}}.jobs WHERE id = '{}' FOR UPDATE", ids[1]),
        )
        .await;
    let claim = ClaimId::new();
    // More often than it has connections.
    for _ in 0..6 {
        let error = hasty.claim(worker.id, claim, &ids).await.unwrap_err();
        assert!(error.retryable(), "{error:?}");
        persistent.call(|| hasty.ping()).await;
    }
    connection.close().await.unwrap();
    // The claims given up are still under way in the server, and one of them may come first.
    let claimed = persistent.call(|| hasty.claim(worker.id, claim, &ids)).await;
    assert_eq!(claimed.iter().map(|job| (job.id, job.fence)).collect::<Vec<_>>(), [(ids[0], 1), (ids[1], 1)]);
}

#[tokio::test]
async fn a_commit_that_is_not_answered_ends() {
    let scratch = Scratch::new();
    let store = open(&scratch.url, &scratch, Duration::from_secs(5));
    let mut connection = scratch.connect().await;
    // Its commit has to wait for a lock.
    scratch
        .run(
            &mut connection,
            "CREATE SCHEMA {schema};
             CREATE TABLE {schema}.lock (); CREATE TABLE {schema}.effects (id int);
             CREATE FUNCTION {schema}.wait() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN LOCK TABLE {schema}.lock; RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON {schema}.effects DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION {schema}.wait();",
        )
        .await;
    scratch.run(&mut connection, "BEGIN; LOCK TABLE {schema}.lock").await;
    let mut transaction = store.begin().await.unwrap();
    scratch.run(&mut transaction, "INSERT INTO {schema}.effects VALUES (1)").await;
    let error = transaction.commit().await.unwrap_err();
    assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    scratch.run(&mut connection, "COMMIT").await;
}

#[tokio::test]
async fn a_rescue_caught_in_a_circle_of_locks_tries_again() {
    let scratch = Scratch::new();
    let store = open(&scratch.url, &scratch, Duration::from_secs(30));
    store.migrate().await.unwrap();
    let worker = NewWorker { lease: Duration::ZERO, ..worker() };
    store.register(&worker).await.unwrap();
    let jobs = jobs(3);
    store.insert(&jobs).await.unwrap();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    assert_eq!(store.claim(worker.id, ClaimId::new(), &ids).await.unwrap().len(), 3);

    // Whichever way the rescue goes, it has one when it waits for the one in the middle.
    let mut connection = scratch.connect().await;
    let lock = |which| format!("SELECT FROM {{schema}}.jobs WHERE id {which} '{}' FOR UPDATE", ids[1]);
    scratch.run(&mut connection, &format!("SET deadlock_timeout = '10s'; BEGIN; {}", lock("="))).await;
    let circle = async {
        scratch.run(&mut connection, &until_one_waits(&scratch)).await;
        scratch.run(&mut connection, &format!("{}; COMMIT", lock("<>"))).await;
    };
    let (rescued, ()) = futures::join!(store.rescue(u32::MAX), circle);
    assert_eq!(rescued.unwrap().requeued, 3);
}

#[tokio::test]
async fn a_process_that_stands_still_in_a_transaction_does_not_hold_up_the_others() {
    let scratch = Scratch::new();
    let store = open(&scratch.url, &scratch, Duration::from_secs(5));
    store.migrate().await.unwrap();
    let other = open(&scratch.url, &scratch, Duration::from_secs(60));
    let mut connection = scratch.connect().await;
    let note = "INSERT INTO {schema}.followups (job_id) VALUES (gen_random_uuid())";
    scratch.run(&mut connection, note).await;

    // It may read the notes, and has to wait before it deletes them.
    scratch.run(&mut connection, "BEGIN; LOCK TABLE {schema}.followups IN SHARE MODE").await;
    let (mut still, waits) = (std::pin::pin!(store.follow_up(10)), until_one_waits(&scratch));
    tokio::select! {
        done = &mut still => panic!("{done:?}"),
        () = scratch.run(&mut connection, &waits) => {}
    }
    // From here on it is not polled, like a process that was stopped, or whose machine is gone.
    scratch.run(&mut connection, "COMMIT").await;
    assert_eq!(other.follow_up(10).await.unwrap(), 1);
    let error = still.await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
}

#[tokio::test]
async fn no_server_is_an_outage_and_a_short_one() {
    let scratch = Scratch::new();
    let store = open("postgres://windlass:s3cret@127.0.0.1:1/windlass", &scratch, Duration::from_secs(1));
    let begun = Instant::now();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!format!("{error} {error:?} {store:?}").contains("s3cret"));
}

// ---- settings ----

#[tokio::test]
async fn what_an_operator_must_mend_is_said_with_setting_and_remedy() {
    for variable in ["WINDLASS_TEST_POSTGRES_URL", "WINDLASS_TEST_PGBOUNCER_URL"] {
        let scratch = Scratch::on(variable);
        let good: PgConnectOptions = scratch.url.parse().unwrap();
        for wrong in [good.clone().password("s3cret"), good.clone().username("nobody").password("s3cret")] {
            let url = with(wrong.to_url_lossy().as_str(), "statement-cache-capacity=0");
            let store = open(&url, &scratch, Duration::from_secs(10));
            for result in [store.ping().await, store.migrate().await] {
                expect_config(&result.unwrap_err(), "store_url", variable);
            }
            assert!(!format!("{store:?}").contains("s3cret"));
        }
    }
    let scratch = Scratch::new();
    let good: PgConnectOptions = scratch.url.parse().unwrap();
    let store =
        open(good.database("no_such_database").to_url_lossy().as_str(), &scratch, Duration::from_secs(10));
    expect_config(&store.ping().await.unwrap_err(), "database", "no database");
}

#[tokio::test]
async fn missing_rights_are_named() {
    let scratch = Scratch::new();
    open(&scratch.url, &scratch, Duration::from_secs(10)).migrate().await.unwrap();
    let mut connection = scratch.connect().await;
    scratch.run(&mut connection, "CREATE ROLE {schema} LOGIN PASSWORD 's3cret'").await;
    let role: PgConnectOptions = scratch.url.parse().unwrap();
    let url = role.username(&scratch.schema).password("s3cret").to_url_lossy();
    let result = open(url.as_str(), &scratch, Duration::from_secs(10)).ping().await;
    scratch.run(&mut connection, "DROP ROLE {schema}").await;
    expect_config(&result.unwrap_err(), "permission denied", "no rights");
}

fn expect_config(error: &StoreError, part: &str, case: &str) {
    assert!(matches!(error, StoreError::Config { .. }), "{case}: {error:?}");
    assert!(error.to_string().contains(part), "{case}: {error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"), "{case}: {error}");
}

// ---- poolers ----

#[tokio::test]
async fn a_pooler_that_hands_on_no_settings_is_no_obstacle() {
    let scratch = Scratch::on("WINDLASS_TEST_PGBOUNCER_URL");
    let options: PgConnectOptions = scratch.url.parse().unwrap();
    let refused = options.options([("plan_cache_mode", "force_generic_plan")]).connect().await.unwrap_err();
    assert!(refused.to_string().contains("startup parameter"), "{refused}");
    let answer = open(&scratch.url, &scratch, Duration::from_secs(10)).ping().await.unwrap_err();
    expect_config(&answer, "does not fit this release", "the server was asked, and has no such schema");
}

/// The server connections of the pool go from one client to another with every statement: had one of them kept
/// anything, it would be found by the wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_mixes_nothing_up() {
    let scratch = Scratch::on("WINDLASS_TEST_PGBOUNCER_URL");
    let url = with(&scratch.url, "statement-cache-capacity=0");
    let lane = async || {
        // More clients than the pooler has connections.
        let store = open(&url, &scratch, Duration::from_secs(30));
        store.migrate().await.unwrap();
        let worker = worker();
        store.register(&worker).await.unwrap();
        let persistent = Persistent { store: &store, failures: AtomicUsize::new(0) };
        let group = || persistent.run_group(worker.id, 5);
        for _ in 0..5 {
            futures::join!(group(), group(), group(), group());
            store.heartbeat(worker.id).await.unwrap();
            store.outbox_take(10).await.unwrap();
        }
        let mut transaction = store.begin().await.unwrap();
        store.insert_in(&mut transaction, &jobs(1)).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(persistent.failures.load(Ordering::Relaxed), 0);
    };
    futures::future::join_all((0..12).map(|_| lane())).await;
}
