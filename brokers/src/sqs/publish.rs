use std::collections::HashMap;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use windlass_core::{BrokerError, Lane, Message};

use super::api::entry;
use super::problem::Problem;
use super::queues::Queues;
use super::{BATCH, DEADLINE};

/// Batches on their way at once, over all callers. Each takes a connection.
pub(super) const SENDING: usize = 32;
/// What a message adds to the deadline of its call.
const PER_MESSAGE: Duration = Duration::from_millis(2);

/// Publishes `messages` and answers one by one.
pub(super) async fn publish(
    queues: &Queues,
    sending: &Semaphore,
    messages: &[Message],
) -> Vec<Result<(), BrokerError>> {
    let mut lanes: HashMap<&Lane, Vec<usize>> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        lanes.entry(&message.lane).or_default().push(index);
    }
    let batches =
        lanes.iter().flat_map(|(lane, indices)| indices.chunks(BATCH).map(move |chunk| (*lane, chunk)));
    let sends: Vec<_> = batches
        .map(|(lane, indices)| async move {
            let _permit = sending.acquire().await;
            (indices, send(queues, lane, messages, indices).await)
        })
        .collect();
    let mut sends = stream::iter(sends).buffer_unordered(SENDING);

    let deadline = DEADLINE + PER_MESSAGE.saturating_mul(u32::try_from(messages.len()).unwrap_or(u32::MAX));
    let mut answers: Vec<_> = messages.iter().map(|_| Err(BrokerError::Timeout(deadline))).collect();
    let all = async {
        while let Some((indices, result)) = sends.next().await {
            let found =
                result.unwrap_or_else(|problem| indices.iter().map(|_| Err(problem.clone())).collect());
            for (index, answer) in indices.iter().zip(found) {
                answers[*index] = answer.map_err(BrokerError::from);
            }
        }
    };
    // Those without an answer by then keep the one they have.
    let _ = timeout(deadline, all).await;
    answers
}

async fn send(
    queues: &Queues,
    lane: &Lane,
    messages: &[Message],
    indices: &[usize],
) -> Result<Vec<Result<(), Problem>>, Problem> {
    let fifo = queues.api.address.fifo;
    let entries = indices.iter().enumerate().map(|(place, index)| entry(place, &messages[*index], fifo));
    let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
    let queue = queues.open(lane).await?;
    match queues.api.send(queue.url(), entries.clone()).await {
        Err(Problem::NoQueue) => {
            // Somebody deleted it.
            queues.forget(lane, &queue);
            queues.api.send(queues.open(lane).await?.url(), entries).await
        }
        answer => answer,
    }
}
