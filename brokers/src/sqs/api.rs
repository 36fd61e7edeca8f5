use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{Credentials, StalledStreamProtectionConfig};
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    Message as Received, QueueAttributeName, SendMessageBatchRequestEntry,
};
use aws_smithy_http_client::{Builder as HttpClient, tls};
use aws_smithy_types::base64;
use tokio::time::timeout;
use windlass_core::{BrokerError, JobId, Lane, Message};

use super::address::Address;
use super::name::queue_name;
use super::problem::Problem;
use super::{DEADLINE, VISIBILITY};

/// What SQS keeps a message for at most.
const RETENTION: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The calls to SQS that the driver makes. Each has a deadline.
pub(super) struct Api {
    client: Client,
    pub(super) address: Address,
}

/// What becomes of messages that were received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    /// They never come again.
    Delete,
    /// They are there for others, at once.
    Release,
    /// They are kept from others for another while.
    Keep,
}

/// An entry of a batch that was not carried out.
pub(super) struct Failed {
    pub(super) index: usize,
    pub(super) problem: Problem,
    /// To try again is of no use.
    pub(super) final_: bool,
}

impl Api {
    pub(super) async fn new(address: Address) -> Result<Self, BrokerError> {
        let http = if address.is_emulator() {
            HttpClient::new().build_http()
        } else {
            HttpClient::new()
                .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
                .build_https()
        };
        // A retry is for what was caught in a closing connection, and for throttling. An outage is for the caller.
        let retry = RetryConfig::standard()
            .with_max_attempts(3)
            .with_initial_backoff(Duration::from_millis(100))
            .with_max_backoff(Duration::from_secs(1));
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http.clone())
            .retry_config(retry)
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(3)).build())
            // A receive that waits for messages looks like a stalled one.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Ok(name) = AppName::new("windlass") {
            loader = loader.app_name(name);
        }
        if let Some(region) = &address.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if address.is_emulator() {
            // It wants a signature, but cannot tell one from another. No use asking the cloud's metadata services.
            let none = Credentials::new("windlass", "windlass", None, None, "emulator");
            let profile = ProfileFileCredentialsProvider::builder()
                .configure(&ProviderConfig::without_region().with_http_client(http));
            let chain = CredentialsProviderChain::first_try(
                "environment",
                EnvironmentVariableCredentialsProvider::new(),
            )
            .or_else("profile", profile.build())
            .or_else("emulator", none);
            loader = loader.credentials_provider(chain);
        }
        let shared = Box::pin(loader.load()).await;
        if shared.region().is_none() {
            return Err(BrokerError::Config {
                problem: "broker_url names no AWS region, and nor does the environment".into(),
                remedy: "write it as sqs://region, or set AWS_REGION".into(),
            });
        }
        let mut config = aws_sdk_sqs::config::Builder::from(&shared);
        if let Some(endpoint) = &address.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Self { client: Client::from_conf(config.build()), address })
    }

    /// The URL of the queue with this name.
    pub(super) async fn queue_url(&self, name: &str) -> Result<String, Problem> {
        let request = self.client.get_queue_url().queue_name(name).send();
        let output = self.call(DEADLINE, request).await?;
        output.queue_url.ok_or(Problem::NoQueue)
    }

    pub(super) async fn create_queue(&self, lane: &Lane) -> Result<String, Problem> {
        let mut request = self
            .client
            .create_queue()
            .queue_name(queue_name(&self.address, lane))
            .attributes(QueueAttributeName::VisibilityTimeout, VISIBILITY.as_secs().to_string())
            .attributes(QueueAttributeName::MessageRetentionPeriod, RETENTION.as_secs().to_string())
            .tags("windlass:lane", lane.to_string());
        if self.address.fifo {
            // Each job is a group of its own, so groups may go side by side.
            request = request
                .attributes(QueueAttributeName::FifoQueue, "true")
                .attributes(QueueAttributeName::DeduplicationScope, "messageGroup")
                .attributes(QueueAttributeName::FifoThroughputLimit, "perMessageGroupId");
        }
        let output = self.call(DEADLINE, request.send()).await?;
        output.queue_url.ok_or(Problem::NoQueue)
    }

    pub(super) async fn delete_queue(&self, url: &str) -> Result<(), Problem> {
        let request = self.client.delete_queue().queue_url(url).send();
        self.call(DEADLINE, request).await.map(drop)
    }

    pub(super) async fn attributes(
        &self,
        url: &str,
        names: &[QueueAttributeName],
    ) -> Result<HashMap<QueueAttributeName, String>, Problem> {
        let request = self.client.get_queue_attributes().queue_url(url);
        let request = request.set_attribute_names(Some(names.to_vec())).send();
        Ok(self.call(DEADLINE, request).await?.attributes.unwrap_or_default())
    }

    /// Sends up to ten messages, and answers one by one.
    pub(super) async fn send(
        &self,
        url: &str,
        entries: Vec<SendMessageBatchRequestEntry>,
    ) -> Result<Vec<Result<(), Problem>>, Problem> {
        let unknown = || Err(Problem::Refused("SQS gave no word on it".into()));
        let mut answers: Vec<_> = entries.iter().map(|_| unknown()).collect();
        let request = self.client.send_message_batch().queue_url(url).set_entries(Some(entries));
        let output = self.call(DEADLINE, request.send()).await?;
        for entry in output.successful() {
            if let Some(answer) = entry.id().parse().ok().and_then(|index: usize| answers.get_mut(index)) {
                *answer = Ok(());
            }
        }
        for failed in self.failed(output.failed()) {
            if let Some(answer) = answers.get_mut(failed.index) {
                *answer = Err(failed.problem);
            }
        }
        Ok(answers)
    }

    /// Takes up to `count` messages, at most ten, and waits for the first of them.
    pub(super) async fn receive(
        &self,
        url: &str,
        count: usize,
        wait: Duration,
    ) -> Result<Vec<Received>, Problem> {
        let request = self
            .client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(count).unwrap_or(1))
            .wait_time_seconds(i32::try_from(wait.as_secs()).unwrap_or(0))
            // Whatever the queue's own is.
            .visibility_timeout(seconds(VISIBILITY))
            .send();
        Ok(self.call(DEADLINE + wait, request).await?.messages.unwrap_or_default())
    }

    /// Settles up to ten messages, and answers with those that it failed for.
    pub(super) async fn settle(
        &self,
        url: &str,
        receipts: &[String],
        how: Settle,
    ) -> Result<Vec<Failed>, Problem> {
        let numbered = receipts.iter().enumerate();
        let visibility = match how {
            Settle::Delete => {
                let entry = |(index, receipt): (usize, &String)| {
                    DeleteMessageBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(receipt)
                        .build()
                };
                let entries: Result<_, BuildError> = numbered.map(entry).collect();
                let request = self.client.delete_message_batch().queue_url(url);
                let output = self.call(DEADLINE, request.set_entries(Some(entries?)).send()).await?;
                return Ok(self.failed(output.failed()));
            }
            Settle::Release => Duration::ZERO,
            Settle::Keep => VISIBILITY,
        };
        let entry = |(index, receipt): (usize, &String)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(receipt)
                .visibility_timeout(seconds(visibility))
                .build()
        };
        let entries: Result<_, BuildError> = numbered.map(entry).collect();
        let request = self.client.change_message_visibility_batch().queue_url(url);
        let output = self.call(DEADLINE, request.set_entries(Some(entries?)).send()).await?;
        Ok(self.failed(output.failed()))
    }

    fn failed(&self, entries: &[BatchResultErrorEntry]) -> Vec<Failed> {
        let failed = |entry: &BatchResultErrorEntry| {
            let status = if entry.sender_fault() { 400 } else { 500 };
            let message = entry.message().unwrap_or_default();
            let problem = Problem::by_code(entry.code(), message, status, &self.address);
            let index = entry.id().parse().ok()?;
            Some(Failed { index, problem, final_: entry.sender_fault() })
        };
        entries.iter().filter_map(failed).collect()
    }

    async fn call<T, E>(
        &self,
        deadline: Duration,
        request: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, Problem>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match timeout(deadline, Box::pin(request)).await {
            Ok(answer) => answer.map_err(|error| Problem::of(&error, &self.address)),
            Err(_) => Err(Problem::Late),
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The entry for `message`, which is the `index`th of its batch. A body has to be text.
pub(super) fn entry(
    index: usize,
    message: &Message,
    fifo: bool,
) -> Result<SendMessageBatchRequestEntry, Problem> {
    let mut entry = SendMessageBatchRequestEntry::builder()
        .id(index.to_string())
        .message_body(base64::encode(message.encode()));
    if fifo {
        // SQS drops what it has seen within five minutes, even if that was lost since. So the id tells this publishing
        // from any other, and is the same only where the library itself tries again.
        entry = entry
            .message_group_id(message.job_id.to_string())
            .message_deduplication_id(JobId::new().to_string());
    }
    Ok(entry.build()?)
}

/// The bytes of a message's body; none that any message has, if it is no body of ours.
pub(super) fn body(received: &Received) -> Vec<u8> {
    received.body().and_then(|body| base64::decode(body).ok()).unwrap_or_default()
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

impl From<BuildError> for Problem {
    fn from(error: BuildError) -> Self {
        Self::Refused(error.to_string())
    }
}
