//! `ctx.transaction()`: the handler's writes and the job's success are one (P5).

use std::{sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, PgPool};
use windlass_brokers::Memory;
use windlass_client::{Client, ClientOptions};
use windlass_core::{JobId, JobRecord, State, Store, WorkerId};
use windlass_store::{PostgresStore, StoreOptions};
use windlass_worker::{Batch, BatchOptions, Context, JobError, JobTransaction, Worker};

use crate::{
    envelope::{Brief, brief},
    logs::Logs,
    outage::{FaultyStore, faulty},
    support::{Bench, Task, options, run, until},
};

/// A schema of its own in the test server, with a table for the handlers.
pub struct Database {
    schema: String,
    pub pool: PgPool,
    pub store: Arc<FaultyStore>,
    pub client: Client,
}

impl Database {
    pub async fn new() -> Self {
        let url = std::env::var("WINDLASS_TEST_POSTGRES_URL")
            .expect("WINDLASS_TEST_POSTGRES_URL is not set; run scripts/test, which starts the servers");
        let schema = format!("worker_{}", WorkerId::new().as_uuid().simple());
        let options = StoreOptions { schema: schema.clone(), connections: 4, ..StoreOptions::default() };
        let store = PostgresStore::open(&url, &options).unwrap();
        store.migrate().await.unwrap();
        let pool = PgPool::connect(&url).await.unwrap();
        let options = ClientOptions { relay_interval: Duration::from_millis(50), ..ClientOptions::default() };
        let store = faulty(Arc::new(store));
        let client = Client::new(store.clone(), Arc::new(Memory::new()), options);
        let database = Self { schema, pool, store, client };
        database.execute("CREATE TABLE {schema}.effects (job_id uuid NOT NULL)").await;
        database
    }

    fn sql(&self, statement: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(statement.replace("{schema}", &self.schema))
    }

    async fn execute(&self, statement: &str) {
        sqlx::query(self.sql(statement)).execute(&self.pool).await.unwrap();
    }

