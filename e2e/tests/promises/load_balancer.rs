//! API instances are all alike: behind nginx, with the configuration in `deploy/nginx`, one is killed and one is drained
//! while clients enqueue, and those who repeat what failed, with its idempotency key, notice nothing.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use serde_json::{Value, json};
use uuid::Uuid;

use windlass_e2e::free_port;

use crate::support::{Api, Cluster, PATIENCE, ends_well, until};

const JOBS: usize = 600;

#[tokio::test(flavor = "multi_thread")]
async fn in_turns() {
    no_enqueue_fails("round-robin").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_fewest_requests() {
    no_enqueue_fails("least-connections").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_clients_address() {
    no_enqueue_fails("ip-hash").await;
}

async fn no_enqueue_fails(method: &str) {
    // None of this is about a worker that is slow.
    let cluster = Cluster::new(&[("WORKER_LEASE", "30s")]).await;
    let _worker = cluster.worker().await;
    let mut apis = [cluster.api().await, cluster.api().await, cluster.api().await];
    let nginx = Nginx::start(method, &apis);
    until("nginx answers", || async {
        let answer = cluster.http.get(format!("{}/readyz", nginx.url)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    })
    .await;

    let accepted = AtomicUsize::new(0);
    let enqueue = async |number: usize| {
        let id = persist(&cluster, &nginx.url, &format!("key-{number}")).await;
        accepted.fetch_add(1, Ordering::Relaxed);
        id
    };
    let clients = async {
        futures::stream::iter(0..JOBS).map(enqueue).buffer_unordered(40).collect::<Vec<Uuid>>().await
    };
    let [first, second, _] = &mut apis;
    let operator = async {
        until("a third is accepted", || async { accepted.load(Ordering::Relaxed) >= JOBS / 3 }).await;
        first.process.kill();
        until("two thirds are accepted", || async { accepted.load(Ordering::Relaxed) >= JOBS * 2 / 3 }).await;
        second.process.signal("TERM").unwrap();
        assert!(ends_well(&mut second.process).await, "what is drained ends well");
    };
    let (ids, ()) = futures::join!(clients, operator);

    assert_eq!(ids.len(), JOBS);
    assert_eq!(cluster.count("SELECT count(*) FROM {schema}.jobs").await, i64::try_from(JOBS).unwrap());
    cluster.all_succeed(&ids).await;
    assert_eq!(cluster.starts(&ids).await, i64::try_from(JOBS).unwrap(), "each has run once");
    drop(nginx);
    cluster.clean_up().await;
}

/// Enqueues as a good client does: until it is accepted, under one key.
async fn persist(cluster: &Cluster, url: &str, key: &str) -> Uuid {
    let body = cluster.job("e2e.work", json!({}));
    let accepted = async {
        loop {
            let request =
                cluster.http.post(format!("{url}/v1/jobs")).header("idempotency-key", key).json(&body);
            if let Ok(answer) = request.send().await
                && answer.status() == 202
                && let Ok(job) = answer.json::<Value>().await
            {
                return job["id"].as_str().unwrap().parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, accepted).await.unwrap_or_else(|_| panic!("never accepted: {key}"))
}

/// A load balancer of the test's own.
struct Nginx {
    url: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    fn start(method: &str, apis: &[Api]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx");
        let read = |name: &str| std::fs::read_to_string(deploy.join(name)).unwrap();
        let port = free_port().unwrap();
        let mut upstream = read(&format!("upstream-{method}.conf"));
        for (number, api) in (1..).zip(apis) {
            let (of_the_file, ours) = (format!("api-{number}:8080"), api.url.replace("http://", ""));
            assert!(upstream.contains(&of_the_file));
            upstream = upstream.replace(&of_the_file, &ours);
        }
        let server = read("windlass.conf").replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
        let here = folder.path().display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {here}/{of};\n"))
            .concat();
        let whole = format!(
            "daemon off;\npid {here}/pid;\nerror_log {here}/errors;\nworker_processes 1;\n\
             events {{}}\nhttp {{\naccess_log off;\n{paths}{upstream}{server}}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, whole).unwrap();
        // Not everyone has it in their path.
        let debian = Path::new("/usr/sbin/nginx");
        let process = Command::new(if debian.exists() { debian } else { Path::new("nginx") })
            .args(["-e", &format!("{here}/errors"), "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("nginx ({error}): run the tests by scripts/test, which installs it")
            });
        Self { url: format!("http://127.0.0.1:{port}"), process, _folder: folder }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker goes with it, which a kill would leave behind.
        let _ = Command::new("kill").args(["-s", "TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
    }
}
