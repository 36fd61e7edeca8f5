//! Messages that nobody should have sent: repeated, stale, of nobody's job, and no messages at all.

use std::sync::Arc;

use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;
use windlass::{
    JobId, Kind as JobKind, Priority,
    driver::{self, Lane, Message},
};

use crate::{
    Failure,
    cluster::{Cluster, SCHEMA},
    history::QUEUE,
    jobs::WORK,
};

/// How many jobs have their messages repeated at a time.
const REPEATED: i64 = 150;

fn lane(rng: &mut fastrand::Rng) -> Result<Lane, Failure> {
    let priorities = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
    // Jobs are of normal priority, so this is where workers look most.
    let priority =
        if rng.u32(..4) > 0 { Priority::Normal } else { priorities[rng.usize(..priorities.len())] };
    Ok(Lane { queue: QUEUE.parse()?, priority })
}

fn message(rng: &mut fastrand::Rng, job: JobId, kind: &str) -> Result<Message, Failure> {
    let kind: JobKind = kind.parse()?;
    Ok(Message {
        job_id: job,
        attempt: rng.u32(0..4),
        lane: lane(rng)?,
        kind,
        trace: None,
        ordering_key: None,
    })
}

/// Repeats the messages of jobs of any age and state, in another order, with any attempt's number.
pub(super) async fn duplicates(cluster: &Cluster, rng: &mut fastrand::Rng) -> Result<usize, Failure> {
    let statement = format!(
        "(SELECT id, kind FROM {SCHEMA}.jobs ORDER BY id DESC LIMIT $1) UNION \
         (SELECT id, kind FROM {SCHEMA}.jobs ORDER BY id LIMIT $1)"
    );
    let rows = sqlx::query(AssertSqlSafe(statement)).bind(REPEATED / 2).fetch_all(&cluster.pool).await?;
    let mut messages = Vec::new();
    for row in rows {
        let (id, kind): (Uuid, String) = (row.try_get(0)?, row.try_get(1)?);
        for _ in 0..rng.usize(1..4) {
            messages.push(message(rng, id.into(), &kind)?);
        }
    }
    rng.shuffle(&mut messages);
    publish(cluster, &messages).await
}

/// Messages of jobs that do not exist, and, by the client library of this kind of broker, bytes that are no messages.
pub(super) async fn garbage(
    cluster: &Cluster,
    kind: Option<&str>,
    rng: &mut fastrand::Rng,
) -> Result<usize, Failure> {
    let mut messages = Vec::new();
    for _ in 0..20 {
        messages.push(message(rng, Uuid::new_v4().into(), WORK)?);
    }
    let mut sent = publish(cluster, &messages).await?;
    let whole = messages[0].encode();
    let mut newer = whole.clone();
    newer[0] = 99;
    let noise: Vec<u8> = (0..rng.usize(1..400)).map(|_| rng.u8(..)).collect();
    let lane = Lane { queue: QUEUE.parse()?, priority: Priority::Normal };
    for bytes in [b"x".to_vec(), whole[..whole.len() / 2].to_vec(), newer, noise] {
        sent += usize::from(raw(cluster, kind, &lane, bytes).await?);
    }
    Ok(sent)
}

async fn publish(cluster: &Cluster, messages: &[Message]) -> Result<usize, Failure> {
    let broker: Arc<dyn driver::Broker> = driver::open_broker(&cluster.publish_url()).await?;
    let confirmed = broker.publish(messages).await.into_iter().filter(Result::is_ok).count();
    broker.close().await;
    Ok(confirmed)
}

/// Publishes bytes past the driver. `false`: not to this kind of broker.
async fn raw(cluster: &Cluster, kind: Option<&str>, lane: &Lane, bytes: Vec<u8>) -> Result<bool, Failure> {
    let Some(server) = kind else { return Ok(false) };
    let (url, name) = (cluster.publish_url(), lane.to_string());
    match server {
        "rabbitmq" => {
            let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            channel.confirm_select(lapin::options::ConfirmSelectOptions::default()).await?;
            let options = lapin::options::BasicPublishOptions::default();
            let properties = lapin::BasicProperties::default();
            channel.basic_publish("".into(), name.into(), options, &bytes, properties).await?.await?;
            connection.close(200, "done".into()).await?;
        }
        "redis" => {
            let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
            redis::cmd("XADD").arg(name).arg("*").arg("m").arg(bytes).exec_async(&mut connection).await?;
        }
        "nats" => {
            let client =
                async_nats::ConnectOptions::new().user_and_password("windlass".into(), "windlass".into());
            let client = client.connect(format!("nats://{}", crate::cluster::address(&url)?)).await?;
            client.request(name, bytes.into()).await?;
        }
        "kafka" => {
            use rdkafka::producer::{FutureProducer, FutureRecord};
            let producer: FutureProducer = rdkafka::ClientConfig::new()
                .set("bootstrap.servers", crate::cluster::address(&url)?.to_string())
                .set("security.protocol", "sasl_plaintext")
                .set("sasl.mechanism", "PLAIN")
                .set("sasl.username", "windlass")
                .set("sasl.password", "windlass")
                .set("message.timeout.ms", "5000")
                .create()?;
            let record = FutureRecord::<[u8], [u8]>::to(&name).payload(&bytes);
            producer.send(record, std::time::Duration::from_secs(5)).await.map_err(|(error, _)| error)?;
        }
        "sqs" => {
            let endpoint = format!("http://{}", crate::cluster::address(&url)?);
            let queue = format!("{endpoint}/000000000000/windlass-{QUEUE}-{}", lane.priority as u8);
            let body = String::from_utf8_lossy(&bytes).replace(|letter: char| letter.is_control(), "?");
            let answer = reqwest::Client::new()
                .post(endpoint)
                .header("content-type", "application/x-amz-json-1.0")
                .header("x-amz-target", "AmazonSQS.SendMessage")
                .body(json!({"QueueUrl": queue, "MessageBody": body}).to_string())
                .send()
                .await?;
            return Ok(answer.status().is_success());
        }
        _ => return Ok(false),
    }
    Ok(true)
}
