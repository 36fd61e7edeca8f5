//! P4: what holds on one broker holds on each. One scenario with duplicates, dead workers, a dead API, and a broker that
//! is killed and then emptied, on every kind.

use serde_json::json;
use uuid::Uuid;
use windlass::driver;

use crate::support::{Cluster, Server, ends_well, until};

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq() {
    let server = Server::rabbitmq("").await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let server = Server::start("postgres", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pubsub() {
    let server = Server::start("pubsub", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqs() {
    let server = Server::start("sqs", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let server = Server::start("redis", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    let server = Server::start("nats", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka() {
    let server = Server::start("kafka", &[]).await;
    promises_hold(&server.url, Some(&server)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let folder = tempfile::tempdir().unwrap();
    promises_hold(&format!("sqlite:{}", folder.path().join("broker.db").display()), None).await;
}

/// Without a `server`, the broker has none that could be killed.
async fn promises_hold(url: &str, server: Option<&Server>) {
    let cluster = Cluster::on(url, &[("WORKER_LEASE", "10s"), ("WORKER_CRASH_LIMIT", "100")]).await;
    let mut api = cluster.api().await;
    let _survivor = cluster.worker().await;

    // P7: it starts before all that follows, is still running after most of it, and runs once.
    let mut long = cluster.job("e2e.work", json!({"millis": 20_000}));
    long["max_attempts"] = json!(1);
    let long = cluster.enqueue(&api, &long).await.unwrap();
    until("the long job runs", || async { cluster.count("SELECT count(*) FROM {schema}.trail").await == 1 })
        .await;

    // P2: each message three times.
    let quick = cluster.job("e2e.work", json!({}));
    let once = cluster.enqueue_many(&api, &quick, 100).await;
    repeat_messages(&cluster, &once).await;
    cluster.all_succeed(&once).await;

    // P1: the API dies right after its 202s, a worker in the midst of jobs.
    let mut victim = cluster.worker().await;
    let mut slow = cluster.job("e2e.work", json!({"millis": 50}));
    slow["max_attempts"] = json!(100);
    let survivors = cluster.enqueue_many(&api, &slow, 300).await;
    assert_eq!(survivors.len(), 300);
    cluster.restart_api(&mut api).await;
    let running =
        format!("SELECT count(*) FROM {{schema}}.trail WHERE what = 'start' AND pid = {}", victim.pid());
    until("the victim runs jobs", || async { cluster.count(&running).await > 0 }).await;
    victim.kill();
    cluster.all_succeed(&survivors).await;

    // P6: killed, and later started with nothing in it.
    let mut disposable = Vec::new();
    if let Some(server) = server {
        for orders in [["kill", "start"].as_slice(), &["stop", "wipe", "start"]] {
            let before = cluster.enqueue_many(&api, &quick, 100).await;
            server.order(orders[0]).await;
            let during = cluster.enqueue_many(&api, &quick, 100).await;
            assert_eq!((before.len(), during.len()), (100, 100), "refused because the broker was down");
            for order in &orders[1..] {
                server.order(order).await;
            }
            disposable.extend(before.into_iter().chain(during));
        }
        cluster.all_succeed(&disposable).await;
    }

    cluster.all_succeed(&[long]).await;
    let once: Vec<Uuid> = once.into_iter().chain(disposable).chain([long]).collect();
    assert_eq!(cluster.starts(&once).await, i64::try_from(once.len()).unwrap(), "a job was started twice");
    assert_eq!(cluster.ends(&once).await, i64::try_from(once.len()).unwrap());
    cluster.clean_up().await;
}

/// Jobs flow all the while, and none is lost or run twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_system_moves_to_another_broker() {
    let server = Server::start("postgres", &[]).await;
    let mut cluster = Cluster::new(&[]).await;
    let old_url = cluster.setting("BROKER_URL");
    let mut api = cluster.api().await;
    let mut before = cluster.worker().await;
    let body = cluster.job("e2e.work", json!({"millis": 5, "failures": 1}));
    let mut ids = cluster.enqueue_many(&api, &body, 300).await;

    cluster.set("BROKER_URL", &server.url);
    cluster.set("BROKER_FROM_URL", &old_url);
    let _after = cluster.worker().await;
    ids.extend(cluster.enqueue_many(&api, &body, 300).await);
    before.signal("TERM").unwrap();
    ids.extend(cluster.enqueue_many(&api, &body, 300).await);
    assert!(ends_well(&mut before).await, "{}", cluster.logs("worker"));
    cluster.restart_api(&mut api).await;
    ids.extend(cluster.enqueue_many(&api, &body, 300).await);
    assert_eq!(ids.len(), 1200);
    cluster.all_succeed(&ids).await;
    assert_eq!(
        (cluster.starts(&ids).await, cluster.ends(&ids).await),
        (2400, 1200),
        "one failure each, as told"
    );

    let old = driver::open_broker(&old_url).await.unwrap();
    let lane = driver::Lane { queue: cluster.schema.parse().unwrap(), priority: windlass::Priority::Normal };
    until("the old broker is empty", || async { old.depth(&lane).await.unwrap() == Some(0) }).await;
    cluster.delete_lanes(&*old).await;
    old.close().await;
    cluster.clean_up().await;
}

/// Publishes what announces these jobs two more times, in another order, whether they wait, run or are over.
async fn repeat_messages(cluster: &Cluster, ids: &[Uuid]) {
    let options = driver::StoreOptions { schema: cluster.schema.clone(), ..driver::StoreOptions::default() };
    let store = driver::open_store(&cluster.setting("STORE_URL"), &options).await.unwrap();
    let broker = driver::open_broker(&cluster.setting("BROKER_URL")).await.unwrap();
    let ids: Vec<windlass::JobId> = ids.iter().map(|id| (*id).into()).collect();
    let messages = store.get(&ids).await.unwrap().into_iter().map(|job| driver::Message {
        job_id: job.id,
        attempt: 1,
        lane: driver::Lane { queue: job.queue, priority: job.priority },
        kind: job.kind,
        trace: None,
        ordering_key: None,
    });
    let mut messages: Vec<_> = messages.flat_map(|message| vec![message; 2]).collect();
    fastrand::shuffle(&mut messages);
    assert!(broker.publish(&messages).await.iter().all(Result::is_ok));
    broker.close().await;
}
