//! The handlers under a real worker, on SQLite and the memory broker.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use windlass::{Client, Job, JobId, JobRecord, JobState, Settings, Worker};
use windlass_examples::{AggregateDataset, BuildReport, MakeThumbnails, SendEmail, Workspace, register};

#[tokio::test]
async fn a_worker_runs_all_four_and_decides_what_becomes_of_failures() {
    assert!(std::env::var_os("WINDLASS_SMTP_URL").is_none(), "this test would send real mail");
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        store_url: format!("sqlite:{}", folder.path().join("windlass.db").display()).into(),
        broker_url: "memory:".to_owned().into(),
        ..Settings::default()
    };
    let client = Client::connect(&settings).await.unwrap();
    client.store().migrate().await.unwrap();
    let workspace = Workspace::with_samples(folder.path()).unwrap();
    let worker = register(Worker::new(client.clone(), (&settings).into()), workspace).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run_until(stop.clone()));

    let mail = SendEmail { to: "ada@example.com".into(), subject: "Hello".into(), body: String::new() };
    let sent = enqueue(&client, mail.clone()).await;
    let made = enqueue(&client, MakeThumbnails { image: "photo.jpg".into(), sizes: vec![64] }).await;
    let built =
        enqueue(&client, BuildReport { orders: "orders.csv".into(), group_by: "region".into() }).await;
    let dataset = AggregateDataset {
        dataset: "measurements.jsonl".into(),
        group_by: "sensor".into(),
        value: "temperature".into(),
    };
    let aggregated = enqueue(&client, dataset.clone()).await;
    let escaping =
        enqueue(&client, AggregateDataset { dataset: "../windlass.db".into(), ..dataset.clone() }).await;
    let nobody = enqueue(&client, SendEmail { to: "nobody".into(), ..mail }).await;
    let missing = enqueue(&client, AggregateDataset { dataset: "later.csv".into(), ..dataset }).await;

    for (id, file) in [
        (sent, format!("outbox/{sent}.eml")),
        (made, "output/thumbnails/photo.jpg/64.jpg".to_owned()),
        (built, "output/reports/orders.csv/by-region.html".to_owned()),
        (aggregated, "output/aggregates/measurements.jsonl/temperature-by-sensor.json".to_owned()),
    ] {
        let job = ended_attempt(&client, id).await;
        assert_eq!((job.state, job.attempt), (JobState::Succeeded, 1), "{job:?}");
        assert!(folder.path().join(&file).is_file() && job.result.is_some(), "{file}: {job:?}");
    }
    for (id, why) in [(escaping, "workspace"), (nobody, "nobody")] {
        let job = ended_attempt(&client, id).await;
        assert_eq!((job.state, job.attempt), (JobState::Dead, 1), "{job:?}");
        assert!(job.errors[0].message.contains(why), "{job:?}");
    }
    let job = ended_attempt(&client, missing).await;
    assert!(job.errors[0].message.starts_with("later.csv: ") && job.state != JobState::Dead, "{job:?}");

    stop.cancel();
    running.await.unwrap().unwrap();
    client.close().await;
}

async fn enqueue(client: &Client, job: impl Job) -> JobId {
    client.enqueue(job).await.unwrap()
}

/// The job, once its first attempt has ended in one way or the other.
async fn ended_attempt(client: &Client, id: JobId) -> JobRecord {
    let started = Instant::now();
    loop {
        let job = client.get(id).await.unwrap().unwrap();
        if job.finished_at.is_some() || !job.errors.is_empty() {
            return job;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still waiting: {job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
