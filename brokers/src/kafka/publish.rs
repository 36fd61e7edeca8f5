use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::future_producer::{DeliveryFuture, OwnedDeliveryResult};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;
use windlass_core::{BrokerError, Lane, Message};

use super::DEADLINE;
use super::address::Address;
use super::aside::Aside;
use super::health::{Health, Watched};
use super::lanes::Lanes;
use super::problem::Problem;

/// Messages of one batch on their way at once, of the 100,000 that the library holds for all.
const WINDOW: usize = 10_000;
/// What a message adds to the deadline of its batch; brokers that work take a tenth of it.
const PER_MESSAGE: Duration = Duration::from_millis(1);
/// How long to wait for room in a producer filled by others.
const FULL: Duration = Duration::from_millis(10);

type Client = FutureProducer<Watched>;

/// Publishes through one idempotent producer.
pub(super) struct Publisher {
    address: Arc<Address>,
    health: Arc<Health>,
    lanes: Arc<Lanes>,
    /// None once closed.
    client: Mutex<Option<Arc<Aside<Client>>>>,
    /// The library's clients.
    ending: TaskTracker,
}

impl Publisher {
    /// Starts to connect in the background.
    pub(super) fn new(
        address: Arc<Address>,
        health: Arc<Health>,
        lanes: Arc<Lanes>,
        ending: TaskTracker,
    ) -> Result<Self, Problem> {
        let client = Mutex::new(Some(make(&address, &health, &ending)?));
        Ok(Self { address, health, lanes, client, ending })
    }

    /// Publishes `messages` and answers one by one.
    pub(super) async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        let lanes = distinct(messages);
        let failed = self.lanes.ensure(&lanes).await;
        let mut answers: Vec<Result<(), Problem>> =
            messages.iter().map(|message| failed.get(&message.lane).cloned().map_or(Ok(()), Err)).collect();
        let all: Vec<usize> = (0..messages.len()).filter(|&index| answers[index].is_ok()).collect();
        let Some(client) = self.client().clone() else {
            return messages.iter().map(|_| Err(BrokerError::Closed)).collect();
        };
        let lost = self.round(&client, messages, &all, &mut answers).await;
        if !lost.is_empty() {
            // Somebody deleted the lane, or the brokers lost everything, the ids of their producers too: under an
            // old id, messages could pass for repetitions of others.
            self.replace(&client);
            let lanes = distinct(lost.iter().map(|&index| &messages[index]));
            lanes.iter().for_each(|lane| self.lanes.forget(lane));
            let failed = self.lanes.ensure(&lanes).await;
            let (again, never): (Vec<usize>, Vec<usize>) =
                lost.into_iter().partition(|&index| !failed.contains_key(&messages[index].lane));
            for index in never {
                answers[index] = failed.get(&messages[index].lane).cloned().map_or(Ok(()), Err);
            }
            let client = self.client().clone().unwrap_or(client);
            for index in self.round(&client, messages, &again, &mut answers).await {
                answers[index] = Err(Problem::Outage("the lane vanished while publishing".into()));
            }
        }
        answers.into_iter().map(|answer| answer.map_err(Into::into)).collect()
    }

    /// Sends the messages at `indices` and notes the answers. Those are returned for which there is no topic, or that may
    /// have been taken for repetitions: by another producer, and under another id, they get through.
    async fn round(
        &self,
        client: &Arc<Aside<Client>>,
        messages: &[Message],
        indices: &[usize],
        answers: &mut [Result<(), Problem>],
    ) -> Vec<usize> {
        let count = u32::try_from(indices.len()).unwrap_or(u32::MAX);
        let deadline = Instant::now() + DEADLINE + PER_MESSAGE.saturating_mul(count);
        let topics: HashMap<&Lane, String> =
            indices.iter().map(|&index| (&messages[index].lane, messages[index].lane.to_string())).collect();
        let (mut lost, mut late) = (Vec::new(), false);
        let mut under_way: VecDeque<(usize, DeliveryFuture)> = VecDeque::new();
        let mut todo = indices.iter().copied().peekable();
        loop {
            let next = if under_way.len() < WINDOW { todo.peek().copied() } else { None };
            let (index, failure) = if let Some(index) = next {
                let message = &messages[index];
                match send(client, &topics[&message.lane], message) {
                    Ok(delivery) => {
                        todo.next();
                        under_way.push_back((index, delivery));
                        continue;
                    }
                    Err(Code::QueueFull) if Instant::now() < deadline => match under_way.pop_front() {
                        Some((index, delivery)) => (index, outcome(delivery, deadline).await),
                        None => {
                            sleep(FULL).await;
                            continue;
                        }
                    },
                    Err(code) => {
                        todo.next();
                        (index, Some(code))
                    }
                }
            } else if let Some((index, delivery)) = under_way.pop_front() {
                (index, outcome(delivery, deadline).await)
            } else {
                break;
            };
            match failure {
                None => {}
                Some(
                    Code::UnknownTopic
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::DuplicateSequenceNumber
                    // Given to a connection that the library was about to replace.
                    | Code::BrokerDestroy,
                ) => lost.push(index),
                Some(code) => {
                    late |= code == Code::MessageTimedOut;
                    answers[index] =
                        Err(self.health.failure(code, &format!("the topic {}", messages[index].lane)));
                }
            }
        }
        if indices.iter().any(|&index| answers[index].is_ok()) && lost.is_empty() {
            self.health.clear();
        }
        // One that gets nothing through may also be wrong about who leads the partitions.
        if late || client.client().fatal_error().is_some() {
            self.replace(client);
        }
        lost
    }

    /// Ends the producer once nothing is under way through it.
    pub(super) fn close(&self) {
        self.client().take();
    }

    /// Puts a new producer in the place of `old`, unless somebody else just did, or it was closed.
    fn replace(&self, old: &Arc<Aside<Client>>) {
        let mut client = self.client();
        if client.as_ref().is_some_and(|client| Arc::ptr_eq(client, old)) {
            match make(&self.address, &self.health, &self.ending) {
                Ok(new) => *client = Some(new),
                Err(problem) => {
                    tracing::error!(?problem, "cannot make a new producer; going on with the old")
                }
            }
        }
    }

    fn client(&self) -> MutexGuard<'_, Option<Arc<Aside<Client>>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(
    address: &Address,
    health: &Arc<Health>,
    ending: &TaskTracker,
) -> Result<Arc<Aside<Client>>, Problem> {
    let made = address.producer().create_with_context(Watched(Arc::clone(health)));
    made.map(|client| Arc::new(Aside::new(client, ending))).map_err(|error| Problem::making(&error))
}

