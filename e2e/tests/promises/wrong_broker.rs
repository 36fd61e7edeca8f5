//! A `broker_url` that cannot work ends a process at once, with one line that names it. One that does not answer ends a
//! worker that starts, for whatever started it to try again, and no API, which accepts jobs all the same (P6).

use std::time::{Duration, Instant};

use futures::{StreamExt as _, future::join_all};
use tokio::net::TcpListener;

use crate::support::{Cluster, server, until};

/// URLs of every kind of broker that is reached over a network, at `host`.
fn at(host: &str) -> Vec<String> {
    let user = "windlass:s3cret";
    vec![
        format!("amqp://{user}@{host}/%2f"),
        format!("kafka://{user}@{host}"),
        format!("nats://{user}@{host}"),
        format!("postgres://{user}@{host}/windlass"),
        format!("pubsub://windlass?endpoint={host}"),
        format!("redis://{user}@{host}/0"),
        format!("sqs://us-east-1?endpoint=http://{host}"),
    ]
}

/// Starts a worker for every kind of broker at `host`, each of which must end in time and say what to do.
async fn workers_end(host: &str) {
    let cluster = Cluster::new(&[]).await;
    let ends = at(host).into_iter().map(async |url| {
        let started = Instant::now();
        let output = cluster.run_on(&url, &["worker"]).await;
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{url}: {errors}");
        assert!(started.elapsed() < Duration::from_secs(10), "{url}: {:?}", started.elapsed());
        assert!(!errors.contains("s3cret"), "{url}: {errors}");
        let mut lines: Vec<&str> = errors.lines().collect();
        let last = lines.pop().unwrap();
        for word in ["broker_url", "WINDLASS_BROKER_URL", "whether the broker runs"] {
            assert!(last.contains(word), "{url}: {errors}");
        }
        // Parameters of a URL are not shown, as they may be secret.
        assert!(last.contains(host) || url.contains("endpoint="), "{url}: {errors}");
        assert!(!lines.iter().any(|line| line.contains("broker_url")), "told once: {errors}");
    });
    join_all(ends).await;
    cluster.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_where_nothing_listens() {
    workers_end("127.0.0.1:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_where_a_host_is_not_known() {
    workers_end("no-such-host.invalid:1234").await;
}

/// As behind a firewall: what is sent there is swallowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_where_nobody_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    workers_end(&silent.local_addr().unwrap().to_string()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_warns_once_and_accepts() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let apis = ["127.0.0.1:1", &silent].map(at).concat().into_iter().map(async |url| {
        let mut cluster = Cluster::new(&[("API_UNKNOWN_KINDS", "accept")]).await;
        let good = cluster.setting("BROKER_URL");
        cluster.set("BROKER_URL", &url);
        let api = cluster.api().await;
        let accepted = cluster.enqueue(&api, &cluster.job("e2e.work", serde_json::json!({}))).await;
        assert!(accepted.is_some(), "{url}: {}", cluster.logs("api"));
        until("it warns", async || cluster.logs("api").contains("WINDLASS_BROKER_URL")).await;
        let logs = cluster.logs("api");
        assert_eq!(logs.matches("WINDLASS_BROKER_URL").count(), 1, "{url}: {logs}");
        assert!(!logs.contains("s3cret"), "{url}: {logs}");
        drop(api);
        cluster.set("BROKER_URL", &good);
        cluster.clean_up().await;
    });
    // Not all at once: each has connections to the store.
    futures::stream::iter(apis).buffer_unordered(4).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_end_the_process_with_the_settings_name() {
    let mut urls = Vec::new();
    for variable in ["WINDLASS_TEST_RABBITMQ_URL", "WINDLASS_TEST_POSTGRES_URL"] {
        urls.push(server(variable).replacen("windlass:windlass@", "windlass:s3cret@", 1));
    }
    urls.push("carrier-pigeon://s3cret".to_owned());
    for url in urls {
        let mut cluster = Cluster::new(&[]).await;
        let good = cluster.setting("BROKER_URL");
        cluster.set("BROKER_URL", &url);
        for arguments in [["api", "--listen", "127.0.0.1:0"].as_slice(), &["worker"]] {
            let started = Instant::now();
            let output = cluster.run(arguments).await;
            assert!(started.elapsed() < Duration::from_secs(10));
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success());
            assert!(
                errors.contains("broker_url") && !errors.contains("s3cret"),
                "{url} {arguments:?}: {errors}"
            );
            assert_eq!(errors.lines().count(), 1, "{errors}");
        }
        cluster.set("BROKER_URL", &good);
        cluster.clean_up().await;
    }
}
