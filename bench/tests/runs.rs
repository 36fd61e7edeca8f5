//! The benchmark itself works, on each pair of store and broker. What it measures decides no test.

use windlass::Settings;
use windlass_api::ApiOptions;
use windlass_bench::{Options, run};

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("bench.db").display());
    let broker_url = "memory:".to_owned().into();
    let settings = Settings { store_url: url.into(), broker_url, ..Settings::default() };
    let report =
        run(&settings, Options { jobs: 500, concurrency: 50, running: 100, bound: true }).await.unwrap();
    assert_eq!(report.jobs, 500);
    assert!(report.whole_path_per_second > 0.0 && report.bound.is_none());
    println!("{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_load_is_answered_and_what_is_accepted_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("bench.db").display());
    let settings =
        Settings { store_url: url.into(), broker_url: "memory:".to_owned().into(), ..Settings::default() };
    let time = std::time::Duration::from_millis(500);
    let options = windlass_bench::LoadOptions { alone: 20, sustain: time, time, factor: 2.0 };
    let report = windlass_bench::run_load(&settings, ApiOptions::default(), options).await.unwrap();
    assert_eq!((report.alone.failed, report.sustained.failed, report.load.failed), (0, 0, 0));
    assert!(report.done > 0 && report.load.accepted_per_second > 0.0);
    println!("{report}");
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn polls_of_a_client_share_queries() {
    let url = std::env::var("WINDLASS_TEST_POSTGRES_URL");
    let url = url.expect("WINDLASS_TEST_POSTGRES_URL is not set: run scripts/test");
    let settings =
        Settings { store_url: url.into(), broker_url: "memory:".to_owned().into(), ..Settings::default() };
    let time = std::time::Duration::from_millis(500);
    let options = windlass_bench::PollOptions { jobs: 100, clients: 50, time };
    let report = windlass_bench::run_polls(&settings, options).await.unwrap();
    assert_eq!(report.rows.len(), 6);
    assert!(report.rows.iter().all(|row| row.queries_per_answer > 0.0 && row.answers_per_second > 0.0));
    println!("{report}");
}

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_and_rabbitmq_next_to_their_bound() {
    let server = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"));
    let settings = Settings {
        store_url: server("WINDLASS_TEST_POSTGRES_URL").into(),
        broker_url: server("WINDLASS_TEST_RABBITMQ_URL").into(),
        ..Settings::default()
    };
    let report =
        run(&settings, Options { jobs: 500, concurrency: 50, running: 100, bound: true }).await.unwrap();
    // Insert, claim and finish, and a little for the groups.
    assert!(report.row_writes_per_job.unwrap() >= 3.0);
    assert!(report.bound.is_some());
    println!("{report}");
}
