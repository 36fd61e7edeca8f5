//! Kafka through the conformance suite, and what only Kafka can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::Arc;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use windlass_brokers::conformance::Fixture;
use windlass_core::{Broker, Lane};

struct Kafka;

fn url() -> String {
    std::env::var("WINDLASS_TEST_KAFKA_URL")
        .expect("WINDLASS_TEST_KAFKA_URL is not set: run scripts/test, which starts the servers")
}

/// Settings for a client past the driver.
fn raw() -> ClientConfig {
    let url = url();
    let (login, rest) = url.strip_prefix("kafka://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", rest.split_once('?').map_or(rest, |(hosts, _)| hosts))
        .set("security.protocol", "sasl_plaintext")
        .set("sasl.mechanism", "PLAIN")
        .set("sasl.username", user)
        .set("sasl.password", password);
    config
}

#[async_trait]
impl Fixture for Kafka {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let producer: FutureProducer = raw().create().unwrap();
        let topic = lane.to_string();
        let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(bytes);
        producer.send(record, Timeout::Never).await.unwrap();
        true
    }
}

windlass_brokers::broker_conformance!(Kafka);