/// Hands `message` to the library. The messages of an ordering key, or else of a job, go to one partition.
fn send(client: &Client, topic: &str, message: &Message) -> Result<DeliveryFuture, Code> {
    let (id, payload) = (message.job_id.as_uuid(), message.encode());
    let key = message.ordering_key.as_ref().map_or(id.as_bytes().as_slice(), |key| key.as_str().as_bytes());
    let record = FutureRecord::to(topic).key(key).payload(&payload);
    client.send_result(record).map_err(|(error, _)| code(&error))
}

/// Notes the ordering key that `message` was published with, so that it has it still when it is given back.
pub(super) fn keyed(mut message: Message, key: Option<&[u8]>) -> Message {
    message.ordering_key = key
        .filter(|key| key != message.job_id.as_uuid().as_bytes())
        .and_then(|key| std::str::from_utf8(key).ok())
        .and_then(|key| key.parse().ok());
    message
}

/// Why the message was not taken, if it was not.
async fn outcome(delivery: DeliveryFuture, deadline: Instant) -> Option<Code> {
    match timeout_at(deadline, delivery).await {
        Ok(Ok(delivered)) => refusal(delivered),
        // Its producer was ended, or has not given it up yet.
        Ok(Err(_)) | Err(_) => Some(Code::MessageTimedOut),
    }
}

fn refusal(delivered: OwnedDeliveryResult) -> Option<Code> {
    match delivered {
        // The broker has taken it for a repetition of what it has, and need not be right: in a partition just made it
        // takes the batch that gets through first for the producer's first, and those before it, which were sent again
        // since the partition was not there yet, for old ones.
        Ok(delivery) if delivery.offset < 0 => Some(Code::DuplicateSequenceNumber),
        Ok(_) => None,
        Err((error, _)) => Some(code(&error)),
    }
}

fn code(error: &KafkaError) -> Code {
    error.rdkafka_error_code().unwrap_or(Code::Fail)
}

fn distinct<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<Lane> {
    let mut lanes: Vec<Lane> = Vec::new();
    for message in messages {
        if !lanes.contains(&message.lane) {
            lanes.push(message.lane.clone());
        }
    }
    lanes
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::producer::future_producer::Delivery;

    use super::*;

    #[test]
    fn what_was_taken_for_a_repetition_is_not_confirmed() {
        let delivered = |offset| Delivery { partition: 0, offset, timestamp: Timestamp::NotAvailable };
        assert_eq!(refusal(Ok(delivered(0))), None);
        // As the library says that there is none.
        assert_eq!(refusal(Ok(delivered(-1001))), Some(Code::DuplicateSequenceNumber));
    }
}
