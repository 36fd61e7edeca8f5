use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
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
    known: Mutex<HashMap<Lane, Arc<Queue>>>,
}

/// A lane's queue, from its creation to its deletion.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// A cell, so that many who need the same queue at once ask for it once.
    url: OnceCell<String>,
    gone: CancellationToken,
}

impl Queue {
    pub(super) fn url(&self) -> &str {
        self.url.get().map_or("", String::as_str)
    }

    /// Waits until the queue is known to be gone. Some servers leave a receive unanswered then.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

impl Queues {
    pub(super) fn new(api: Api) -> Self {
        Self { api, known: Mutex::default() }
    }

    /// The queue of `lane`, which is created if need be.
    pub(super) async fn open(&self, lane: &Lane) -> Result<Arc<Queue>, Problem> {
        let queue = Arc::clone(self.known().entry(lane.clone()).or_default());
        queue.url.get_or_try_init(|| self.declare(lane)).await?;
        Ok(queue)
    }

    /// The queue of `lane`, if there is one.
    pub(super) async fn existing(&self, lane: &Lane) -> Result<Option<Arc<Queue>>, Problem> {
        let known = self.known().get(lane).filter(|queue| queue.url.initialized()).cloned();
        if known.is_some() {
            return Ok(known);
        }
        match self.api.queue_url(&queue_name(&self.api.address, lane)).await {
            Ok(url) => Ok(Some(Arc::new(Queue { url: OnceCell::from(url), ..Queue::default() }))),
            Err(Problem::NoQueue) => Ok(None),
            Err(problem) => Err(problem),
        }
    }

    /// To be called when `queue` turns out to be gone.
    pub(super) fn forget(&self, lane: &Lane, queue: &Arc<Queue>) {
        queue.gone.cancel();
        let mut known = self.known();
        // It may have been created anew meanwhile.
        if known.get(lane).is_some_and(|known| Arc::ptr_eq(known, queue)) {
            known.remove(lane);
        }
    }

    /// How many messages wait in `lane`.
    pub(super) async fn depth(&self, lane: &Lane) -> Result<u64, Problem> {
        let Some(queue) = self.existing(lane).await? else { return Ok(0) };
        let name = QueueAttributeName::ApproximateNumberOfMessages;
        match self.api.attributes(queue.url(), std::slice::from_ref(&name)).await {
            Ok(found) => {
                let number = found.get(&name).and_then(|text| text.parse().ok());
                number.ok_or_else(|| Problem::Outage("SQS did not tell the number of messages".into()))
            }
            Err(Problem::NoQueue) => {
                self.forget(lane, &queue);
                Ok(0)
            }
            Err(problem) => Err(problem),
        }
    }

    pub(super) async fn delete(&self, lane: &Lane) -> Result<(), Problem> {
        let Some(queue) = self.existing(lane).await? else { return Ok(()) };
        match self.api.delete_queue(queue.url()).await {
            Ok(()) | Err(Problem::NoQueue) => {
                self.forget(lane, &queue);
                Ok(())
            }
            Err(problem) => Err(problem),
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
    fn known(&self) -> MutexGuard<'_, HashMap<Lane, Arc<Queue>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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
