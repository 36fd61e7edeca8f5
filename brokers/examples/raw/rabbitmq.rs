use std::collections::VecDeque;

use futures::future::try_join;
use futures::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::{Result, WINDOW, rate};

pub(crate) async fn run(url: &str, queue: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let publishing = Connection::connect(url, ConnectionProperties::default()).await?;
    let consuming = Connection::connect(url, ConnectionProperties::default()).await?;
    let sender = publishing.create_channel().await?;
    let receiver = consuming.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    sender.queue_declare(queue.into(), options, arguments).await?;
    sender.confirm_select(ConfirmSelectOptions::default()).await?;
    receiver.basic_qos(WINDOW as u16, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        receiver.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;

    let rate = rate(payloads, async |payloads| {
        let consume = async {
            let mut found = 0;
            while found < payloads.len() {
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
        try_join(publish(&sender, queue, payloads), consume).await.map(drop)
    });
    let rate = rate.await?;
    sender.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await?;
    publishing.close(200, "".into()).await?;
    consuming.close(200, "".into()).await?;
    Ok(rate)
}

async fn publish(sender: &Channel, queue: &str, payloads: &[Vec<u8>]) -> Result<()> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let mut under_way = VecDeque::new();
    for payload in payloads {
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
