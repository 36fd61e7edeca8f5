//! NATS killed, wiped, restarted, and set up in ways that cannot work, each time a server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;
#[path = "support/server.rs"]
mod server;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions};
use checks::{goes_on_after, suffices, takes_again};
use server::OwnServer;
use windlass_brokers::conformance::{Order, Server, distinct, messages, until, within};
use windlass_core::{BrokerError, Lane, Priorities, Priority};

windlass_brokers::broker_outage_conformance!(OwnServer::start("nats", &[]).await);

fn lane() -> Lane {
    Lane { queue: "restart".parse().unwrap(), priority: Priority::Normal }
}

async fn raw(server: &OwnServer) -> Client {
    let url: url::Url = server.url.parse().unwrap();
    ConnectOptions::new()
        .user_and_password(url.username().into(), url.password().unwrap().into())
        .connect(format!("nats://127.0.0.1:{}", url.port().unwrap()))
        .await
        .unwrap()
}

/// The server's URL for another of its users.
fn user(server: &OwnServer, name: &str) -> String {
    let mut url: url::Url = server.url.parse().unwrap();
    url.set_username(name).unwrap();
    url.into()
}

async fn ask(client: &Client, subject: &str, question: &str) -> String {
    let answer = client.request(subject.to_owned(), question.to_owned().into()).await.unwrap();
    String::from_utf8(answer.payload.to_vec()).unwrap()
}

async fn refuses(url: &str) -> Vec<String> {
    let broker = windlass_brokers::open(url).await.unwrap();
    let mut errors = Vec::new();
    let start = Instant::now();
    let publish = broker.publish(&messages(&lane(), 1)).await.remove(0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let start = Instant::now();
    let subscribe = broker.subscribe(&[lane()], 1, Priorities::Weighted).await.map(drop);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for result in [publish, subscribe] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("broker_url"), "{error}");
        errors.push(error.to_string());
    }
    broker.close().await;
    errors
}

/// Users without rights, and accounts without JetStream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_are_for_the_operator() {
    let server = OwnServer::start("nats", &[]).await;
    for error in refuses(&user(&server, "powerless")).await {
        assert!(error.contains("lacks a right") && error.contains("let the user publish to"), "{error}");
    }
    assert!(refuses(&user(&server, "plain")).await[0].contains("has no JetStream"));
}

/// What the documentation asks for is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_suffice() {
    let server = OwnServer::start("nats", &[]).await;
    suffices(&user(&server, "enough"), lane()).await;
}

/// A stream that somebody made otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_with_other_settings_is_for_the_operator() {
    let server = OwnServer::start("nats", &[]).await;
    let raw = raw(&server).await;
    let stream = r#"{"name":"windlass","subjects":["windlass.>"],"retention":"limits","storage":"file"}"#;
    assert!(!ask(&raw, "$JS.API.STREAM.CREATE.windlass", stream).await.contains("error"));
    let broker = server.client().await;
    let error = broker.subscribe(&[lane()], 1, Priorities::Weighted).await.unwrap_err();
    assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("settings other than"), "{error}");

    ask(&raw, "$JS.API.STREAM.DELETE.windlass", "").await;
    let stream =
        r#"{"name":"theirs","subjects":["windlass.restart.*"],"retention":"limits","storage":"file"}"#;
    assert!(!ask(&raw, "$JS.API.STREAM.CREATE.theirs", stream).await.contains("error"));
    let error = broker.subscribe(&[lane()], 1, Priorities::Weighted).await.unwrap_err();
    assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
    assert!(error.to_string().contains("overlap"), "{error}");
    broker.close().await;
}

/// A stream that is deleted, or emptied, under the hands of those who use it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_in_use() {
    let server = OwnServer::start("nats", &[]).await;
    let raw = raw(&server).await;
    let broker = server.client().await;
    let wipe = async || drop(ask(&raw, "$JS.API.STREAM.DELETE.windlass", "").await);
    goes_on_after(wipe, &*broker, &lane()).await;
    broker.close().await;
}

/// A full stream takes no messages for a while. What is there is still delivered and acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_stream_is_waited_for() {
    let server = OwnServer::start("nats", &[]).await;
    let raw = raw(&server).await;
    let stream = r#"{"name":"windlass","subjects":["windlass.>"],"retention":"workqueue","storage":"file","max_msgs":5,
                     "discard":"new"}"#;
    assert!(!ask(&raw, "$JS.API.STREAM.CREATE.windlass", stream).await.contains("error"));
    let broker = server.client().await;
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await.unwrap();
    let answers = broker.publish(&messages(&lane(), 7)).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 5);
    assert!(answers.iter().filter_map(|answer| answer.as_ref().err()).all(BrokerError::retryable));
    let found = within("a message", subscription.receive(1)).await.unwrap();
    subscription.ack(&[found[0].tag]).await.unwrap();
    takes_again(&*broker, &lane()).await;
    broker.close().await;
}

/// A new server numbers its messages from 1 again: what was held from the old one must not settle them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_from_before_a_wipe_settle_nothing() {
    let server = OwnServer::start("nats", &[]).await;
    let (old, new) = (server.client().await, server.client().await);
    let mut before = within("subscribe", old.subscribe(&[lane()], 1, Priorities::Weighted)).await.unwrap();
    takes_again(&*old, &lane()).await;
    let held = within("a message", before.receive(1)).await.unwrap();
    server.order(Order::Stop).await;
    server.order(Order::Wipe).await;
    server.order(Order::Start).await;
    takes_again(&*new, &lane()).await;
    let mut after = within("subscribe", new.subscribe(&[lane()], 1, Priorities::Weighted)).await.unwrap();
    within("the new message", after.receive(1)).await.unwrap();
    until("the connection", async || old.ping().await.is_ok()).await;
    before.ack(&[held[0].tag]).await.unwrap();
    // Done in turn, so the acknowledgement has had its effect, if any.
    before.park().await.unwrap();
    let info = ask(&raw(&server).await, "$JS.API.STREAM.INFO.windlass", "").await;
    assert!(info.contains("\"messages\":1,"), "the new message is gone: {info}");
    old.close().await;
    new.close().await;
}

/// Held messages can be settled after the server was killed, and what was on its way comes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_survives_a_kill() {
    let server = OwnServer::start("nats", &[]).await;
    let broker = server.client().await;
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await.unwrap();
    let sent = messages(&lane(), 20);
    for answer in broker.publish(&sent).await {
        answer.unwrap();
    }
    let held = within("messages", subscription.receive(7)).await.unwrap();
    server.order(Order::Kill).await;
    server.order(Order::Start).await;
    let tags: Vec<_> = held.iter().map(|delivery| delivery.tag).collect();
    let mut found: HashSet<_> = distinct(held.iter().map(|delivery| &delivery.message));
    until("the connection", async || broker.ping().await.is_ok()).await;
    subscription.ack(&tags).await.unwrap();
    while found.len() < 20 {
        if let Ok(deliveries) = within("the rest", subscription.receive(10)).await {
            let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
            subscription.ack(&tags).await.unwrap();
            found.extend(distinct(deliveries.iter().map(|delivery| &delivery.message)));
        }
    }
    assert_eq!(found, distinct(&sent));
    broker.close().await;
}
