//! What only Postgres has: schemas and migrations, partitions, updates within the page, and the user's own
//! transactions.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/postgres.rs"]
mod scratch;

use std::time::Duration;

use scratch::Scratch;
use serde_json::value::RawValue;
use sqlx::{Connection, Row, postgres::PgConnection};
use uuid::Uuid;
use windlass_core::{
    ClaimId, ClaimedJob, Finish, JobId, NewJob, NewWorker, Outcome, State, Store, StoreError, WorkerId,
};
use windlass_store::{PostgresStore, StoreOptions};

fn open(scratch: &Scratch) -> PostgresStore {
    let options = StoreOptions { schema: scratch.schema.clone(), connections: 2, ..StoreOptions::default() };
    PostgresStore::open(&scratch.url, &options).unwrap()
}

async fn migrated(scratch: &Scratch) -> PostgresStore {
    let store = open(scratch);
    store.migrate().await.unwrap();
    store
}

fn jobs(n: usize) -> Vec<NewJob> {
    let payload = || RawValue::from_string(format!("{{\"n\":\"{}\"}}", "x".repeat(200))).unwrap();
    (0..n).map(|_| NewJob::new("test.kind".parse().unwrap(), payload())).collect()
}

async fn register(store: &PostgresStore) -> WorkerId {
    let id = WorkerId::new();
    let lease = Duration::from_secs(3600);
    store.register(&NewWorker { id, label: "test".into(), lease, kinds: Vec::new() }).await.unwrap();
    id
}

fn succeed(claimed: &[ClaimedJob]) -> Vec<Finish> {
    let outcome = || Outcome::Succeeded { result: None, keep: None };
    claimed.iter().map(|job| Finish { id: job.id, fence: job.fence, outcome: outcome() }).collect()
}

/// One value, asked past the store.
async fn value<T>(scratch: &Scratch, connection: &mut PgConnection, query: &str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let query = sqlx::AssertSqlSafe(query.replace("{schema}", &scratch.schema));
    sqlx::query(query).fetch_one(connection).await.unwrap().get(0)
}

// ---- editions ----

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_another_system_and_what_is_put_back_another_edition() {
    let (scratch, copied) = (Scratch::new(), Scratch::new());
    let (store, copy) = (migrated(&scratch).await, migrated(&copied).await);
    let mut connection = scratch.connect().await;
    let was = store.operations().edition().await.unwrap().unwrap();
    let all = format!(
        "TRUNCATE {{schema}}.revision; INSERT INTO {{schema}}.revision SELECT * FROM {}.revision",
        scratch.schema
    );
    copied.run(&mut connection, &all).await;
    assert_eq!(copy.operations().revision().await.unwrap(), was.revision);
    assert_ne!(copy.operations().system().await.unwrap(), was.system);
    // The same tables with the same rows, written once more.
    let again = "CREATE TEMP TABLE kept AS TABLE {schema}.revision; DELETE FROM {schema}.revision; \
                 INSERT INTO {schema}.revision SELECT * FROM kept";
    scratch.run(&mut connection, again).await;
    let is = store.operations().edition().await.unwrap().unwrap();
    assert_eq!((is.revision, &is.system), (was.revision, &was.system));
    assert_ne!(is.history, was.history);
}

// ---- schema ----

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_migrate_an_empty_database_at_once() {
    let scratch = Scratch::new();
    let stores: Vec<_> = (0..8).map(|_| open(&scratch)).collect();
    for migrated in futures::future::join_all(stores.iter().map(|store| store.migrate())).await {
        migrated.unwrap();
    }
    stores[0].ping().await.unwrap();
    let mut connection = scratch.connect().await;
    let twice = "SELECT count(*) - max(version) FROM {schema}.schema_migrations";
    assert_eq!(value::<i64>(&scratch, &mut connection, twice).await, 0);
}

#[tokio::test]
async fn ping_says_when_the_schema_does_not_fit() {
    let scratch = Scratch::new();
    let store = open(&scratch);
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("`windlass migrate`"), "{error}");

    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    let mut connection = scratch.connect().await;
    scratch.run(&mut connection, "INSERT INTO {schema}.schema_migrations (version) VALUES (1000)").await;
    let error = store.ping().await.unwrap_err();
    assert!(error.to_string().contains("version 1000"), "{error}");
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_schema_name_that_is_no_identifier_is_refused() {
    for schema in ["", "Windlass", "a-b", "1a", "a;b", "a\"b", &"a".repeat(49)] {
        let options = StoreOptions { schema: schema.into(), ..StoreOptions::default() };
        let error = PostgresStore::open("postgres://localhost/x", &options).unwrap_err();
        assert!(error.to_string().contains("store_schema"), "{schema}: {error}");
    }
}

