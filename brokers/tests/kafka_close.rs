//! That nothing of Kafka's library goes on after a broker was closed: alone in its process, since it looks at the
//! process's threads.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

use windlass_brokers::conformance::{messages, until, within};
use windlass_core::{JobId, Lane, Priorities, Priority};

/// The names of the threads that belong to the library, or wait for it.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // One may end meanwhile.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("rdk:") || name.starts_with("windlass kafka")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_every_thread() {
    let url = std::env::var("WINDLASS_TEST_KAFKA_URL")
        .expect("WINDLASS_TEST_KAFKA_URL is not set: run scripts/test, which starts the servers");
    let broker = windlass_brokers::open(&url).await.unwrap();
    let lane = Lane { queue: format!("t-{}", JobId::new()).parse().unwrap(), priority: Priority::Normal };
    let mut subscription =
        broker.subscribe(std::slice::from_ref(&lane), 10, Priorities::Weighted).await.unwrap();
    broker.publish(&messages(&lane, 1)).await.remove(0).unwrap();
    let found = within("a message", subscription.receive(1)).await.unwrap();
    subscription.ack(&[found[0].tag]).await.unwrap();
    broker.depth(&lane).await.unwrap();
    assert!(threads().iter().any(|name| name.starts_with("rdk:")), "{:?}", threads());
    drop(subscription);
    broker.delete(&[lane]).await.unwrap();
    within("close", broker.close()).await;
    // What was waited for has been joined; the system may list it for a moment longer.
    until("the threads to be gone", async || threads().is_empty()).await;
    // It is the closing that ends them, not the end of the broker.
    drop(broker);
}
