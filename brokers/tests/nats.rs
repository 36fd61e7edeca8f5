//! NATS through the conformance suite, and what only NATS can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use async_trait::async_trait;
use checks::{fails_soon, receive, refuses};
use futures::StreamExt;
use serde_json::Value;
use windlass_brokers::conformance::{Case, Fixture, messages, until, within};
use windlass_core::{Broker, JobId, Lane, Priorities, Priority};

struct Nats;

fn url() -> String {
    std::env::var("WINDLASS_TEST_NATS_URL")
        .expect("WINDLASS_TEST_NATS_URL is not set: run scripts/test, which starts the servers")
}

/// A connection past the driver.
async fn raw() -> Client {
    let url: url::Url = url().parse().unwrap();
    ConnectOptions::new()
        .user_and_password(url.username().into(), url.password().unwrap().into())
        .connect(format!("nats://127.0.0.1:{}", url.port().unwrap()))
        .await
        .unwrap()
}

async fn ask(client: &Client, subject: String, question: &str) -> Value {
    let answer = client.request(subject, question.to_owned().into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

#[async_trait]
impl Fixture for Nats {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let answer = raw().await.request(lane.to_string(), bytes.to_vec().into()).await.unwrap();
        assert!(String::from_utf8_lossy(&answer.payload).contains("seq"));
        true
    }
}

windlass_brokers::broker_conformance!(Nats);

#[tokio::test]
async fn wrong_credentials_are_for_the_operator() {
    let mut url: url::Url = url().parse().unwrap();
    url.set_password(Some("s3cret")).unwrap();
    assert!(refuses(url.as_str()).await[0].contains("refused the login of user \"windlass\""));
    url.set_password(None).unwrap();
    url.set_username("s3cret").unwrap();
    assert!(refuses(url.as_str()).await[0].contains("with the token"));
    url.set_username("").unwrap();
    assert!(refuses(url.as_str()).await[0].contains("without a user"));
}

#[tokio::test]
async fn a_server_of_another_kind_is_for_the_operator() {
    // It answers anything the way a mail server does. The thread ends with the process.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let _ = socket.write_all(b"220 mail.example ESMTP\r\n");
            let _ = socket.read(&mut [0; 1024]);
        }
    });
    refuses(&format!("nats://user:s3cret@{address}")).await;
}

#[tokio::test]
async fn a_broker_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails_soon(&format!("nats://{unused}"), Duration::from_secs(5)).await;
}

/// A host that takes connections and says nothing.
#[tokio::test]
async fn a_silent_broker_fails_calls_soon_but_not_the_opening() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fails_soon(&format!("nats://{}", silent.local_addr().unwrap()), Duration::from_secs(30)).await;
}

/// Dots in the names of queues mean something in subjects, and are not allowed in the names of consumers.
#[tokio::test]
async fn queues_with_dots_stay_apart() {
    let broker = windlass_brokers::open(&url()).await.unwrap();
    let id = JobId::new();
    let lanes: Vec<Lane> = [format!("{id}.a"), format!("{id}..a."), format!("{id}-a")]
        .into_iter()
        .map(|queue| Lane { queue: queue.parse().unwrap(), priority: Priority::Normal })
        .collect();
    for (count, lane) in lanes.iter().enumerate() {
        for answer in broker.publish(&messages(lane, count + 1)).await {
            answer.unwrap();
        }
    }
    for (count, lane) in lanes.iter().enumerate() {
        assert_eq!(broker.depth(lane).await.unwrap(), Some(count as u64 + 1), "{lane}");
        let mut subscription =
            broker.subscribe(std::slice::from_ref(lane), 10, Priorities::Weighted).await.unwrap();
        let found = receive(&mut *subscription, count + 1).await;
        assert!(found.iter().all(|delivery| delivery.message.lane == *lane));
    }
    broker.delete(&lanes).await.unwrap();
    broker.close().await;
}

/// A worker that keeps a message says so to the server, and settling it deletes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_spoken_for() {
    Case::run(&Nats, async |case: Case<'_>| {
        let lane = case.lane();
        let raw = raw().await;
        let mut words = raw.subscribe(format!("$JS.ACK.windlass.{}-1.>", case.queue)).await.unwrap();
        let mut subscription = case.subscribe(10).await;
        case.publish(1).await;
        let held = receive(&mut *subscription, 1).await;
        let word = within("word of the message", words.next()).await.unwrap();
        assert_eq!(&word.payload[..], b"+WPI");
        subscription.ack(&[held[0].tag]).await.unwrap();
        until("the message to be deleted", async || {
            let question = format!("{{\"subjects_filter\":\"{lane}\"}}");
            let info = ask(&raw, "$JS.API.STREAM.INFO.windlass".into(), &question).await;
            info["state"]["subjects"][lane.to_string()].is_null()
        })
        .await;
    })
    .await;
}

/// A consumer deleted by somebody while nobody was looking is made again.
#[tokio::test]
async fn a_deleted_consumer_is_made_again() {
    Case::run(&Nats, async |case: Case<'_>| {
        let mut subscription = case.subscribe(10).await;
        case.publish(1).await;
        let found = receive(&mut *subscription, 1).await;
        subscription.ack(&[found[0].tag]).await.unwrap();
        let consumer = format!("$JS.API.CONSUMER.DELETE.windlass.{}-1", case.queue);
        assert_eq!(ask(&raw().await, consumer, "").await["success"], true);
        case.publish(2).await;
        receive(&mut *subscription, 2).await;
    })
    .await;
}
