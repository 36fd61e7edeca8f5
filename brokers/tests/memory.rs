//! The memory broker through the conformance suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use windlass_brokers::Memory;
use windlass_brokers::conformance::{Fixture, messages};
use windlass_core::{Broker, Lane, Priority};

static SERVER: LazyLock<Memory> = LazyLock::new(Memory::new);

struct InProcess;

#[async_trait]
impl Fixture for InProcess {
    async fn client(&self) -> Arc<dyn Broker> {
        Arc::new(SERVER.attach())
    }

    async fn publish_raw(&self, _: &Lane, _: &[u8]) -> bool {
        false
    }
}

windlass_brokers::broker_conformance!(InProcess);

#[tokio::test]
async fn opens_by_url() {
    let broker = windlass_brokers::open("memory:").await.unwrap();
    broker.ping().await.unwrap();
    for url in ["nobroker://secret@host", "secret", ""] {
        let error = windlass_brokers::open(url).await.unwrap_err().to_string();
        assert!(error.contains("broker_url") && !error.contains("secret"), "{error}");
    }
}

/// It declares so: what is in it is gone with it.
#[tokio::test]
async fn another_one_has_nothing_of_the_first() {
    let lane = Lane { queue: "q".parse().unwrap(), priority: Priority::Normal };
    let first = windlass_brokers::open("memory:").await.unwrap();
    assert!(!first.capabilities().persistent);
    first.publish(&messages(&lane, 1)).await.remove(0).unwrap();
    assert_eq!(first.depth(&lane).await.unwrap(), Some(1));
    first.close().await;
    let second = windlass_brokers::open("memory:").await.unwrap();
    assert_eq!(second.depth(&lane).await.unwrap(), Some(0));
}
