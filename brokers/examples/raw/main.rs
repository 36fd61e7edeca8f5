//! What the driver costs: messages per second published with confirms and consumed with acknowledgements at the same
//! time, through the driver and through the bare client library, in turns, on the same server. Both are warm when the
//! clock starts: connected, members of their groups, and a batch has gone through.
//!
//! ```sh
//! WINDLASS_BROKER_URL=amqp://… cargo run --release -p windlass-brokers --features rabbitmq --example raw -- 50000
//! ```

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "pubsub")]
mod pubsub;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqs")]
mod sqs;

use std::error::Error;
use std::time::Instant;

use futures::future::try_join;
use futures::{StreamExt as _, TryStreamExt as _};
use windlass_core::{JobId, Lane, Message, Priorities, Priority};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Messages unconfirmed at once, and unacknowledged at once, on both sides.
const WINDOW: usize = 2_000;
/// Messages to a batch, and to an acknowledgement.
const BATCH: usize = 500;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let count: usize = std::env::args().nth(1).map_or(Ok(50_000), |text| text.parse())?;
    let url = std::env::var("WINDLASS_BROKER_URL")?;
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let lane = Lane { queue: format!("raw-{}", JobId::new()).parse()?, priority: Priority::Normal };
        let message = |_| Message {
            job_id: JobId::new(),
            attempt: 1,
            lane: lane.clone(),
            kind: "email.send".parse().unwrap_or_else(|_| unreachable!("a valid name")),
            trace: None,
            ordering_key: None,
        };
        let messages: Vec<Message> = (0..BATCH + count).map(message).collect();
        let payloads: Vec<Vec<u8>> = messages.iter().map(Message::encode).collect();
        let bare = bare(&url, &lane, &payloads).await?;
        let driver = driver(&url, &messages).await?;
        ratios.push(driver / bare);
        println!("round {round}: bare {bare:.0}/s, driver {driver:.0}/s, ratio {:.2}", driver / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ROUNDS / 2]);
    Ok(())
}

/// Messages per second that `pass` moves, after a first batch that does not count.
async fn rate<T>(all: &[T], mut pass: impl AsyncFnMut(&[T]) -> Result<()>) -> Result<f64> {
    let (first, rest) = all.split_at(BATCH);
    pass(first).await?;
    let start = Instant::now();
    pass(rest).await?;
    Ok(rest.len() as f64 / start.elapsed().as_secs_f64())
}

/// Sends `messages` in batches, with `calls` of them under way at once.
async fn in_batches<T>(
    messages: &[T],
    batch: usize,
    calls: usize,
    send: impl AsyncFn(&[T]) -> Result<()>,
) -> Result<()> {
    let batches = futures::stream::iter(messages.chunks(batch)).map(|batch| send(batch));
    batches.buffer_unordered(calls).try_collect().await
}

/// Takers that go on by themselves, side by side, each time with what `take` moves: one that is cut off while it waits
/// may take messages with it. Dropping them ends them.
#[cfg(any(feature = "pubsub", feature = "sqs"))]
struct Takers {
    counts: tokio::sync::mpsc::UnboundedReceiver<Result<usize>>,
    _tasks: tokio::task::JoinSet<()>,
}

#[cfg(any(feature = "pubsub", feature = "sqs"))]
impl Takers {
    fn start<F: Future<Output = Result<usize>> + Send>(
        count: usize,
        take: impl Fn() -> F + Clone + Send + 'static,
    ) -> Self {
        let (found, counts) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (found, take) = (found.clone(), take.clone());
            tasks.spawn(async move { while found.send(take().await).is_ok() {} });
        }
        Self { counts, _tasks: tasks }
    }

    async fn consume(&mut self, count: usize) -> Result<()> {
        let mut found = 0;
        while found < count {
            found += self.counts.recv().await.ok_or("the takers have ended")??;
        }
        Ok(())
    }
}

async fn driver(url: &str, messages: &[Message]) -> Result<f64> {
    let broker = windlass_brokers::open(url).await?;
    let lane = messages[0].lane.clone();
    let mut subscription =
        broker.subscribe(std::slice::from_ref(&lane), WINDOW, Priorities::Weighted).await?;
    let rate = rate(messages, async |messages| {
        let publish = in_batches(messages, BATCH, WINDOW / BATCH, async |batch| {
            for answer in broker.publish(batch).await {
                answer?;
            }
            Ok(())
        });
        let consume = async {
            let mut found = 0;
            while found < messages.len() {
                let deliveries = subscription.receive(BATCH).await?;
                found += deliveries.len();
                let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
                subscription.ack(&tags).await?;
            }
            Result::Ok(())
        };
        try_join(publish, consume).await.map(drop)
    });
    let rate = rate.await?;
    broker.delete(&[lane]).await?;
    broker.close().await;
    Ok(rate)
}

/// The bare client library's rate.
async fn bare(url: &str, lane: &Lane, payloads: &[Vec<u8>]) -> Result<f64> {
    // Beside the driver's own names, which some brokers keep to the driver. A build without any driver uses neither.
    let (name, _) = (format!("bare-{}", lane.queue), payloads);
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        #[cfg(feature = "kafka")]
        "kafka" => kafka::run(url, &name, payloads).await,
        #[cfg(feature = "nats")]
        "nats" => nats::run(url, &name, payloads).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::run(url, &name, payloads).await,
        #[cfg(feature = "pubsub")]
        "pubsub" => pubsub::run(url, &name, payloads).await,
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => rabbitmq::run(url, &name, payloads).await,
        #[cfg(feature = "redis")]
        "redis" => redis::run(url, &name, payloads).await,
        #[cfg(feature = "sqs")]
        "sqs" => sqs::run(url, &name, payloads).await,
        scheme => Err(format!("no bare counterpart for {scheme}: in this build (of {name})").into()),
    }
}
