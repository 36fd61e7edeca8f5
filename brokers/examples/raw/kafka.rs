use futures::StreamExt as _;
use futures::future::try_join;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{BATCH, Result, WINDOW, in_batches, rate};

/// Partitions as the URL says, like the driver's; all else is the library's own default, but for what the promises
/// need.
pub(crate) async fn run(url: &str, topic: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let address = url.trim_start_matches("kafka://");
    // The other parameters are settings of the driver's consumers.
    let (address, query) = address.split_once('?').unwrap_or((address, ""));
    let partitions = query.split('&').find_map(|pair| pair.strip_prefix("partitions=")).unwrap_or("12");
    let (login, servers) = address.rsplit_once('@').unwrap_or(("", address));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    if let Some((user, password)) = login.split_once(':') {
        config.set("security.protocol", "sasl_plaintext").set("sasl.mechanism", "PLAIN");
        config.set("sasl.username", user).set("sasl.password", password);
    }
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    admin
        .create_topics(
            &[NewTopic::new(topic, partitions.parse()?, TopicReplication::Fixed(1))],
            &AdminOptions::new(),
        )
        .await?;
    let producer: FutureProducer = config.clone().set("enable.idempotence", "true").create()?;
    let consumer: StreamConsumer = config
        .clone()
        .set("group.id", topic)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .create()?;
    consumer.subscribe(&[topic])?;

    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, BATCH, WINDOW / BATCH, async |batch| {
            let send = |(number, payload): (usize, &Vec<u8>)| {
                let key = number.to_be_bytes();
                let record = FutureRecord::to(topic).payload(payload).key(&key);
                producer.send_result(record).map_err(|(error, _)| error)
            };
            let sent: Vec<_> = batch.iter().enumerate().map(send).collect::<std::result::Result<_, _>>()?;
            for sent in sent {
                sent.await?.map_err(|(error, _)| error)?;
            }
            Ok(())
        });
        let consume = async {
            let mut messages = consumer.stream().take(payloads.len());
            while let Some(message) = messages.next().await {
                message?;
            }
            Result::Ok(())
        };
        try_join(publish, consume).await.map(drop)
    });
    let rate = rate.await?;
    admin.delete_topics(&[topic], &AdminOptions::new()).await?;
    Ok(rate)
}
