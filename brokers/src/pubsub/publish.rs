use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1::PubsubMessage;
use tokio::time::timeout;
use windlass_core::{BrokerError, Lane, Message};

use super::DEADLINE;
use super::lanes::Lanes;
use super::problem::Problem;

/// What Pub/Sub takes in one call.
const GROUP: usize = 1000;
/// What a message adds to the deadline of its batch.
const PER_MESSAGE: Duration = Duration::from_millis(1);

/// Publishes `messages` and answers one by one: in groups, side by side, each taken or refused as a whole.
pub(super) async fn publish(lanes: &Lanes, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
    let mut by_lane: HashMap<&Lane, Vec<usize>> = HashMap::new();
    for (index, message) in messages.iter().enumerate() {
        by_lane.entry(&message.lane).or_default().push(index);
    }
    let deadline = DEADLINE + PER_MESSAGE.saturating_mul(u32::try_from(messages.len()).unwrap_or(u32::MAX));
    let groups =
        by_lane.iter().flat_map(|(lane, indices)| indices.chunks(GROUP).map(move |group| (*lane, group)));
    let groups = groups.map(async |(lane, indices)| {
        let batch = indices.iter().map(|&index| messages[index].encode()).collect();
        (indices, timeout(deadline, publish_group(lanes, lane, batch)).await)
    });
    let mut answers: Vec<Result<(), BrokerError>> = messages.iter().map(|_| Ok(())).collect();
    for (indices, result) in join_all(groups).await {
        for &index in indices {
            answers[index] = match &result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(problem)) => Err(problem.clone().into()),
                Err(_) => Err(BrokerError::Timeout(deadline)),
            };
        }
    }
    answers
}

async fn publish_group(lanes: &Lanes, lane: &Lane, batch: Vec<Vec<u8>>) -> Result<(), Problem> {
    let mut last = Problem::Outage("the lane was never there".into());
    for _ in 0..3 {
        let place = lanes.place(lane).await?;
        let messages =
            batch.iter().map(|data| PubsubMessage { data: data.clone(), ..PubsubMessage::default() });
        match lanes.client.publish(lanes.client.address.topic(lane), messages.collect()).await {
            Err(problem @ Problem::NotFound(_)) => {
                // Somebody deleted it since it was last seen.
                lanes.lost(lane, place.epoch);
                last = problem;
            }
            answer => return answer,
        }
    }
    Err(last)
}
