//! What the driver costs: messages per second published with confirms and consumed with acknowledgements at the same
//! time, through the driver and through the bare client library, in turns, on the same server.
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
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqs")]
mod sqs;

use std::error::Error;
use std::time::Instant;

use futures::StreamExt;
use futures::future::try_join;
use windlass_core::{JobId, Lane, Message, Priority};

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
        };
        let messages: Vec<Message> = (0..count).map(message).collect();
        let payloads: Vec<Vec<u8>> = messages.iter().map(Message::encode).collect();
        let bare = count as f64 / bare(&url, &lane.to_string(), &payloads).await?;
        let driver = count as f64 / driver(&url, &messages).await?;
        ratios.push(driver / bare);
        println!("round {round}: bare {bare:.0}/s, driver {driver:.0}/s, ratio {:.2}", driver / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ROUNDS / 2]);
    Ok(())
}

async fn driver(url: &str, messages: &[Message]) -> Result<f64> {
    let broker = windlass_brokers::open(url).await?;
    let lane = messages[0].lane.clone();
    let mut subscription = broker.subscribe(std::slice::from_ref(&lane), WINDOW).await?;
    let start = Instant::now();
    let publish = async {
        // Four batches at once: WINDOW messages.
        let mut batches = futures::stream::iter(messages.chunks(BATCH)).map(|batch| broker.publish(batch));
        let mut under_way = futures::stream::FuturesUnordered::new();
        loop {
            while under_way.len() < WINDOW / BATCH {
                let Some(batch) = batches.next().await else { break };
                under_way.push(batch);
            }
            let Some(answers) = under_way.next().await else { return Ok(()) };
            for answer in answers {
                answer?;
            }
        }
    };
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
    try_join(publish, consume).await?;
    let took = start.elapsed().as_secs_f64();
    broker.delete(&[lane]).await?;
    broker.close().await;
    Ok(took)
}

/// The bare client library's time, in seconds.
async fn bare(url: &str, lane: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    // A build without any driver uses neither.
    let _ = (lane, payloads);
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        #[cfg(feature = "kafka")]
        "kafka" => kafka::run(url, lane, payloads).await,
        #[cfg(feature = "nats")]
        "nats" => nats::run(url, lane, payloads).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::run(url, lane, payloads).await,
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => rabbitmq::run(url, lane, payloads).await,
        #[cfg(feature = "redis")]
        "redis" => redis::run(url, lane, payloads).await,
        #[cfg(feature = "sqs")]
        "sqs" => sqs::run(url, lane, payloads).await,
        scheme => Err(format!("no bare counterpart for {scheme}: in this build").into()),
    }
}
