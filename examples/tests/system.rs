//! The worker of these examples as a whole, without a server and with a clock that the test moves.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::Duration;

use windlass::{JobState, Schedule, Worker, testing::TestSystem};
use windlass_examples::{AggregateDataset, BuildReport, SendEmail, Workspace, register};

const HOUR: Duration = Duration::from_secs(3600);

/// The same worker as in `main`.
fn worker(folder: &std::path::Path) -> impl FnOnce(Worker) -> Worker {
    assert!(std::env::var_os("WINDLASS_SMTP_URL").is_none(), "this test would send real mail");
    let workspace = Workspace::with_samples(folder).unwrap();
    |worker| register(worker, workspace).unwrap()
}

#[tokio::test]
async fn a_dataset_that_comes_later_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let system = TestSystem::start(worker(folder.path())).await.unwrap();
    let job = AggregateDataset {
        dataset: "later.csv".into(),
        group_by: "sensor".into(),
        value: "temperature".into(),
    };
    system.client().enqueue(job).await.unwrap();
    system.drain().await.unwrap();
    let jobs = system.jobs::<AggregateDataset>().await.unwrap();
    jobs.only().assert_state(JobState::Retrying);
    assert!(jobs[0].errors[0].message.starts_with("later.csv: "), "{:?}", jobs[0].errors);

    std::fs::write(folder.path().join("files/later.csv"), "sensor,temperature\nmast,-2.4\n").unwrap();
    system.advance(HOUR).await.unwrap();
    let jobs = system.jobs::<AggregateDataset>().await.unwrap();
    let result: serde_json::Value = jobs.only().result();
    assert_eq!((&result["rows"], jobs[0].attempt), (&1.into(), 2));
}

#[tokio::test]
async fn the_report_is_built_every_night() {
    let folder = tempfile::tempdir().unwrap();
    let report = || BuildReport { orders: "orders.csv".into(), group_by: "region".into() };
    let nightly = Schedule::cron("0 30 2 * * *", "Europe/Berlin").unwrap();
    let start = "2031-03-28T12:00:00Z".parse().unwrap();
    let worker = worker(folder.path());
    let configure = |empty| worker(empty).schedule(nightly, report());
    let system = TestSystem::start_at(start, configure).await.unwrap();
    system.advance(HOUR * 24 * 3).await.unwrap();

    let jobs = system.jobs::<BuildReport>().await.unwrap();
    jobs.assert_succeeded();
    // On the 30th, when clocks are set forward, there is no 02:30.
    let nights: Vec<_> = jobs.iter().map(|job| job.created_at.to_rfc3339()).collect();
    assert_eq!(
        nights,
        ["2031-03-29T01:30:00+00:00", "2031-03-30T01:00:00+00:00", "2031-03-31T00:30:00+00:00"]
    );
    assert!(folder.path().join("output/reports/orders.csv/by-region.html").is_file());
}

#[tokio::test]
async fn mail_goes_out_when_it_is_due() {
    let folder = tempfile::tempdir().unwrap();
    let system = TestSystem::start(worker(folder.path())).await.unwrap();
    let mail = SendEmail { to: "ada@example.com".into(), subject: "Hello".into(), body: String::new() };
    let id = system.client().enqueue(mail.clone()).delay(HOUR).await.unwrap();
    let file = folder.path().join(format!("outbox/{id}.eml"));
    system.drain().await.unwrap();
    system.jobs().await.unwrap().assert_enqueued(&mail).assert_state(JobState::Scheduled);
    assert!(!file.exists());
    system.advance(HOUR).await.unwrap();
    system.jobs::<SendEmail>().await.unwrap().assert_succeeded();
    assert!(file.exists());
}
