//! `#[job(unique(…))]`: what becomes of a second job.
#![allow(clippy::unwrap_used, reason = "tests")]

use windlass::{ClientError, Settings, prelude::*};

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "sync", unique(fields(customer)))]
struct Sync {
    customer: u32,
    note: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "report", unique(within = "1h", on_conflict = "refuse"))]
struct Report {}

fn sync(customer: u32, note: &str) -> Sync {
    Sync { customer, note: note.into() }
}

#[tokio::test]
async fn the_rule_of_the_type_holds_for_every_enqueue_from_rust() {
    let folder = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display()).into();
    let settings =
        Settings { store_url: url("jobs.db"), broker_url: url("broker.db"), ..Settings::default() };
    let client = Client::connect(&settings).await.unwrap();
    client.store().migrate().await.unwrap();

    let first = client.enqueue(sync(1, "first")).await.unwrap();
    assert_eq!(client.enqueue(sync(1, "second")).await.unwrap(), first, "the note is of no matter");
    assert_ne!(client.enqueue(sync(2, "first")).await.unwrap(), first);
    assert_ne!(client.enqueue(sync(1, "third")).not_unique().await.unwrap(), first);
    client.cancel(first).await.unwrap();
    assert_ne!(client.enqueue(sync(1, "first")).await.unwrap(), first, "once it is over, another may come");

    // For its time it holds the key, whatever becomes of it.
    let report = client.enqueue(Report {}).await.unwrap();
    client.cancel(report).await.unwrap();
    let refused = client.enqueue(Report {}).await.unwrap_err();
    assert!(matches!(refused, ClientError::NotUnique(holder) if holder == report), "{refused}");

    let workflow = client.workflow("w").job("a", sync(9, ""));
    let refused = workflow.await.unwrap_err().to_string();
    assert!(refused.contains("not_unique"), "{refused}");
    client.workflow("w").enqueue("a", client.enqueue(sync(9, "")).not_unique()).await.unwrap();
    client.close().await;
}
