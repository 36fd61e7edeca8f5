//! Lanes as queues: durable quorum queues under the lane's name.

use lapin::Channel;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use windlass_core::Lane;

use super::link::Link;
use super::problem::{NOT_FOUND, PRECONDITION_FAILED, Problem, code};

/// A quorum queue drops a message that was given back this often, and from RabbitMQ 4.0 on the default is 20:
/// full workers that release would lose jobs' messages. "Unlimited" is spelt -1 there, which 3.x refuses; this
/// number is the same in effect, is understood by both, and stays equal across an upgrade of the server.
const DELIVERY_LIMIT: i32 = i32::MAX;

/// Sees to it that `lane` exists, asking the broker once per connection.
pub(super) async fn declare(link: &Link, channel: &Channel, lane: &Lane) -> Result<(), Problem> {
    if link.declared().contains(lane) {
        return Ok(());
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(DELIVERY_LIMIT));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(lane.to_string().into(), options, arguments).await;
    declared.map_err(|error| refusal(error, lane))?;
    link.declared().insert(lane.clone());
    Ok(())
}

/// How many messages wait in `lane`.
pub(super) async fn depth(link: &Link, lane: &Lane) -> Result<u64, Problem> {
    // A channel of its own, because the broker closes it when there is no such queue.
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(lane.to_string().into(), options, FieldTable::default()).await {
        Ok(queue) => Ok(u64::from(queue.message_count())),
        Err(error) if code(&error) == Some(NOT_FOUND) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn delete(link: &Link, lanes: &[Lane]) -> Result<(), Problem> {
    let channel = link.channel().await?;
    for lane in lanes {
        link.declared().remove(lane);
        channel.queue_delete(lane.to_string().into(), QueueDeleteOptions::default()).await?;
    }
    Ok(())
}

fn refusal(error: lapin::Error, lane: &Lane) -> Problem {
    if code(&error) == Some(PRECONDITION_FAILED) {
        return Problem::Config {
            problem: format!(
                "broker_url: the queue {lane} exists there with settings other than a Windlass lane's"
            ),
            remedy: "delete that queue (unfinished jobs are published again) or use another virtual host"
                .into(),
        };
    }
    error.into()
}
