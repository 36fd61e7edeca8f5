//! Redis through the conformance suite, and what only Redis can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/checks.rs"]
mod checks;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checks::{changed, fails_soon, only_this_lane_is_refused, refuses, suffices};
use redis::aio::MultiplexedConnection;
use windlass_brokers::conformance::{Case, Fixture, until, within};
use windlass_core::{Broker, BrokerError, Lane, Priority};

struct Redis;

fn url() -> String {
    std::env::var("WINDLASS_TEST_REDIS_URL")
        .expect("WINDLASS_TEST_REDIS_URL is not set: run scripts/test, which starts the servers")
}

/// A connection past the driver.
async fn raw() -> MultiplexedConnection {
    redis::Client::open(url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn tell<T: redis::FromRedisValue>(redis: &mut MultiplexedConnection, command: &str) -> T {
    let mut words = command.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query_async(redis).await.unwrap()
}

#[async_trait]
impl Fixture for Redis {
    async fn client(&self) -> Arc<dyn Broker> {
        windlass_brokers::open(&url()).await.unwrap()
    }

    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool {
        let mut add = redis::cmd("XADD");
        add.arg(lane.to_string()).arg("*").arg("m").arg(bytes);
        add.exec_async(&mut raw().await).await.unwrap();
        true
    }
}

windlass_brokers::broker_conformance!(Redis);

#[tokio::test]
async fn wrong_credentials_and_databases_are_for_the_operator() {
    assert!(
        refuses(&changed(&url(), Some(("windlass", "s3cret")), None)).await[0].contains("refused the login")
    );
    assert!(
        refuses(&changed(&url(), Some(("nobody", "s3cret")), None)).await[0].contains("refused the login")
    );
    assert!(refuses(&changed(&url(), None, Some("/4711"))).await[0].contains("number of the database"));
    let mut anonymous: url::Url = url().parse().unwrap();
    anonymous.set_username("").unwrap();
    anonymous.set_password(None).unwrap();
    assert!(refuses(anonymous.as_str()).await[0].contains("refused the login"));
}

#[tokio::test]
async fn missing_rights_are_for_the_operator() {
    let mut raw = raw().await;
    // The rights of the documentation, but to other keys.
    let () =
        tell(&mut raw, "ACL SETUSER narrow on >s3cret ~other.* +@stream +@scripting +unlink +ping").await;
    // The right keys, but no command that does anything with them.
    let () = tell(&mut raw, "ACL SETUSER mute on >s3cret ~windlass.* +ping +select").await;
    for user in ["narrow", "mute"] {
        for error in refuses(&changed(&url(), Some((user, "s3cret")), None)).await {
            assert!(error.contains("lacks a right") && error.contains("+@stream"), "{error}");
        }
    }
}

/// What the documentation asks for is enough.
#[tokio::test]
async fn the_documented_rights_suffice() {
    Case::run(&Redis, async |case: Case<'_>| {
        let mut raw = raw().await;
        let rights = "~windlass.* +@stream +@scripting +unlink +ping +select +info +client|id \
                      +client|setname +client|unblock";
        let () = tell(&mut raw, &format!("ACL SETUSER enough on >s3cret {rights}")).await;
        suffices(&changed(&url(), Some(("enough", "s3cret")), Some("/0")), case.lane()).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_of_another_kind_is_for_the_operator() {
    // It answers anything the way a web server does. The thread ends with the process.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let _ = socket.read(&mut [0; 1024]);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    refuses(&format!("redis://user:s3cret@{address}")).await;
    refuses(&format!("rediss://user:s3cret@{address}")).await;
}

#[tokio::test]
async fn a_broker_that_is_down_fails_calls_soon_but_not_the_opening() {
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fails_soon(&format!("redis://{unused}"), Duration::from_secs(5)).await;
}

/// A host that takes connections and says nothing.
#[tokio::test]
async fn a_silent_broker_fails_calls_soon_but_not_the_opening() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fails_soon(&format!("redis://{}", silent.local_addr().unwrap()), Duration::from_secs(30)).await;
}

/// A key that somebody else made under a lane's name concerns that lane alone.
#[tokio::test]
async fn a_key_of_another_type_is_for_the_operator() {
    Case::run(&Redis, async |case: Case<'_>| {
        let taken = case.lane_at(Priority::High);
        let () = tell(&mut raw().await, &format!("SET {taken} theirs")).await;
        only_this_lane_is_refused(&case, &taken).await;
        let error = case.broker.depth(&taken).await.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(error.to_string().contains("broker_url"), "{error}");
        case.depth_becomes(&case.lane(), 3).await;
    })
    .await;
}

/// A consumer that died with messages in hand leaves them to the others, and goes once it holds nothing.
#[tokio::test]
async fn what_a_dead_consumer_held_is_taken_over() {
    Case::run(&Redis, async |case: Case<'_>| {
        let lane = case.lane();
        let mut raw = raw().await;
        let mut alive = case.subscribe(10).await;
        case.publish(4).await;
        let held = within("one message", alive.receive(1)).await.unwrap();
        let () = tell(&mut raw, &format!("XREADGROUP GROUP windlass dead COUNT 3 STREAMS {lane} >")).await;
        case.depth_becomes(&lane, 0).await;
        let mut other = case.subscribe(10).await;
        // As if half a minute had passed for the dead, and not for the living.
        let pending: Vec<(String, String, u64, u64)> =
            tell(&mut raw, &format!("XPENDING {lane} windlass - + 10 dead")).await;
        for (id, ..) in &pending {
            let () = tell(&mut raw, &format!("XCLAIM {lane} windlass dead 0 {id} IDLE 31000 JUSTID")).await;
        }
        let mut found = Vec::new();
        while found.len() < 3 {
            found.extend(within("what was held", other.receive(10)).await.unwrap());
        }
        assert!(!found.iter().any(|delivery| delivery.message == held[0].message));
        let tags: Vec<_> = found.iter().map(|delivery| delivery.tag).collect();
        other.ack(&tags).await.unwrap();
        alive.ack(&[held[0].tag]).await.unwrap();
        until("the lane to be empty", async || tell::<u64>(&mut raw, &format!("XLEN {lane}")).await == 0)
            .await;
    })
    .await;
}

/// A living consumer touches what it holds, however long that is.
#[tokio::test]
async fn what_is_held_stays_fresh() {
    Case::run(&Redis, async |case: Case<'_>| {
        let lane = case.lane();
        let mut raw = raw().await;
        let mut subscription = case.subscribe(10).await;
        case.publish(1).await;
        within("the message", subscription.receive(1)).await.unwrap();
        let idle = async |raw: &mut MultiplexedConnection| {
            let pending: Vec<(String, String, u64, u64)> =
                tell(raw, &format!("XPENDING {lane} windlass - + 10")).await;
            pending[0].2
        };
        let (id, consumer, ..) =
            tell::<Vec<(String, String, u64, u64)>>(&mut raw, &format!("XPENDING {lane} windlass - + 10"))
                .await
                .remove(0);
        let () = tell(&mut raw, &format!("XCLAIM {lane} windlass {consumer} 0 {id} IDLE 25000 JUSTID")).await;
        assert!(idle(&mut raw).await >= 25_000);
        until("the message to be touched", async || idle(&mut raw).await < 25_000).await;
    })
    .await;
}

/// Everything that is settled is gone from the server: the stream, its pending entries, and the consumers.
#[tokio::test]
async fn nothing_is_left_behind() {
    Case::run(&Redis, async |case: Case<'_>| {
        let lane = case.lane();
        case.publish(20).await;
        let mut subscription = case.subscribe(50).await;
        let mut found = Vec::new();
        while found.len() < 20 {
            found.extend(within("the messages", subscription.receive(20)).await.unwrap());
        }
        let tags: Vec<_> = found.iter().map(|delivery| delivery.tag).collect();
        subscription.ack(&tags[..10]).await.unwrap();
        subscription.release(&tags[10..]).await.unwrap();
        drop(subscription);
        let mut raw = raw().await;
        until("the consumer to leave", async || {
            let consumers: Vec<redis::Value> =
                tell(&mut raw, &format!("XINFO CONSUMERS {lane} windlass")).await;
            consumers.is_empty()
        })
        .await;
        assert_eq!(tell::<u64>(&mut raw, &format!("XLEN {lane}")).await, 10);
    })
    .await;
}
