use std::collections::VecDeque;
use std::time::Instant;

use futures::StreamExt as _;
use futures::future::try_join;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{Result, WINDOW};

pub(crate) async fn run(url: &str, lane: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    // Host and login of a URL for one server; its parameters are the driver's.
    let (address, _) = url.trim_start_matches("kafka://").split_once('?').unwrap_or((url, ""));
    let (login, servers) = address.rsplit_once('@').unwrap_or(("", address));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    if let Some((user, password)) = login.split_once(':') {
        config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
        config.set("sasl.username", user).set("sasl.password", password);
    }
    let topic = format!("{lane}.bare");
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    admin
        .create_topics(&[NewTopic::new(&topic, 4, TopicReplication::Fixed(1))], &AdminOptions::new())
        .await?;
    let producer: FutureProducer =
        config.clone().set("enable.idempotence", "true").set("linger.ms", "5").create()?;
    let consumer: StreamConsumer = config
        .clone()
        .set("group.id", &topic)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .create()?;
    consumer.subscribe(&[&topic])?;

    let start = Instant::now();
    let publish = async {
        let mut under_way = VecDeque::new();
        for (number, payload) in payloads.iter().enumerate() {
            if under_way.len() >= WINDOW
                && let Some(sent) = under_way.pop_front()
            {
                delivered(sent).await?;
            }
            let key = number.to_be_bytes();
            let record = FutureRecord::to(&topic).payload(payload).key(&key);
            under_way.push_back(producer.send_result(record).map_err(|(error, _)| error)?);
        }
        for sent in under_way {
            delivered(sent).await?;
        }
        Result::Ok(())
    };
    let consume = async {
        let mut messages = consumer.stream().take(payloads.len());
        while let Some(message) = messages.next().await {
            message?;
        }
        Result::Ok(())
    };
    try_join(publish, consume).await?;
    let took = start.elapsed().as_secs_f64();
    admin.delete_topics(&[&topic], &AdminOptions::new()).await?;
    Ok(took)
}

async fn delivered(sent: rdkafka::producer::DeliveryFuture) -> Result<()> {
    sent.await?.map_err(|(error, _)| error)?;
    Ok(())
}
