//! What RabbitMQ allows: pipelined confirmed publishes to one quorum queue, then consuming and acknowledging them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, Result,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

const PIPELINE: usize = 500;
const PREFETCH: u16 = 1000;

/// Publishes and consumes `messages` messages of `size` bytes; answers the time both took together.
pub(crate) async fn run(broker_url: &str, queue: &str, messages: usize, size: usize) -> Result<Duration> {
    let connection = Connection::connect(broker_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.into(), durable, arguments).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;

    let began = Instant::now();
    let body = vec![b'x'; size];
    let properties = BasicProperties::default().with_delivery_mode(2);
    let mut left = messages;
    while left > 0 {
        let mut confirms = Vec::with_capacity(PIPELINE);
        for _ in 0..left.min(PIPELINE) {
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let publish = channel.basic_publish("".into(), queue.into(), options, &body, properties.clone());
            confirms.push(publish.await?);
        }
        left -= confirms.len();
        for confirm in confirms {
            confirm.await?;
        }
    }
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), "bench".into(), options, FieldTable::default()).await?;
    for taken in 1..=messages {
        let Some(delivery) = consumer.next().await else { break };
        let tag = delivery?.delivery_tag;
        if taken % 100 == 0 || taken == messages {
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
        }
    }
    let took = began.elapsed();
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "done".into()).await?;
    Ok(took)
}
