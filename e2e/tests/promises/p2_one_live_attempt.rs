//! P2: an attempt belongs to one worker, whatever the broker repeats and however long a worker sleeps.

use serde_json::{Value, json, value::to_raw_value};
use uuid::Uuid;
use windlass::{
    NewJob,
    driver::{self, StoreOptions},
};

use crate::support::{Cluster, ends_well, until};

#[tokio::test(flavor = "multi_thread")]
async fn messages_published_three_times_and_out_of_order_run_once() {
    let cluster = Cluster::new(&[]).await;
    let options = StoreOptions { schema: cluster.schema.clone(), ..StoreOptions::default() };
    let store = driver::open_store(&cluster.setting("STORE_URL"), &options).await.unwrap();
    let broker = driver::open_broker(&cluster.setting("BROKER_URL")).await.unwrap();
    let jobs: Vec<_> = (0..500)
        .map(|_| {
            let payload = to_raw_value(&json!({"millis": 1})).unwrap();
            let mut job = NewJob::new("e2e.work".parse().unwrap(), payload);
            job.queue = cluster.schema.parse().unwrap();
            job
        })
        .collect();
    let mut messages: Vec<_> = jobs.iter().flat_map(|job| vec![job.message(); 3]).collect();
    fastrand::shuffle(&mut messages);
    store.insert(&jobs).await.unwrap();

    let _workers = [cluster.worker().await, cluster.worker().await];
    let (early, late) = messages.split_at(1000);
    assert!(broker.publish(early).await.iter().all(Result::is_ok));
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.as_uuid()).collect();
    cluster.all_succeed(&ids).await;
    // The rest arrives when its jobs are over.
    assert!(broker.publish(late).await.iter().all(Result::is_ok));
    let lane = jobs[0].message().lane;
    until("the late messages are taken", || async { broker.depth(&lane).await.unwrap() == Some(0) }).await;
    cluster.all_succeed(&ids).await;
    assert_eq!(cluster.ends(&ids).await, 500);
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.trail WHERE what = 'start'").await, 500);
    broker.close().await;
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_lease_cannot_overwrite_the_outcome_of_the_next() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "2s")]).await;
    let api = cluster.api().await;
    let frozen = cluster.worker().await;
    // The first attempt will report a failure, the second succeeds.
    let body = cluster.job("e2e.work", json!({"millis": 1500, "failures": 1}));
    let id = cluster.enqueue(&api, &body).await.unwrap();
    until("the job has started", || async { cluster.count("SELECT count(*) FROM {schema}.trail").await > 0 })
        .await;
    frozen.signal("STOP").unwrap();
    let _other = cluster.worker().await;
    cluster.all_succeed(&[id]).await;
    let before = cluster.get(&api, id).await;
    frozen.signal("CONT").unwrap();
    until("the frozen worker has noticed", || async {
        cluster.logs("worker").lines().any(|line| line.contains("lease"))
            && cluster.count("SELECT count(*) FROM {schema}.workers").await == 2
    })
    .await;
    assert_eq!(cluster.get(&api, id).await, before);
    assert_eq!(before["attempt"], 2);
    let errors: Vec<&Value> = before["errors"].as_array().unwrap().iter().collect();
    assert_eq!(errors.len(), 1, "the frozen worker's failure was recorded: {errors:?}");

    // It has lost one lease, not its use.
    let id = cluster.enqueue(&api, &cluster.job("e2e.work", json!({}))).await.unwrap();
    cluster.all_succeed(&[id]).await;
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_workers_down_is_quarantined() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "1s"), ("WORKER_CRASH_LIMIT", "2")]).await;
    let api = cluster.api().await;
    let mut workers = [cluster.worker().await, cluster.worker().await, cluster.worker().await];
    let poison = cluster.enqueue(&api, &cluster.job("e2e.work", json!({"crashes": 99}))).await.unwrap();
    cluster.all_reach(&[poison], &[6]).await;
    let job = cluster.get(&api, poison).await;
    assert_eq!((job["state"].as_str(), job["errors"].as_array().unwrap().len()), (Some("dead"), 2));
    let good = cluster.enqueue(&api, &cluster.job("e2e.work", json!({}))).await.unwrap();
    cluster.all_succeed(&[good]).await;
    for worker in &mut workers {
        worker.kill();
    }
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_handlers_finish_and_gives_the_rest_back() {
    let cluster = Cluster::new(&[("WORKER_CONCURRENCY", "2"), ("WORKER_LEASE", "60s")]).await;
    let api = cluster.api().await;
    let mut worker = cluster.worker().await;
    let body = cluster.job("e2e.work", json!({"millis": 500}));
    let ids = cluster.enqueue_many(&api, &body, 6).await;
    until("two jobs have started", || async {
        cluster.count("SELECT count(*) FROM {schema}.trail").await == 2
    })
    .await;
    worker.signal("TERM").unwrap();
    assert!(ends_well(&mut worker).await, "{}", cluster.logs("worker"));
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.jobs WHERE state = 4").await, 2);
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.workers").await, 0);
    // Nobody waits for a lease: the others were given back.
    let _next = cluster.worker().await;
    cluster.all_succeed(&ids).await;
    assert_eq!(cluster.ends(&ids).await, 6);
    cluster.clean_up().await;
}