// ---- partitions ----

#[tokio::test]
async fn partitions_are_made_ahead_and_rows_find_theirs() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let mut connection = scratch.connect().await;
    let ahead = "SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.jobs'::regclass";
    assert_eq!(
        value::<i64>(&scratch, &mut connection, ahead).await,
        6,
        "yesterday to +3 days, and the default"
    );

    let day: f64 = 86_400.0;
    let now: f64 = value(&scratch, &mut connection, "SELECT extract(epoch FROM now())::float8").await;
    let midnight = (now / day).floor() * day;
    for (at, days) in [(midnight, 0), (midnight - 0.001, -1), (midnight + 3.5 * day, 3)] {
        let home = partition_of(&scratch, &store, &mut connection, at).await;
        let name: String = value(
            &scratch,
            &mut connection,
            &format!("SELECT to_char((now() AT TIME ZONE 'UTC')::date + {days}, '\"jobs_\"YYYYMMDD')"),
        )
        .await;
        assert_eq!(home, format!("{}.{name}", scratch.schema));
    }
    for at in [0.0, midnight + 300.0 * day] {
        let home = partition_of(&scratch, &store, &mut connection, at).await;
        assert_eq!(home, format!("{}.jobs_default", scratch.schema));
    }
}

/// Where the store puts a job whose id is of this instant.
async fn partition_of(
    scratch: &Scratch,
    store: &PostgresStore,
    connection: &mut PgConnection,
    at: f64,
) -> String {
    let mut job = jobs(1).remove(0);
    job.id = id_of(at);
    store.insert(&[job.clone()]).await.unwrap();
    assert_eq!(store.get(&[job.id]).await.unwrap().len(), 1);
    value(
        scratch,
        connection,
        &format!("SELECT tableoid::regclass::text FROM {{schema}}.jobs WHERE id = '{}'", job.id),
    )
    .await
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an instant after 1970")]
fn id_of(at: f64) -> JobId {
    let millis = (at * 1000.0).round() as u128;
    let random = JobId::new().as_uuid().as_u128() & ((1 << 80) - 1);
    JobId::from(Uuid::from_u128(millis << 80 | random))
}

#[tokio::test]
async fn maintenance_makes_what_is_missing_and_leaves_what_is_not() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let mut connection = scratch.connect().await;
    let names = "SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_class c JOIN pg_inherits ON inhrelid = c.oid
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '{schema}' AND c.relkind = 'r'";
    let all: Vec<String> = value(&scratch, &mut connection, names).await;
    for table in all.iter().filter(|name| !name.ends_with("default")) {
        scratch.run(&mut connection, &format!("DROP TABLE {{schema}}.{table}")).await;
    }
    // A job of today lands in the default partition, which then keeps the day.
    let kept = jobs(1);
    store.insert(&kept).await.unwrap();
    store.maintain().await.unwrap();
    store.maintain().await.unwrap();
    let again: Vec<String> = value(&scratch, &mut connection, names).await;
    let tables = all.iter().filter(|name| name.ends_with("default")).count();
    assert_eq!(again.len(), all.len() - tables, "{again:?}");
    assert_eq!(store.get(&[kept[0].id]).await.unwrap().len(), 1);

    // And so it would, once the day is free.
    scratch.run(&mut connection, "DELETE FROM {schema}.jobs").await;
    store.maintain().await.unwrap();
    let again: Vec<String> = value(&scratch, &mut connection, names).await;
    assert_eq!(again, all);
}

/// Partitions come while jobs are claimed and finished: neither waits long for the other, nor fails.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_under_traffic() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let worker = register(&store).await;
    let mut connection = scratch.connect().await;
    let traffic = async {
        for _ in 0..100 {
            run_group(&store, worker, 20).await;
        }
    };
    let partitions = async {
        for _ in 0..10 {
            let last: String = value(
                &scratch,
                &mut connection,
                "SELECT to_char((now() AT TIME ZONE 'UTC')::date + 3, 'YYYYMMDD')",
            )
            .await;
            scratch.run(&mut connection, &format!("DROP TABLE {{schema}}.jobs_{last}")).await;
            store.maintain().await.unwrap();
            let there = format!("SELECT to_regclass('{{schema}}.jobs_{last}') IS NOT NULL");
            assert!(value::<bool>(&scratch, &mut connection, &there).await);
        }
    };
    futures::join!(traffic, partitions);
}

