//! Limits hold exactly, whatever becomes of the processes that run the jobs.

use std::collections::HashMap;

use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use crate::support::{Cluster, until};

/// Microseconds by the clock of the database.
async fn now(cluster: &Cluster) -> i64 {
    cluster.count("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8").await
}

/// The most attempts of these jobs that ran at once, by the trail that handlers left. An attempt without an end was
/// over when its process was killed; or it lost its lease, and was over when the next one started.
async fn most_at_once(cluster: &Cluster, ids: &[Uuid], killed: &HashMap<i64, i64>) -> i64 {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT s.pid, (extract(epoch FROM s.at) * 1000000)::int8, (extract(epoch FROM e.at) * 1000000)::int8,
                (SELECT (extract(epoch FROM min(n.at)) * 1000000)::int8 FROM {schema}.trail n
                 WHERE n.job_id = s.job_id AND n.what = 'start' AND n.at > s.at)
         FROM {schema}.trail s LEFT JOIN {schema}.trail e
             ON e.job_id = s.job_id AND e.attempt = s.attempt AND e.pid = s.pid AND e.what = 'end'
         WHERE s.what = 'start' AND s.job_id = ANY($1)",
        schema = cluster.schema
    )))
    .bind(ids)
    .fetch_all(&cluster.pool)
    .await
    .unwrap();
    let mut changes = Vec::new();
    for row in &rows {
        let end = row.get::<Option<i64>, _>(2);
        let end = end.or_else(|| killed.get(&row.get::<i64, _>(0)).copied()).or(row.get(3));
        changes.push((row.get::<i64, _>(1), 1));
        changes.push((end.expect("an attempt ends, or is followed by another"), -1));
    }
    changes.sort_unstable();
    let (mut running, mut most) = (0, 0);
    for (_, change) in changes {
        running += change;
        most = most.max(running);
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_the_limit_at_once_under_four_workers_that_are_killed() {
    let cluster = Cluster::new(&[("WORKER_LEASE", "4s")]).await;
    let api = cluster.api().await;
    let limit = cluster.http.put(format!("{}/v1/limits/customer", api.url)).json(&json!({"max_running": 3}));
    assert_eq!(limit.send().await.unwrap().status(), 200);
    let mut workers = Vec::new();
    for _ in 0..4 {
        workers.push(cluster.worker().await);
    }
    let mut ids: HashMap<&str, Vec<Uuid>> = HashMap::new();
    for key in ["customer/a", "customer/b"] {
        let mut body = cluster.job("e2e.work", json!({"millis": 50}));
        body["limits"] = json!([key]);
        body["max_attempts"] = json!(20);
        ids.insert(key, cluster.enqueue_many(&api, &body, 80).await);
    }
    let mut killed = HashMap::new();
    for round in 1..=4 {
        let started = round * 25;
        until("some have started", || async {
            cluster.count("SELECT count(*) FROM {schema}.trail WHERE what = 'start'").await >= started
        })
        .await;
        let mut victim = workers.remove(0);
        victim.kill();
        killed.insert(i64::from(victim.pid()), now(&cluster).await);
        workers.push(cluster.worker().await);
    }
    for ids in ids.values() {
        assert_eq!(ids.len(), 80);
        cluster.all_succeed(ids).await;
        let most = most_at_once(&cluster, ids, &killed).await;
        assert!(most <= 3, "{most}");
    }
    // No place is lost: as many run at once as may, unless the machine is too busy for it just then.
    let mut body = cluster.job("e2e.work", json!({"millis": 300}));
    body["limits"] = json!(["customer/a"]);
    until("three run at once", || async {
        let more = cluster.enqueue_many(&api, &body, 9).await;
        cluster.all_succeed(&more).await;
        let most = most_at_once(&cluster, &more, &killed).await;
        assert!(most <= 3, "{most}");
        most == 3
    })
    .await;
    until("all that was held is given back", || async {
        cluster
            .count("SELECT (SELECT count(*) FROM {schema}.slots) + (SELECT count(*) FROM {schema}.gated)")
            .await
            == 0
    })
    .await;
    cluster.clean_up().await;
}
