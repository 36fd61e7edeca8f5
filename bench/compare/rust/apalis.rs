//! apalis on Postgres.

mod protocol;

use std::{io, sync::Arc, time::Duration};

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage};
use futures::stream;
use protocol::{Error, Payload, Peer, Running, Tally, variable};
use tokio::{sync::oneshot, task::JoinHandle};

/// Jobs fetched at a time, and run at a time.
const BATCH: usize = 1000;
/// How often it looks for jobs besides hearing of them. What comes while it fetches it does not hear of; and if a fetch takes
/// longer than this, it sleeps until its next heartbeat (its `PollWith` drops wake-ups), hence heartbeats as in its example.
const POLL: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_secs(1);

struct Apalis {
    pool: PgPool,
}

impl Apalis {
    fn storage(&self) -> PostgresStorage<Payload> {
        // As its example has it, with larger batches: no separate write that marks each job as running.
        let config = Config::default().queue("compare").batch_size(BATCH).lock_tasks(false);
        PostgresStorage::new(&self.pool).with_config(config.heartbeat_interval(HEARTBEAT))
    }
}

async fn run(payload: Payload, tally: Data<Arc<Tally>>) -> Result<(), BoxDynError> {
    tally.record(&payload);
    Ok(())
}

impl Peer for Apalis {
    async fn prepare(&self) -> Result<(), Error> {
        Ok(PostgresStorage::setup(&self.pool).await?)
    }

    async fn enqueue(&self, payloads: Vec<Payload>) -> Result<(), Error> {
        let tasks = payloads.into_iter().map(|payload| TaskBuilder::new(payload).build());
        Ok(self.storage().push_all(&mut stream::iter(tasks)).await?)
    }

    async fn enqueued(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn work(&self, tally: Arc<Tally>) -> Result<impl Running, Error> {
        let worker = WorkerBuilder::new("compare")
            .backend(self.storage().with_pubsub().poll_with_strategy(Strategy::new().interval(POLL)))
            .concurrency(BATCH)
            .parallelize(tokio::spawn)
            .data(tally)
            .build(run);
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(worker.run_until(async { stopped.await.map_err(io::Error::other) }));
        Ok(Working { pool: self.pool.clone(), stop, running })
    }

    async fn drop_queues(&self) -> Result<(), Error> {
        Ok(())
    }
}

struct Working {
    pool: PgPool,
    stop: oneshot::Sender<()>,
    running: JoinHandle<Result<(), WorkerError>>,
}

impl Running for Working {
    async fn unfinished(&self) -> Result<bool, Error> {
        let statement = "SELECT EXISTS (SELECT FROM apalis.jobs WHERE status <> 'Done')";
        Ok(sqlx::query_scalar(statement).fetch_one(&self.pool).await?)
    }

    async fn kept(&self) -> Result<i64, Error> {
        let statement = "SELECT count(*) FROM apalis.jobs WHERE status = 'Done'";
        Ok(sqlx::query_scalar(statement).fetch_one(&self.pool).await?)
    }

    async fn stop(self) -> Result<(), Error> {
        let _ = self.stop.send(());
        Ok(self.running.await??)
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let pool = PgPool::connect(&variable("DATABASE_URL")?).await?;
    protocol::main(Apalis { pool }).await
}