/// One group from enqueue to success.
async fn run_group(store: &PostgresStore, worker: WorkerId, n: usize) {
    let jobs = jobs(n);
    store.insert(&jobs).await.unwrap();
    let claim = ClaimId::new();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let claimed = store.claim(worker, claim, &ids).await.unwrap();
    assert_eq!(claimed.len(), n);
    assert_eq!(store.finish(worker, &succeed(&claimed), &[claim]).await.unwrap().len(), n);
}

// ---- cost ----

/// No index mentions what they write. With room for three versions of each row none need move: with the usual room for
/// two it depends on whether some transaction, anywhere on the server, still keeps the first from being cleared away.
#[tokio::test]
async fn claims_and_finishes_stay_within_the_page() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let worker = register(&store).await;
    let mut connection = scratch.connect().await;
    let partitions: Vec<String> = value(
        &scratch,
        &mut connection,
        "SELECT array_agg(c.oid::regclass::text) FROM pg_class c JOIN pg_inherits ON inhrelid = c.oid
         WHERE inhparent = '{schema}.jobs'::regclass AND 'fillfactor=50' = ANY(c.reloptions)",
    )
    .await;
    assert_eq!(partitions.len(), 6);
    for partition in partitions {
        scratch.run(&mut connection, &format!("ALTER TABLE {partition} SET (fillfactor = 30)")).await;
    }
    for _ in 0..20 {
        run_group(&store, worker, 100).await;
    }
    // Its connections report what they did when they end.
    drop(store);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let updates = |column: &str| {
        format!(
            "SELECT sum({column})::int8 FROM pg_stat_user_tables
             WHERE schemaname = '{{schema}}' AND relname LIKE 'jobs\\_%'"
        )
    };
    while value::<i64>(&scratch, &mut connection, &updates("n_tup_upd")).await < 4000 {
        assert!(tokio::time::Instant::now() < deadline, "the statistics never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(value::<i64>(&scratch, &mut connection, &updates("n_tup_hot_upd")).await, 4000);
}

// ---- the user's transactions (P5) ----

#[tokio::test]
async fn jobs_inserted_in_a_transaction_become_real_with_it() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let mut connection = scratch.connect().await;
    let (dropped, kept) = (jobs(1), jobs(2));

    let mut transaction = connection.begin().await.unwrap();
    store.insert_in(&mut transaction, &dropped).await.unwrap();
    transaction.rollback().await.unwrap();
    assert!(store.outbox_take(10).await.unwrap().is_empty());

    let mut transaction = connection.begin().await.unwrap();
    let inserted = store.insert_in(&mut transaction, &kept).await.unwrap();
    assert!(store.get(&[kept[0].id]).await.unwrap().is_empty());
    transaction.commit().await.unwrap();
    let groups = store.outbox_take(10).await.unwrap();
    assert_eq!(groups.len(), 1, "due at once");
    assert_eq!(Some(groups[0].id), inserted.outbox);
    assert_eq!(groups[0].messages.len(), 2);
    assert!(store.get(&[dropped[0].id]).await.unwrap().is_empty());
}

// The connection of a transaction dropped at the end is closed while the schema is dropped.
#[tokio::test(flavor = "multi_thread")]
async fn success_and_the_handlers_writes_are_one() {
    let scratch = Scratch::new();
    let store = migrated(&scratch).await;
    let worker = register(&store).await;
    let mut connection = scratch.connect().await;
    scratch.run(&mut connection, "CREATE TABLE {schema}.effects (n integer)").await;
    let write = format!("INSERT INTO {}.effects VALUES (1)", scratch.schema);
    let jobs = jobs(1);
    store.insert(&jobs).await.unwrap();
    let claim = ClaimId::new();
    let claimed = store.claim(worker, claim, &[jobs[0].id]).await.unwrap();
    let finish = succeed(&claimed).remove(0);

    for (commit, state, effects) in [(false, State::Running, 0), (true, State::Succeeded, 1)] {
        let mut transaction = store.begin().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(write.clone())).execute(&mut **transaction).await.unwrap();
        assert!(store.finish_in(&mut transaction, worker, &finish).await.unwrap());
        if commit {
            transaction.commit().await.unwrap();
        } else {
            drop(transaction);
        }
        assert_eq!(store.get(&[jobs[0].id]).await.unwrap()[0].state, state);
        let count = "SELECT count(*) FROM {schema}.effects";
        assert_eq!(value::<i64>(&scratch, &mut connection, count).await, effects);
    }
    let mut transaction = store.begin().await.unwrap();
    assert!(!store.finish_in(&mut transaction, worker, &finish).await.unwrap(), "it is over already");
}
