//! Jobs that come as a stream: they leave in groups, as requests for batches.

use axum::http::Method;
use futures::{FutureExt as _, Stream, StreamExt as _, stream::Fuse};
use prost::Message as _;
use serde::Deserialize;
use tokio::time::timeout;
use tonic::Status;
use windlass_proto::v1::{self, EnqueueOutcome, EnqueueStreamRequest};

use super::{
    call::{Caller, Gateway, read, whole},
    refusal::document,
};
use crate::problem::Problem;

/// The most messages of one stream, whose outcomes are all kept until it ends. A client takes an answer of 4 MiB.
const MOST: usize = 50_000;
/// How many messages make a group, and how many bytes: what is larger waits until the group before it is stored.
const GROUP: usize = 500;
pub(super) const GROUP_BYTES: usize = 256 * 1024;

/// Accepts what comes, with an outcome for each message.
///
/// What has come together leaves together, and nothing waits for company. When a group is refused as a whole, each of its
/// messages is; unless it is the first, of which the call as a whole then fails, since nothing has been stored.
pub(super) async fn enqueue(
    gateway: &Gateway,
    caller: &Caller,
    messages: impl Stream<Item = Result<EnqueueStreamRequest, Status>> + Unpin,
) -> Result<Vec<EnqueueOutcome>, Status> {
    let mut messages = messages.fuse();
    let mut outcomes = Vec::new();
    loop {
        let group = gather(gateway, &mut messages).await?;
        if group.is_empty() {
            return Ok(outcomes);
        }
        if outcomes.len() + group.len() > MOST {
            return Err(Status::resource_exhausted(format!(
                "the stream has more than {MOST} messages, of which the first {} have been answered for; end it earlier, \
                 and begin another; give each message an idempotency_key to repeat it",
                outcomes.len()
            )));
        }
        outcomes.extend(send(gateway, caller, &group, outcomes.is_empty()).await?);
    }
}

/// The messages that are there, once there is one; none at the end.
async fn gather(
    gateway: &Gateway,
    messages: &mut Fuse<impl Stream<Item = Result<EnqueueStreamRequest, Status>> + Unpin>,
) -> Result<Vec<EnqueueStreamRequest>, Status> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    let mut next = timeout(gateway.patience, messages.next()).await.map_err(|_| {
        Status::deadline_exceeded(
            "no message came for too long, and what has come is stored; end the stream when there is nothing to send",
        )
    })?;
    while let Some(message) = next.transpose()? {
        bytes += message.encoded_len();
        group.push(message);
        if group.len() >= GROUP || bytes >= GROUP_BYTES {
            break;
        }
        // What is not there yet is asked for again.
        next = messages.next().now_or_never().flatten();
    }
    Ok(group)
}

#[derive(Deserialize)]
struct Batch {
    jobs: Vec<EnqueueOutcome>,
}

async fn send(
    gateway: &Gateway,
    caller: &Caller,
    group: &[EnqueueStreamRequest],
    is_first: bool,
) -> Result<Vec<EnqueueOutcome>, Status> {
    let (mut items, mut outcomes) = (Vec::new(), Vec::with_capacity(group.len()));
    for message in group {
        let written = match &message.job {
            Some(_) => serde_json::to_string(message).map_err(|error| Problem::malformed(error.to_string())),
            None => Err(Problem::malformed("the message has no job")),
        };
        // Those that are sent have their outcome put here afterwards.
        outcomes.push(match written {
            Ok(item) => {
                items.push(item);
                None
            }
            Err(problem) => Some(refused(document(&problem))),
        });
    }
    let mut answered = Vec::new();
    if !items.is_empty() {
        let body = format!("{{\"jobs\":[{}]}}", items.join(","));
        match gateway.send(caller, Method::POST, "/v1/jobs/batch", Some(body)).await {
            Ok(response) => answered = read::<Batch>(&whole(response.into_body()).await?)?.jobs,
            Err(refusal) if is_first => return Err(Status::from(*refusal)),
            Err(refusal) => answered = vec![refused(refusal.problem); items.len()],
        }
    }
    let mut answered = answered.into_iter();
    let outcomes = outcomes.into_iter().map(|outcome| outcome.or_else(|| answered.next()));
    outcomes.collect::<Option<Vec<_>>>().ok_or_else(|| {
        tracing::error!("a batch was answered with fewer outcomes than it has jobs");
        super::call::refused(&Problem::internal())
    })
}

fn refused(problem: v1::Problem) -> EnqueueOutcome {
    EnqueueOutcome { error: Some(problem), ..EnqueueOutcome::default() }
}
