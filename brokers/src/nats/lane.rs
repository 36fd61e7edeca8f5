//! Lanes as subjects of one stream, with a consumer each.

use std::time::Duration;

use futures::future::try_join_all;
use serde_json::{Value, json};
use windlass_core::Lane;

use super::api::{CONSUMER_NOT_FOUND, STREAM_NAME_TAKEN, STREAM_NOT_FOUND, ask};
use super::link::Link;
use super::problem::Problem;

const STREAM: &str = "windlass";
const SUBJECTS: &str = "windlass.>";
/// How long a message may be held without a word.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// Workers that may wait for messages of one lane.
const WAITING: u32 = 65_536;

/// The subject of `lane`: dots separate the parts of a subject.
pub(super) fn subject(lane: &Lane) -> String {
    format!("windlass.{}.{}", lane.queue.as_str().replace('.', "="), lane.priority as u8)
}

/// Where to ask for messages of `lane`.
pub(super) fn next_subject(lane: &Lane) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{}", consumer(lane))
}

fn consumer(lane: &Lane) -> String {
    format!("{}-{}", lane.queue.as_str().replace('.', "="), lane.priority as u8)
}

/// Sees to it that `lanes` exist, and answers when the stream was created: what tells it from another of its name.
pub(super) async fn create(link: &Link, lanes: impl Iterator<Item = &Lane>) -> Result<String, Problem> {
    let about = async || ask(link, &format!("STREAM.INFO.{STREAM}"), &Value::Null).await;
    let mut info = about().await;
    if info.as_ref().is_err_and(|error| error.is(STREAM_NOT_FOUND)) {
        create_stream(link).await?;
        info = about().await;
    }
    let info = info.map_err(|error| error.concerning(link, "the stream windlass"))?;
    check(&info["config"])?;
    try_join_all(lanes.map(|lane| create_consumer(link, lane))).await?;
    Ok(info["created"].to_string())
}

/// Sees to it that the stream exists.
pub(super) async fn create_stream(link: &Link) -> Result<(), Problem> {
    let stream = json!({
        "name": STREAM,
        "subjects": [SUBJECTS],
        "retention": "workqueue",
        "storage": "file",
        "num_replicas": 1,
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        // Should someone set a limit: no message that was confirmed may go for it.
        "discard": "new",
    });
    match ask(link, &format!("STREAM.CREATE.{STREAM}"), &stream).await {
        // Somebody was faster, and asked for more replicas.
        Err(error) if error.is(STREAM_NAME_TAKEN) => Ok(()),
        created => created.map(drop).map_err(|error| error.concerning(link, "the stream windlass")),
    }
}

/// Refuses a stream that somebody made otherwise than we need it.
fn check(config: &Value) -> Result<(), Problem> {
    let subjects = config["subjects"].as_array().is_some_and(|all| all.iter().any(|one| one == SUBJECTS));
    if subjects && config["retention"] == "workqueue" && config["storage"] == "file" {
        return Ok(());
    }
    Err(Problem::Config {
        problem: "broker_url: the stream windlass exists there with settings other than Windlass needs".into(),
        remedy: "delete that stream (unfinished jobs are published again), give it the subjects windlass.>, work-queue \
                 retention and file storage, or use another account"
            .into(),
    })
}

async fn create_consumer(link: &Link, lane: &Lane) -> Result<(), Problem> {
    let name = consumer(lane);
    let consumer = json!({
        "stream_name": STREAM,
        "config": {
            "durable_name": name,
            "filter_subject": subject(lane),
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": ACK_WAIT.as_nanos() as u64,
            // Limits of all workers together: what each may hold is its own affair.
            "max_ack_pending": -1,
            "max_deliver": -1,
            "max_waiting": WAITING,
        },
    });
    let created = ask(link, &format!("CONSUMER.DURABLE.CREATE.{STREAM}.{name}"), &consumer).await;
    created.map(drop).map_err(|error| error.concerning(link, &format!("the consumer {name}")))
}

/// How many messages wait in `lane`.
pub(super) async fn depth(link: &Link, lane: &Lane) -> Result<u64, Problem> {
    let about = "the depth of a lane";
    match ask(link, &format!("CONSUMER.INFO.{STREAM}.{}", consumer(lane)), &Value::Null).await {
        Ok(info) => return Ok(info["num_pending"].as_u64().unwrap_or_default()),
        Err(error) if error.is(STREAM_NOT_FOUND) => return Ok(0),
        Err(error) if error.is(CONSUMER_NOT_FOUND) => {}
        Err(error) => return Err(error.concerning(link, about)),
    }
    // Nobody ever took from it: all that is there waits.
    let filter = json!({ "subjects_filter": subject(lane) });
    match ask(link, &format!("STREAM.INFO.{STREAM}"), &filter).await {
        Ok(info) => Ok(info["state"]["subjects"][subject(lane)].as_u64().unwrap_or_default()),
        Err(error) if error.is(STREAM_NOT_FOUND) => Ok(0),
        Err(error) => Err(error.concerning(link, about)),
    }
}

pub(super) async fn delete(link: &Link, lane: &Lane) -> Result<(), Problem> {
    let consumer = ask(link, &format!("CONSUMER.DELETE.{STREAM}.{}", consumer(lane)), &Value::Null).await;
    let purge = ask(link, &format!("STREAM.PURGE.{STREAM}"), &json!({ "filter": subject(lane) })).await;
    for deleted in [consumer, purge] {
        match deleted {
            Err(error) if !error.is(CONSUMER_NOT_FOUND) && !error.is(STREAM_NOT_FOUND) => {
                return Err(error.concerning(link, "to delete a lane"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether JetStream answers.
pub(super) async fn ping(link: &Link) -> Result<(), Problem> {
    match ask(link, &format!("STREAM.INFO.{STREAM}"), &Value::Null).await {
        Err(error) if !error.is(STREAM_NOT_FOUND) => Err(error.concerning(link, "the stream windlass")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_fit_for_subjects_and_stay_apart() {
        let lane =
            |queue: &str| Lane { queue: queue.parse().unwrap(), priority: windlass_core::Priority::Normal };
        assert_eq!(subject(&lane("mail")), "windlass.mail.1");
        assert_eq!(subject(&lane("a..b-1_x.")), "windlass.a==b-1_x=.1");
        assert_eq!(consumer(&lane("a.b")), "a=b-1");
        assert_ne!(consumer(&lane("a.b")), consumer(&lane("a-b")));
    }
}
