//! P1: whatever dies, every job that was answered with 202 reaches a terminal state.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::json;

use crate::support::{Cluster, Server};

/// Each 202 is followed by a `kill -9` of the API, so its publishing is often cut short too.
#[tokio::test(flavor = "multi_thread")]
async fn kill_the_api_right_after_its_202() {
    let cluster = Cluster::new(&[]).await;
    let _worker = cluster.worker().await;
    let mut api = cluster.api().await;
    let body = cluster.job("e2e.work", json!({}));
    let mut accepted = Vec::new();
    for _ in 0..10 {
        let (first, others) =
            tokio::join!(cluster.enqueue(&api, &body), cluster.enqueue_many(&api, &body, 20));
        accepted.extend(first);
        accepted.extend(others);
        let last = cluster.enqueue(&api, &body).await;
        api.process.kill();
        accepted.push(last.unwrap());
        cluster.restart_api(&mut api).await;
    }
    assert_eq!(accepted.len(), 220);
    cluster.all_succeed(&accepted).await;
    assert_eq!(cluster.ends(&accepted).await, 220);
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_workers_mid_job() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "2s"), ("WORKER_CRASH_LIMIT", "100")]).await;
    let api = cluster.api().await;
    let mut victim = cluster.worker().await;
    let _survivor = cluster.worker().await;
    let mut job = cluster.job("e2e.work", json!({"millis": 100}));
    job["max_attempts"] = json!(100);
    let accepted = cluster.enqueue_many(&api, &job, 600).await;
    assert_eq!(accepted.len(), 600);
    for _ in 0..3 {
        let running = format!(
            "SELECT count(DISTINCT job_id) FROM {{schema}}.trail s WHERE what = 'start' AND pid = {}
             AND NOT EXISTS (SELECT FROM {{schema}}.trail e WHERE e.what = 'end' AND e.job_id = s.job_id)",
            victim.pid()
        );
        crate::support::until("the victim is in the midst of jobs", || async {
            cluster.count(&running).await > 0
        })
        .await;
        victim.kill();
        assert!(cluster.count(&running).await > 0);
        victim = cluster.spawn_worker();
    }
    cluster.all_succeed(&accepted).await;
    let twice = "SELECT count(*) FROM (SELECT job_id FROM {schema}.trail WHERE what = 'start' GROUP BY job_id HAVING count(*) > 1) t";
    assert!(cluster.count(twice).await > 0, "no job was started again, so none was cut short");
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_rabbitmq_mid_publish() {
    let rabbit = Server::rabbitmq("").await;
    let cluster = Cluster::on(&rabbit.url, &[]).await;
    let api = cluster.api().await;
    let _worker = cluster.worker().await;
    let body = cluster.job("e2e.work", json!({}));
    let mut accepted = cluster.enqueue_many(&api, &body, 100).await;
    rabbit.order("settle").await;
    for _ in 0..2 {
        let (more, ()) =
            tokio::join!(cluster.enqueue_many(&api, &body, 1000), async { rabbit.order("kill").await });
        accepted.extend(more);
        rabbit.order("start").await;
        accepted.extend(cluster.enqueue_many(&api, &body, 100).await);
    }
    assert_eq!(accepted.len(), 2300, "the API refused jobs because the broker was down");
    cluster.all_succeed(&accepted).await;
    assert_eq!(cluster.ends(&accepted).await, 2300, "a job ran more than once");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_every_database_connection_again_and_again() {
    let cluster = Cluster::new(&[("WORKER_CRASH_LIMIT", "100")]).await;
    let api = cluster.api().await;
    let _workers = [cluster.worker().await, cluster.worker().await];
    let mut body = cluster.job("e2e.work", json!({"millis": 5}));
    body["max_attempts"] = json!(100);
    let enqueued = AtomicBool::new(false);
    let (accepted, cuts) = tokio::join!(
        async {
            let accepted = cluster.enqueue_many(&api, &body, 4000).await;
            enqueued.store(true, Ordering::Relaxed);
            accepted
        },
        async {
            let mut cuts = 0;
            // The pause is the pace of the fault, not a wait for anything.
            while !enqueued.load(Ordering::Relaxed) || cuts < 20 {
                cuts += cluster.cut_connections().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            cuts
        }
    );
    assert!(cuts >= 20, "only {cuts} connections were cut");
    assert!(accepted.len() > 1000, "only {} jobs were accepted", accepted.len());
    cluster.all_succeed(&accepted).await;
    cluster.clean_up().await;
}
