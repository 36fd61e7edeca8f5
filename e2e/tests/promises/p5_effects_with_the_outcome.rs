//! P5: a handler's own writes and the job's success are one commit.

use serde_json::json;

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_or_after_the_commit_leaves_exactly_one_row() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "1s"), ("WORKER_CONCURRENCY", "1")]).await;
    let api = cluster.api().await;
    let _workers = [cluster.worker().await, cluster.worker().await, cluster.worker().await];
    let mut ids = Vec::new();
    for crash in ["before_commit", "after_commit", "never"] {
        let body = cluster.job("e2e.pay", json!({"amount": 7, "crash": crash}));
        let id = cluster.enqueue(&api, &body).await.unwrap();
        cluster.all_succeed(&[id]).await;
        let job = cluster.get(&api, id).await;
        assert_eq!((job["result"].as_i64(), job["state"].as_str()), (Some(7), Some("succeeded")), "{job}");
        let attempts = if crash == "before_commit" { 2 } else { 1 };
        assert_eq!(job["attempt"], attempts, "{crash}");
        ids.push(id);
    }
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.payments").await, 3);
    assert_eq!(cluster.count("SELECT count(DISTINCT job_id) FROM {schema}.payments").await, 3);
    cluster.clean_up().await;
}
