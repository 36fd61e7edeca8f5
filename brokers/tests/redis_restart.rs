//! Redis killed, wiped, restarted, demoted, busy and short of memory under a running process, each time a server of
//! the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;
#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use checks::{goes_on_after, takes_again};
use redis::aio::MultiplexedConnection;
use server::OwnServer;
use windlass_brokers::conformance::{Order, Server, distinct, messages, until, within};
use windlass_core::{Broker, Lane, Priorities, Priority};

windlass_brokers::broker_outage_conformance!(OwnServer::start("redis", &[]).await);

fn lane() -> Lane {
    Lane { queue: "restart".parse().unwrap(), priority: Priority::Normal }
}

async fn tell(redis: &mut MultiplexedConnection, words: &[&str]) {
    redis::cmd(words[0]).arg(&words[1..]).exec_async(redis).await.unwrap();
}

async fn raw(server: &OwnServer) -> MultiplexedConnection {
    redis::Client::open(server.url.as_str()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Everything fails soon and can be tried again.
async fn refuses(broker: &dyn Broker) {
    let start = Instant::now();
    for answer in broker.publish(&messages(&lane(), 3)).await {
        let error = answer.unwrap_err();
        assert!(error.retryable(), "{error:?}");
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
}

/// A server short of memory, or made a replica, takes no messages for a while. What is there is still delivered and
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_writes_is_waited_for() {
    let server = OwnServer::start("redis", &[]).await;
    let mut raw = raw(&server).await;
    let broker = server.client().await;
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 50, Priorities::Weighted)).await.unwrap();
    takes_again(&*broker, &lane()).await;

    tell(&mut raw, &["CONFIG", "SET", "maxmemory", "1"]).await;
    refuses(&*broker).await;
    let found = within("the message", subscription.receive(10)).await.unwrap();
    subscription.ack(&[found[0].tag]).await.unwrap();
    until("the lane to be empty", async || {
        redis::cmd("XLEN").arg(lane().to_string()).query_async::<u64>(&mut raw).await.unwrap() == 0
    })
    .await;
    tell(&mut raw, &["CONFIG", "SET", "maxmemory", "0"]).await;
    takes_again(&*broker, &lane()).await;

    tell(&mut raw, &["REPLICAOF", "127.0.0.1", "1"]).await;
    refuses(&*broker).await;
    tell(&mut raw, &["REPLICAOF", "NO", "ONE"]).await;
    takes_again(&*broker, &lane()).await;
    broker.close().await;
}

/// A server that hangs, or runs somebody's endless script.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_is_waited_for() {
    let server = OwnServer::start("redis", &[]).await;
    let mut raw_redis = raw(&server).await;
    let mut other = raw(&server).await;
    let broker = server.client().await;
    takes_again(&*broker, &lane()).await;
    tell(&mut raw_redis, &["CONFIG", "SET", "busy-reply-threshold", "100"]).await;
    let script = tokio::spawn(async move {
        redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut other).await
    });
    until("the server to be busy", async || {
        redis::cmd("EXISTS")
            .arg("x")
            .exec_async(&mut raw_redis)
            .await
            .is_err_and(|e| e.code() == Some("BUSY"))
    })
    .await;
    refuses(&*broker).await;
    tell(&mut raw_redis, &["SCRIPT", "KILL"]).await;
    takes_again(&*broker, &lane()).await;
    let _ = script.await;

    tell(&mut raw_redis, &["CLIENT", "PAUSE", "60000", "ALL"]).await;
    refuses(&*broker).await;
    server.order(Order::Kill).await;
    server.order(Order::Start).await;
    takes_again(&*broker, &lane()).await;
    broker.close().await;
}

/// A connection cut in the middle of anything is replaced, and what was held is still held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing() {
    let server = OwnServer::start("redis", &[]).await;
    let mut raw = raw(&server).await;
    let broker = server.client().await;
    let mut subscription =
        within("subscribe", broker.subscribe(&[lane()], 500, Priorities::Weighted)).await.unwrap();
    let mut sent = std::collections::HashSet::new();
    let mut found = std::collections::HashSet::new();
    for _ in 0..20 {
        let batch = messages(&lane(), 20);
        let answers = broker.publish(&batch).await;
        let confirmed = batch.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
        sent.extend(distinct(confirmed.map(|(message, _)| message)));
        if let Ok(deliveries) = within("messages", subscription.receive(7)).await {
            tell(&mut raw, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
            subscription.ack(&tags).await.unwrap();
            found.extend(distinct(deliveries.iter().map(|delivery| &delivery.message)));
        }
    }
    let rest = async {
        while !found.is_superset(&sent) {
            if let Ok(deliveries) = subscription.receive(100).await {
                let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
                subscription.ack(&tags).await.unwrap();
                found.extend(distinct(deliveries.iter().map(|delivery| &delivery.message)));
            }
        }
    };
    within("every confirmed message", rest).await;
    broker.close().await;
}

/// A lane wiped under the hands of those who hold its messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn emptied_while_in_use() {
    let server = OwnServer::start("redis", &[]).await;
    let broker = server.client().await;
    let wipe = async || tell(&mut raw(&server).await, &["FLUSHALL"]).await;
    goes_on_after(wipe, &*broker, &lane()).await;
    broker.close().await;
}
