//! Windlass on Postgres, and on the broker that is given, if any.

mod protocol;

use std::{env, sync::Arc};

use protocol::{Error, Payload, Peer, Running, Tally, variable};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windlass::{Client, JobState, Settings, WorkerError, driver::Lane, prelude::*};

impl Job for Payload {
    const KIND: &'static str = "compare";
}

struct Windlass {
    client: Client,
    settings: Settings,
}

async fn run(payload: Payload, tally: State<Arc<Tally>>) -> Result<(), JobError> {
    tally.record(&payload);
    Ok(())
}

impl Peer for Windlass {
    async fn prepare(&self) -> Result<(), Error> {
        Ok(self.client.store().migrate().await?)
    }

    async fn enqueue(&self, payloads: Vec<Payload>) -> Result<(), Error> {
        for answer in self.client.enqueue_all(payloads.into_iter().map(|one| self.client.enqueue(one))).await
        {
            answer?;
        }
        Ok(())
    }

    async fn enqueued(&self) -> Result<(), Error> {
        self.client.close().await;
        Ok(())
    }

    async fn work(&self, tally: Arc<Tally>) -> Result<impl Running, Error> {
        let worker = Worker::new(self.client.clone(), (&self.settings).into()).state(tally).handle(run);
        let stop = CancellationToken::new();
        Ok(Working {
            client: self.client.clone(),
            pool: PgPool::connect(self.settings.store_url.expose()).await?,
            schema: self.settings.store_schema.clone(),
            running: tokio::spawn(worker.run_until(stop.clone())),
            stop,
        })
    }

    async fn drop_queues(&self) -> Result<(), Error> {
        let lanes: Vec<_> = Lane::of(&Payload::QUEUE.parse()?).collect();
        Ok(self.client.broker().delete(&lanes).await?)
    }
}

struct Working {
    client: Client,
    pool: PgPool,
    schema: String,
    running: JoinHandle<Result<(), WorkerError>>,
    stop: CancellationToken,
}

impl Working {
    async fn ask<T>(&self, statement: String) -> Result<T, Error>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&self.pool).await?)
    }
}

impl Running for Working {
    /// A group of claims is gone once all of its outcomes are recorded, and all jobs have been claimed when this is asked.
    async fn unfinished(&self) -> Result<bool, Error> {
        self.ask(format!("SELECT EXISTS (SELECT FROM {}.claims)", self.schema)).await
    }

    async fn kept(&self) -> Result<i64, Error> {
        let succeeded = JobState::Succeeded.code();
        self.ask(format!("SELECT count(*) FROM {}.jobs WHERE state = {succeeded}", self.schema)).await
    }

    async fn stop(self) -> Result<(), Error> {
        self.stop.cancel();
        self.running.await??;
        self.client.close().await;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let broker = ["AMQP_URL", "REDIS_URL"].into_iter().find_map(|name| env::var(name).ok());
    let mut settings = Settings {
        store_url: variable("DATABASE_URL")?.into(),
        // As many as `windlass bench` runs at a time.
        worker_concurrency: 1000,
        ..Settings::default()
    };
    if let Some(broker) = broker {
        settings.broker_url = broker.into();
    }
    let client = Client::connect(&settings).await?;
    protocol::main(Windlass { client, settings }).await
}
