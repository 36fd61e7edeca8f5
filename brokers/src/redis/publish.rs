use std::time::Duration;

use redis::{RedisError, Value};
use windlass_core::{BrokerError, Message};

use super::DEADLINE;
use super::entry::FIELD;
use super::link::Link;
use super::problem::Problem;

/// What a message adds to the deadline of its batch; a broker that works takes a tenth of it.
const PER_MESSAGE: Duration = Duration::from_millis(1);

/// Publishes `messages` and answers one by one. A stream comes into being with its first entry.
pub(super) async fn publish(link: &Link, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
    if messages.is_empty() {
        return Vec::new();
    }
    let mut batch = redis::Pipeline::with_capacity(messages.len());
    for message in messages {
        batch.cmd("XADD").arg(message.lane.to_string()).arg("*").arg(FIELD).arg(message.encode());
    }
    let deadline = DEADLINE + PER_MESSAGE.saturating_mul(u32::try_from(messages.len()).unwrap_or(u32::MAX));
    let count = messages.len();
    let send = |mut redis: redis::aio::MultiplexedConnection| async move {
        redis.send_packed_commands(&batch, 0, count).await
    };
    match link.run_within(deadline, send).await {
        Ok(answers) => {
            if answers
                .iter()
                .any(|value| matches!(value, Value::ServerError(error) if error.code() == "READONLY"))
            {
                // It has become a replica, and stays one; the address may lead to the new primary.
                link.disconnect();
            }
            answers.into_iter().map(answer).collect()
        }
        Err(problem) => messages.iter().map(|_| Err(problem.clone().into())).collect(),
    }
}

fn answer(value: Value) -> Result<(), BrokerError> {
    match value {
        Value::ServerError(error) => match Problem::from(RedisError::from(error)) {
            Problem::Outage(text) => Err(BrokerError::Refused(text)),
            problem => Err(problem.into()),
        },
        _ => Ok(()),
    }
}
