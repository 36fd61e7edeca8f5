//! Workflows, with workers that die: every job runs when its parents are over, and not before.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Cluster, until};

const LAYERS: usize = 10;
const WIDTH: usize = 100;

/// A job of a layer after three of the layer before; one in ten fails at first.
fn job(cluster: &Cluster, layer: usize, at: usize) -> Value {
    let failures = u32::from(fastrand::u8(0..10) == 0);
    let mut job = cluster.job("e2e.work", json!({"millis": fastrand::u64(0..20), "failures": failures}));
    job["name"] = json!(format!("{layer}.{at}"));
    job["max_attempts"] = json!(100);
    if layer > 0 {
        let start = fastrand::usize(0..WIDTH);
        job["after"] =
            [0, 7, 31].map(|step| json!(format!("{}.{}", layer - 1, (start + step) % WIDTH))).into();
    }
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_in_ten_layers_while_workers_die() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "2s"), ("WORKER_CRASH_LIMIT", "100")]).await;
    let api = cluster.api().await;
    let mut workers = [cluster.worker().await, cluster.worker().await, cluster.worker().await];
    let jobs: Vec<Value> = (0..LAYERS)
        .flat_map(|layer| (0..WIDTH).map(move |at| (layer, at)))
        .map(|(l, at)| job(&cluster, l, at))
        .collect();
    let body = json!({"name": "layers", "jobs": jobs});
    let answer = cluster.http.post(format!("{}/v1/workflows", api.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    let location = answer.headers()["location"].to_str().unwrap().to_owned();

    for kills in 1..=8 {
        until("some more jobs have ended", || async {
            cluster.count("SELECT count(DISTINCT job_id) FROM {schema}.trail WHERE what = 'end'").await
                > kills * 100
        })
        .await;
        let victim = &mut workers[fastrand::usize(0..3)];
        victim.kill();
        *victim = cluster.spawn_worker();
    }
    let all = sqlx::query_scalar::<_, Uuid>(cluster.sql("SELECT job_id FROM {schema}.workflow_jobs"));
    let all = all.fetch_all(&cluster.pool).await.unwrap();
    assert_eq!(all.len(), LAYERS * WIDTH);
    cluster.all_succeed(&all).await;

    let shown: Value =
        cluster.http.get(format!("{}{location}", api.url)).send().await.unwrap().json().await.unwrap();
    assert_eq!((&shown["status"], &shown["counts"]), (&json!("succeeded"), &json!({"succeeded": 1000})));
    let early = "SELECT count(*) FROM {schema}.dependencies d
        WHERE (SELECT min(at) FROM {schema}.trail WHERE job_id = d.child_id AND what = 'start')
            < (SELECT max(at) FROM {schema}.trail WHERE job_id = d.parent_id AND what = 'end')";
    assert_eq!(cluster.count(early).await, 0, "a job ran before its parents were over");
    let twice = "SELECT count(*) FROM (SELECT FROM {schema}.trail WHERE what = 'start'
                                       GROUP BY job_id, attempt HAVING count(*) > 1) t";
    assert_eq!(cluster.count(twice).await, 0, "an attempt ran twice");
    let failed = "SELECT count(*) FROM {schema}.job_errors WHERE message LIKE 'failure%'";
    assert!(cluster.count(failed).await > 50, "too few attempts failed");
    let lost = "SELECT count(*) FROM {schema}.job_errors WHERE message LIKE 'the worker was lost%'";
    assert!(cluster.count(lost).await > 0, "no worker died in the midst of a job");
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.dependencies WHERE NOT resolved").await, 0);
    cluster.clean_up().await;
}
