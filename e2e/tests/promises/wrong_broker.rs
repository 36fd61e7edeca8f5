//! A `broker_url` that cannot work ends a process at once, with one line that names it; one that does not answer yet does
//! not.

use std::time::{Duration, Instant};

use crate::support::{Cluster, server};

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
