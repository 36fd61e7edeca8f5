//! The way to a server that speaks SQS, with the driver and past it.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use windlass_brokers::conformance::Fixture;
use windlass_core::{Broker, JobId, Lane};

/// A server at a `broker_url`.
pub(crate) struct Sqs {
    pub(crate) url: String,
}

impl Sqs {
    pub(crate) fn new(variable: &str) -> Self {
        let missing = format!("{variable} is not set: run scripts/test, which starts the servers");
        Self { url: std::env::var(variable).expect(&missing) }
    }

    /// The same server, with FIFO queues.
    pub(crate) fn fifo(self) -> Self {
        Self { url: format!("{}&fifo=true", self.url) }
    }

    /// A client past the driver.
    pub(crate) fn raw(&self) -> Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(self.endpoint())
            .credentials_provider(Credentials::new("test", "test", None, None, "test"))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::from_conf(config)
    }

    fn is_fifo(&self) -> bool {
        self.url.contains("fifo=true")
    }

    /// The name of a lane's queue, where it needs no escapes.
    pub(crate) fn name(&self, lane: &Lane) -> String {
        lane.to_string().replace('.', "-") + if self.is_fifo() { ".fifo" } else { "" }
    }

    /// The server's own URL.
    pub(crate) fn endpoint(&self) -> String {
        let url: url::Url = self.url.parse().unwrap();
        url.query_pairs().find(|(name, _)| name == "endpoint").unwrap().1.into()
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
        let queue = self.raw().get_queue_url().queue_name(self.name(lane)).send().await.unwrap();
        let queue = queue.queue_url.unwrap();
        let mut send = self.raw().send_message().queue_url(queue).message_body(body);
        if self.is_fifo() {
            let id = JobId::new().to_string();
            send = send.message_group_id(&id).message_deduplication_id(&id);
        }
        send.send().await.unwrap();
        true
    }
}

/// `broker_conformance!` without three of its tests, which put thousands of messages into one queue: for servers whose
/// calls take the longer the more is in the queue. They are moto, which at 2,000 messages answers one call in a second,
/// and ElasticMQ with FIFO queues, where every call looks through all groups. Those three are
/// consumers_join_and_leave, large_batch and many_publishers; ElasticMQ with standard queues passes them.
macro_rules! broker_conformance_in_small {
    ($fixture:expr) => {
        windlass_brokers::broker_conformance! { @each $fixture;
            acknowledged_is_gone
            close_gives_back
            closed_says_so
            delete_empties
            deleted_under_a_subscription
            depth_counts_what_waits
            dropping_gives_back
            empty_batch
            holds_no_more_than_asked_for
            lanes_are_shared_as_declared
            lone_message_wakes_a_waiting_receive
            park_gives_back_what_was_not_handed_out
            park_keeps_what_was_handed_out
            park_twice_and_resume
            ping_answers
            receive_can_be_dropped
            release_gives_back
            round_trip
            several_lanes_in_one_batch
            several_lanes_share_the_capacity
            stale_tags_are_ignored
            subscribing_creates_the_lane
            unreadable_messages_are_set_aside
            urgent_comes_first
        }
    };
}
pub(crate) use broker_conformance_in_small;
