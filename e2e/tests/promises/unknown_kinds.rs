//! A worker leaves the jobs of kinds it does not handle alone, and the API refuses kinds nobody handles.

use serde_json::json;

use crate::support::{Cluster, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_without_handler_is_left_alone_and_named_once() {
    let cluster = Cluster::new(&[("API_UNKNOWN_KINDS", "accept")]).await;
    let api = cluster.api().await;
    let _worker = cluster.worker().await;
    let strange = cluster.enqueue_many(&api, &cluster.job("e2e.strange", json!({})), 30).await;
    let known = cluster.enqueue_many(&api, &cluster.job("e2e.work", json!({})), 30).await;
    assert_eq!(strange.len() + known.len(), 60);
    cluster.all_succeed(&known).await;
    let says = |log: &str| log.lines().filter(|line| line.contains("e2e.strange")).count();
    until("the worker says so", || async { says(&cluster.logs("worker")) > 0 }).await;
    for id in strange {
        let job = cluster.get(&api, id).await;
        assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("queued"), Some(0)));
    }
    assert_eq!(says(&cluster.logs("worker")), 1, "{}", cluster.logs("worker"));
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_nobody_handles_is_refused_by_name() {
    let cluster = Cluster::new(&[]).await;
    let api = cluster.api().await;
    let body = cluster.job("e2e.strange", json!({}));
    let answer = cluster.http.post(format!("{}/v1/jobs", api.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 422);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(problem["errors"][0]["pointer"], "/kind", "{problem}");
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.jobs").await, 0);
    cluster.clean_up().await;
}
