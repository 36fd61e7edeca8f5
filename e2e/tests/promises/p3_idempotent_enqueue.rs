//! P3: the same key and the same request is the same job; another request under it is refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Api, Cluster};

#[tokio::test(flavor = "multi_thread")]
async fn one_key_makes_one_job_across_two_api_processes() {
    let cluster = Cluster::new(&[]).await;
    let apis = [cluster.api().await, cluster.api().await];
    let _worker = cluster.worker().await;
    let body = cluster.job("e2e.work", json!({"millis": 1}));
    let answers =
        futures::future::join_all((0..50).map(|i| post(&cluster, &apis[i % 2], "key-1", &body))).await;
    let ids: BTreeSet<_> =
        answers.iter().map(|(status, answer)| (*status, answer["id"].to_string())).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(answers[0].0, 202);
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.jobs").await, 1);

    let id = answers[0].1["id"].as_str().unwrap().parse().unwrap();
    cluster.all_succeed(&[id]).await;
    assert_eq!(cluster.ends(&[id]).await, 1);

    let other = cluster.job("e2e.work", json!({"millis": 2}));
    for api in &apis {
        let (status, problem) = post(&cluster, api, "key-1", &other).await;
        assert_eq!(status, 422, "{problem}");
        // The first request still gets its job, as it is now.
        let (status, replayed) = post(&cluster, api, "key-1", &body).await;
        assert_eq!((status, replayed["state"].as_str()), (202, Some("succeeded")));
    }
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.jobs").await, 1);
    cluster.clean_up().await;
}

/// As a good client does: while a request with the key is being answered, or the store is too slow, it comes again.
async fn post(cluster: &Cluster, api: &Api, key: &str, body: &Value) -> (u16, Value) {
    loop {
        let request =
            cluster.http.post(format!("{}/v1/jobs", api.url)).header("idempotency-key", key).json(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        if !matches!(status, 409 | 503) {
            return (status, answer.json().await.unwrap());
        }
        assert!(answer.headers().contains_key("retry-after"));
    }
}
