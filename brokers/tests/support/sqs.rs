//! The way to a server that speaks SQS, with the driver and past it.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use windlass_brokers::conformance::Fixture;
use windlass_core::{Broker, Lane};

/// A server at a `broker_url`.
pub(crate) struct Sqs {
    pub(crate) url: String,
}

impl Sqs {
    pub(crate) fn new(variable: &str) -> Self {
        let missing = format!("{variable} is not set: run scripts/test, which starts the servers");
        Self { url: std::env::var(variable).expect(&missing) }
    }

    /// A client past the driver.
    pub(crate) fn raw(&self) -> Client {
        let url: url::Url = self.url.parse().unwrap();
        let endpoint = url.query_pairs().find(|(name, _)| name == "endpoint").unwrap().1;
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::from_conf(config)
    }

    /// The URL of a lane's queue. The suite's queues need no escapes.
    pub(crate) async fn queue(&self, lane: &Lane) -> String {
        let name = lane.to_string().replace('.', "-");
        let found = self.raw().get_queue_url().queue_name(name).send().await;
        found.unwrap().queue_url.unwrap()
    }
}

#[async_trait]
impl Fixture for Sqs {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&self.url).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        // As text where it is one, else as the driver writes bytes. There are no empty messages.
        let body = match std::str::from_utf8(bytes) {
            Ok("") => " ".to_owned(),
            Ok(text) if !text.contains(|c: char| c.is_control()) => text.to_owned(),
            _ => aws_smithy_types::base64::encode(bytes),
        };
        let queue = self.queue(lane).await;
        self.raw().send_message().queue_url(queue).message_body(body).send().await.unwrap();
        true
    }
}
