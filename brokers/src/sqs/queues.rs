use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::OnceCell;
use windlass_core::Lane;

use super::api::Api;
use super::name::queue_name;
use super::problem::Problem;

/// Fewer receives than this before a queue moves a message elsewhere are too few: each time that a full worker gives a
/// message back counts. It is the most that SQS allows.
const RECEIVES: u32 = 1000;

/// The lanes' queues, as far as they are known.
#[derive(Debug)]
pub(super) struct Queues {
    pub(super) api: Api,
    /// Their URLs. A cell, so that many who need the same queue at once ask for it once.
    urls: Mutex<HashMap<Lane, Arc<OnceCell<String>>>>,
}

impl Queues {
    pub(super) fn new(api: Api) -> Self {
        Self { api, urls: Mutex::default() }
    }

    /// The URL of `lane`'s queue, which is created if need be.
    pub(super) async fn url(&self, lane: &Lane) -> Result<String, Problem> {
        let cell = Arc::clone(self.urls().entry(lane.clone()).or_default());
        cell.get_or_try_init(|| self.declare(lane)).await.cloned()
    }

    /// The URL of `lane`'s queue, if there is one.
    pub(super) async fn existing(&self, lane: &Lane) -> Result<Option<String>, Problem> {
        let known = self.urls().get(lane).and_then(|cell| cell.get().cloned());
        if known.is_some() {
            return Ok(known);
        }
        match self.api.queue_url(&queue_name(&self.api.address, lane)).await {
            Ok(url) => Ok(Some(url)),
            Err(Problem::NoQueue) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// To be called when the queue turns out to be gone.
    pub(super) fn forget(&self, lane: &Lane) {
        self.urls().remove(lane);
    }

    /// How many messages wait in `lane`.
    pub(super) async fn depth(&self, lane: &Lane) -> Result<u64, Problem> {
        let Some(url) = self.existing(lane).await? else { return Ok(0) };
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        match self.api.attributes(&url, std::slice::from_ref(&name)).await {
            Ok(found) => {
                let number = found.get(&name).and_then(|text| text.parse().ok());
                number.ok_or_else(|| Problem::Outage("SQS did not tell the number of messages".into()))
            }
            Err(Problem::NoQueue) => {
                self.forget(lane);
                Ok(0)
            }
            Err(problem) => Err(problem),
        }
    }

    pub(super) async fn delete(&self, lane: &Lane) -> Result<(), Problem> {
        let Some(url) = self.existing(lane).await? else { return Ok(()) };
        self.forget(lane);
        match self.api.delete_queue(&url).await {
            Err(Problem::NoQueue) => Ok(()),
            answer => answer,
        }
    }

    async fn declare(&self, lane: &Lane) -> Result<String, Problem> {
        let name = queue_name(&self.api.address, lane);
        // Not created at once: a queue that the operator made need not have our settings, only none that harm, and
        // perhaps we may not create queues.
        match self.api.queue_url(&name).await {
            Ok(url) => {
                self.check(&name, &url).await?;
                Ok(url)
            }
            Err(Problem::NoQueue) => self.api.create_queue(lane).await,
            Err(problem) => Err(problem),
        }
    }

    async fn check(&self, name: &str, url: &str) -> Result<(), Problem> {
        let (redrive, delay) = (QueueAttributeName::RedrivePolicy, QueueAttributeName::DelaySeconds);
        let found = self.api.attributes(url, &[redrive.clone(), delay.clone()]).await?;
        let refuse = |problem: &str, remedy: &str| {
            Err(Problem::Config {
                problem: format!("broker_url: the queue {name} {problem}"),
                remedy: remedy.into(),
            })
        };
        if found.get(&redrive).and_then(|policy| max_receives(policy)).is_some_and(|max| max < RECEIVES) {
            return refuse(
                "moves messages to a dead-letter queue after a few receives, though nothing failed",
                "remove its redrive policy or set maxReceiveCount to 1000",
            );
        }
        if found.get(&delay).is_some_and(|delay| delay != "0") {
            return refuse("delays messages", "set its delivery delay to 0");
        }
        Ok(())
    }

    /// Locked for a look or a change within memory only.
    fn urls(&self) -> MutexGuard<'_, HashMap<Lane, Arc<OnceCell<String>>>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `maxReceiveCount` of a redrive policy, which is a number or a text in a JSON object.
fn max_receives(policy: &str) -> Option<u32> {
    let (_, rest) = policy.split_once("maxReceiveCount")?;
    let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_redrive_policies() {
        for (policy, expected) in [
            (r#"{"deadLetterTargetArn":"arn:aws:sqs:x:1:q2","maxReceiveCount":3}"#, Some(3)),
            (r#"{"maxReceiveCount" : "1000", "deadLetterTargetArn":"q"}"#, Some(1000)),
            ("{}", None),
        ] {
            assert_eq!(max_receives(policy), expected, "{policy}");
        }
    }
}
