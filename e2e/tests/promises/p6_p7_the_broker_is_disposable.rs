//! P6: jobs are accepted without a broker and survive the loss of all its data. P7: no consumer timeout matters.

use serde_json::json;

use crate::support::{Cluster, Server, ends_well, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_and_wiped_broker_loses_nothing() {
    let rabbit = Server::rabbitmq("").await;
    let cluster = Cluster::on(&rabbit.url, &[]).await;
    let api = cluster.api().await;
    let body = cluster.job("e2e.work", json!({}));
    // Known kinds come with the first worker.
    let mut worker = cluster.worker().await;
    worker.signal("TERM").unwrap();
    assert!(ends_well(&mut worker).await);

    let mut ids = cluster.enqueue_many(&api, &body, 200).await;
    until("the broker has confirmed", || async {
        cluster.count("SELECT count(*) FROM {schema}.outbox WHERE NOT published").await == 0
    })
    .await;
    rabbit.order("stop").await;
    ids.extend(cluster.enqueue_many(&api, &body, 200).await);
    assert_eq!(ids.len(), 400, "jobs were refused while the broker was down");
    rabbit.order("wipe").await;
    rabbit.order("start").await;

    let _worker = cluster.worker().await;
    cluster.all_succeed(&ids).await;
    assert_eq!(cluster.ends(&ids).await, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_starts_and_accepts_without_a_broker() {
    let rabbit = Server::rabbitmq("").await;
    let cluster = Cluster::on(&rabbit.url, &[("API_UNKNOWN_KINDS", "accept")]).await;
    rabbit.order("kill").await;
    let api = cluster.api().await;
    let ids = cluster.enqueue_many(&api, &cluster.job("e2e.work", json!({})), 50).await;
    assert_eq!(ids.len(), 50);
    rabbit.order("start").await;
    let _worker = cluster.worker().await;
    cluster.all_succeed(&ids).await;
}

/// The consumer timeout is 2 s, the job takes 8, and a full worker holds nothing unacknowledged meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_longer_than_the_consumer_timeout_completes_once() {
    let rabbit = Server::rabbitmq("consumer_timeout = 2000").await;
    let settings = [("WORKER_CONCURRENCY", "1"), ("WORKER_BUFFER", "0"), ("REPUBLISH_AFTER", "60s")];
    let cluster = Cluster::on(&rabbit.url, &settings).await;
    let api = cluster.api().await;
    let _worker = cluster.worker().await;
    let body = cluster.job("e2e.work", json!({"millis": 8000}));
    // Two, so that the second waits behind a busy worker for longer than the timeout.
    let ids = cluster.enqueue_many(&api, &body, 2).await;
    cluster.all_succeed(&ids).await;
    assert_eq!(cluster.ends(&ids).await, 2);
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.trail WHERE what = 'start'").await, 2);
    assert!(!cluster.logs("worker").contains("PRECONDITION_FAILED"), "{}", cluster.logs("worker"));
}