    async fn effects(&self) -> i64 {
        sqlx::query_scalar(self.sql("SELECT count(*) FROM {schema}.effects"))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// The handler's write.
    fn effect(&self) -> Effect {
        Effect(format!("INSERT INTO {}.effects VALUES ($1)", self.schema))
    }

    fn worker(&self) -> Worker {
        Worker::new(self.client.clone(), options())
    }

    async fn enqueue(&self, attempts: u32) -> JobId {
        self.client.enqueue(Task { number: 1 }).max_attempts(attempts).await.unwrap()
    }

    async fn reaches(&self, id: JobId, state: State) -> JobRecord {
        let mut last = None;
        until(&format!("the job is {state}"), async || {
            last = self.client.get(id).await.unwrap();
            last.as_ref().is_some_and(|job| job.state == state)
        })
        .await;
        last.unwrap()
    }

    pub async fn clean_up(self) {
        self.client.close().await;
        self.execute("DROP SCHEMA {schema} CASCADE").await;
    }
}

#[derive(Clone)]
struct Effect(String);

impl Effect {
    async fn write(&self, tx: &mut JobTransaction, ctx: &Context) -> Result<(), JobError> {
        let query = sqlx::query(AssertSqlSafe(self.0.clone())).bind(ctx.job_id().as_uuid());
        query.execute(&mut ***tx).await?;
        Ok(())
    }
}

/// Whether the worker records the outcome or the handler does.
#[tokio::test]
async fn a_kinds_results_are_kept_as_long_as_it_says() {
    let database = Database::new().await;
    let completes = |_: Brief, ctx: Context| async move { ctx.transaction().await?.complete(1).await };
    for worker in [database.worker().handle(brief), database.worker().handle(completes)] {
        let running = run(worker.handle(|_: Task| async { Ok::<u32, JobError>(2) }));
        let gone = database.client.enqueue(Brief {}).await.unwrap();
        let kept = database.enqueue(1).await;
        // A poll may have begun before it was recorded, and see it all the same.
        until("the result is gone", async || database.reaches(gone, State::Succeeded).await.result.is_none())
            .await;
        assert!(database.reaches(kept, State::Succeeded).await.result.is_some());
        let stored = "SELECT result FROM {schema}.jobs WHERE id = $1";
        let stored: Option<String> = sqlx::query_scalar(database.sql(stored))
            .bind(gone.as_uuid())
            .fetch_one(&database.pool)
            .await
            .unwrap();
        // There was one, unless the worker has already swept it away.
        assert!(stored.as_deref().is_none_or(|result| result == "1"), "{stored:?}");
        running.stop().await;
    }
    database.clean_up().await;
}

#[tokio::test]
async fn the_writes_and_the_success_are_one() {
    let database = Database::new().await;
    let effect = database.effect();
    let running = run(database.worker().handle(move |_: Task, ctx: Context| {
        let effect = effect.clone();
        async move {
            let mut tx = ctx.transaction().await?;
            effect.write(&mut tx, &ctx).await?;
            if ctx.attempt() == 1 {
                return Err(JobError::retry("after the write"));
            }
            tx.complete("both").await
        }
    }));
    let id = database.enqueue(2).await;
    let record = database.reaches(id, State::Succeeded).await;
    assert_eq!((record.attempt, record.result.unwrap().get(), record.errors.len()), (2, "\"both\"", 1));
    assert_eq!(database.effects().await, 1);
    running.stop().await;
    assert!(database.store.rescue(3).await.unwrap().workers.is_empty());
    database.clean_up().await;
}

/// One job of a batch commits its writes with its success, whatever the handler says of it later.
#[tokio::test]
async fn a_job_of_a_batch_has_its_own_transaction() {
    let database = Database::new().await;
    let effect = database.effect();
    let handler = move |batch: Batch<Task>| {
        let effect = effect.clone();
        async move {
            for job in &batch {
                let mut tx = job.context().transaction().await?;
                effect.write(&mut tx, job.context()).await?;
                if job.context().max_attempts() == 2 {
                    tx.complete("both").await?;
                }
            }
            Err::<(), _>(JobError::discard("of those that are left"))
        }
    };
    let options = BatchOptions { max_size: 2, max_wait: Duration::from_secs(3600) };
    let running = run(database.worker().handle_batch(handler, options));
    let (committed, left) = (database.enqueue(2).await, database.enqueue(1).await);
    let record = database.reaches(committed, State::Succeeded).await;
    assert_eq!((record.result.unwrap().get(), record.errors.len()), ("\"both\"", 0));
    assert_eq!(database.reaches(left, State::Dead).await.errors[0].message, "of those that are left");
    assert_eq!(database.effects().await, 1);
    running.stop().await;
    assert!(database.store.rescue(3).await.unwrap().workers.is_empty());
    database.clean_up().await;
}

#[tokio::test]
async fn a_transaction_that_is_not_completed_is_a_failure() {
    let database = Database::new().await;
    let effect = database.effect();
    let running = run(database.worker().handle(move |_: Task, ctx: Context| {
        let effect = effect.clone();
        async move {
            let mut tx = ctx.transaction().await?;
            effect.write(&mut tx, &ctx).await?;
            Ok::<_, JobError>("forgotten")
        }
    }));
    let id = database.enqueue(1).await;
    let record = database.reaches(id, State::Dead).await;
    assert!(record.errors[0].message.contains("tx.complete"), "{record:?}");
    assert_eq!(database.effects().await, 0);
    running.stop().await;
    database.clean_up().await;
}

/// After its commit, whatever the handler does or fails to do changes nothing.
#[tokio::test]
async fn a_committed_success_stands() {
    let logs = Logs::collect();
    let database = Database::new().await;
    let effect = database.effect();
    let running = run(database.worker().handle(move |_: Task, ctx: Context| {
        let effect = effect.clone();
        async move {
            let mut tx = ctx.transaction().await?;
            effect.write(&mut tx, &ctx).await?;
            tx.complete("first").await?;
            let mut again = ctx.transaction().await?;
            effect.write(&mut again, &ctx).await?;
            again.complete("second").await
        }
    }));
    let id = database.enqueue(3).await;
    let record = database.reaches(id, State::Succeeded).await;
    running.stop().await;
    assert_eq!((record.result.unwrap().get(), database.effects().await), ("\"first\"", 1));
    let record = database.client.get(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempt, record.errors.len()), (State::Succeeded, 1, 0));
    assert_eq!(logs.lines_with("refused"), [""; 0]);
    assert!(database.store.rescue(3).await.unwrap().workers.is_empty());
    database.clean_up().await;
}

/// The lease went to another worker between the handler's write and its commit.
#[tokio::test]
async fn a_lost_lease_rolls_the_writes_back() {
    let database = Database::new().await;
    let (effect, store) = (database.effect(), database.store.clone());
    let running = run(database.worker().handle(move |_: Task, ctx: Context| {
        let (effect, store) = (effect.clone(), store.clone());
        async move {
            let mut tx = ctx.transaction().await?;
            effect.write(&mut tx, &ctx).await?;
            if ctx.attempt() == 1 {
                // Again where the worker itself rescues at this moment, or has come back between the two.
                loop {
                    store.deregister(store.worker()).await?;
                    store.rescue(3).await?;
                    let record = store.get(&[ctx.job_id()]).await?.remove(0);
                    if record.state != State::Running || record.attempt > 1 {
                        break;
                    }
                }
            }
            tx.complete(ctx.attempt()).await
        }
    }));
    let id = database.enqueue(5).await;
    let record = database.reaches(id, State::Succeeded).await;
    // On a machine that stands still for seconds, later attempts lose their leases as well.
    assert!(record.attempt >= 2);
    let result = record.attempt.to_string();
    assert_eq!((record.result.unwrap().get(), database.effects().await), (result.as_str(), 1));
    running.stop().await;
    database.clean_up().await;
}

#[tokio::test]
async fn another_store_says_what_it_lacks() {
    let bench = Bench::new().await;
    let running =
        run(bench.worker().handle(async |_: Task, ctx: Context| ctx.transaction().await?.complete(1).await));
    let id = bench.client.enqueue(Task { number: 1 }).max_attempts(1).await.unwrap();
    let record = bench.reaches(id, State::Dead).await;
    let message = &record.errors[0].message;
    assert!(message.contains("ctx.transaction()") && message.contains("Postgres"), "{message}");
    running.stop().await;
}
