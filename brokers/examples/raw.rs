//! What the driver costs: messages per second published with confirms and consumed with acknowledgements at the same
//! time, through the driver and through the bare client library, in turns, on the same server.
//!
//! ```sh
//! WINDLASS_BROKER_URL=amqp://… cargo run --release -p windlass-brokers --features rabbitmq --example raw -- 100000
//! ```

use std::collections::VecDeque;
use std::error::Error;
use std::time::Instant;

use futures::future::try_join;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
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
        let bare = count as f64 / bare(&url, &messages).await?;
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

async fn bare(url: &str, messages: &[Message]) -> Result<f64> {
    let publishing = Connection::connect(url, ConnectionProperties::default()).await?;
    let consuming = Connection::connect(url, ConnectionProperties::default()).await?;
    let queue = format!("{}.bare", messages[0].lane);
    let sender = publishing.create_channel().await?;
    let receiver = consuming.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    sender.queue_declare(queue.as_str().into(), options, arguments).await?;
    sender.confirm_select(ConfirmSelectOptions::default()).await?;
    receiver.basic_qos(WINDOW as u16, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        receiver.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;

    let start = Instant::now();
    let consume = async {
        let mut found = 0;
        while found < messages.len() {
            let Some(first) = consumer.next().await else { return Err("consumer cancelled".into()) };
            let mut last = first?.delivery_tag;
            found += 1;
            while let Some(Some(delivery)) = consumer.next().now_or_never() {
                last = delivery?.delivery_tag;
                found += 1;
            }
            receiver.basic_ack(last, BasicAckOptions { multiple: true }).await?;
        }
        Result::Ok(())
    };
    try_join(publish_bare(&sender, &queue, messages), consume).await?;
    let took = start.elapsed().as_secs_f64();
    sender.queue_delete(queue.as_str().into(), lapin::options::QueueDeleteOptions::default()).await?;
    publishing.close(200, "".into()).await?;
    consuming.close(200, "".into()).await?;
    Ok(took)
}

async fn publish_bare(sender: &Channel, queue: &str, messages: &[Message]) -> Result<()> {
    let payloads: Vec<Vec<u8>> = messages.iter().map(Message::encode).collect();
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut under_way = VecDeque::new();
    for payload in &payloads {
        if under_way.len() == WINDOW
            && let Some(publish) = under_way.pop_front()
        {
            settle(publish).await?;
        }
        let properties = BasicProperties::default().with_delivery_mode(2);
        let mut publish =
            Box::pin(sender.basic_publish("".into(), queue.into(), options, payload, properties));
        let queued = futures::poll!(&mut publish);
        under_way.push_back((publish, queued));
    }
    for publish in under_way {
        settle(publish).await?;
    }
    Ok(())
}

type Confirm = lapin::Result<lapin::PublisherConfirm>;

async fn settle<F: Future<Output = Confirm>>((publish, queued): (F, std::task::Poll<Confirm>)) -> Result<()> {
    let confirm = match queued {
        std::task::Poll::Ready(confirm) => confirm?,
        std::task::Poll::Pending => publish.await?,
    };
    if confirm.await?.is_ack() { Ok(()) } else { Err("negative confirm".into()) }
}
