use std::time::Duration;

use async_nats::Client;
use futures::future::join_all;
use windlass_core::Message;

use super::DEADLINE;
use super::api::{ApiError, read, request, unanswered};
use super::lane::{create_stream, subject};
use super::link::Link;
use super::problem::Problem;

/// Messages of one batch on their way at once. Enough to keep any server busy, and below what it takes before it
/// refuses.
const WINDOW: usize = 1_000;
/// What a message adds to the deadline of its batch; a broker that works takes a tenth of it.
const PER_MESSAGE: Duration = Duration::from_millis(1);

/// Publishes `messages` and answers one by one.
pub(super) async fn publish(link: &Link, messages: &[Message]) -> Vec<Result<(), Problem>> {
    let messages: Vec<_> =
        messages.iter().map(|message| (subject(&message.lane), message.encode())).collect();
    publish_raw(link, &messages).await
}

/// Publishes payloads to subjects.
pub(super) async fn publish_raw(link: &Link, messages: &[(String, Vec<u8>)]) -> Vec<Result<(), Problem>> {
    let mut answers = Vec::with_capacity(messages.len());
    for window in messages.chunks(WINDOW) {
        let mut sent = send(link, window).await;
        if matches!(sent.first(), Some(Ok(None))) {
            // Nothing listens to the subject: there is no stream.
            sent = match create_stream(link).await {
                Ok(()) => send(link, window).await,
                Err(problem) => window.iter().map(|_| Err(problem.clone())).collect(),
            };
        }
        for answer in sent {
            answers.push(match answer {
                Ok(Some(answer)) => taken(link, &answer),
                Ok(None) => Err(unanswered(link).await),
                Err(problem) => Err(problem),
            });
        }
        if matches!(answers.last(), Some(Err(Problem::Outage(_) | Problem::Timeout(_)))) {
            // The rest would only wait for the same.
            break;
        }
    }
    let problem = answers.last().and_then(|last| last.clone().err());
    let missed = || Err(problem.clone().unwrap_or(Problem::Timeout(DEADLINE)));
    answers.resize_with(messages.len(), missed);
    answers
}

async fn send(link: &Link, window: &[(String, Vec<u8>)]) -> Vec<Result<Option<Vec<u8>>, Problem>> {
    let deadline = DEADLINE + PER_MESSAGE.saturating_mul(window.len() as u32);
    let send = |client: Client| async move {
        let requests =
            window.iter().map(|(subject, payload)| request(&client, subject.clone(), payload.clone()));
        Ok(join_all(requests).await)
    };
    match link.run_within(deadline, send).await {
        Ok(answers) => answers,
        Err(problem) => window.iter().map(|_| Err(problem.clone())).collect(),
    }
}

fn taken(link: &Link, answer: &[u8]) -> Result<(), Problem> {
    match read(answer) {
        Ok(_) => Ok(()),
        Err(error) => match error {
            // A limit of the stream or the account; it may pass as messages are taken.
            ApiError::Refused { status, text, .. } if status >= 500 => Err(Problem::Refused(text)),
            error => Err(error.concerning(link, "a message")),
        },
    }
}
