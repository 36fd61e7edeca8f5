//! The commands for operators, run as such on a store of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::Path, process::Command, time::Duration};

use serde_json::{Value, json};
use windlass::{
    Client, JobId, Settings,
    driver::{NewWorker, WorkerId},
    prelude::*,
};

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "mail", queue = "letters")]
struct Mail(u8);

/// The command's exit code and what it has said: to standard output, and to standard error.
fn windlass(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .args(arguments)
        .current_dir(folder)
        .env("WINDLASS_STORE_URL", "sqlite:jobs.db")
        .env("WINDLASS_LOG", "warn")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let (code, out, err) = windlass(folder, arguments);
    assert_eq!((code, &*err), (0, ""), "{arguments:?}: {out}");
    out
}

fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(folder, &[arguments, &["--json"]].concat())).unwrap()
}

/// A store with three jobs of a kind that a worker has made known, oldest first.
async fn store(folder: &Path) -> Vec<JobId> {
    done(folder, &["migrate"]);
    let url = format!("sqlite:{}", folder.join("jobs.db").display());
    let settings = Settings { store_url: url.into(), ..Settings::default() };
    let client = Client::connect(&settings).await.unwrap();
    let kinds = vec![windlass::KindInfo::new("mail".parse().unwrap())];
    let worker =
        NewWorker { id: WorkerId::new(), label: "host-1".into(), lease: Duration::from_secs(3600), kinds };
    client.store().register(&worker).await.unwrap();
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(client.enqueue(Mail(number)).label("n", number.to_string()).await.unwrap());
    }
    client.close().await;
    ids
}

#[tokio::test]
async fn jobs_are_listed_shown_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let ids = store(folder).await;
    let table = done(folder, &["jobs", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[0].starts_with("ID ") && lines[0].contains("STATE"), "{table}");
    assert!(
        lines[1].starts_with(&ids[2].to_string()) && lines[1].contains("queued"),
        "newest first: {table}"
    );

    let list =
        json_of(folder, &["jobs", "list", "--label", "n:1", "--state", "queued", "--queue", "letters"]);
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    assert_eq!((&list["jobs"][0]["id"], &list["next_cursor"]), (&json!(ids[1]), &Value::Null));
    let first = json_of(folder, &["jobs", "list", "--limit", "2"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = json_of(folder, &["jobs", "list", "--cursor", cursor]);
    assert_eq!((&second["jobs"][0]["id"], second["jobs"].as_array().unwrap().len()), (&json!(ids[0]), 1));

    let id = ids[0].to_string();
    assert_eq!(done(folder, &["jobs", "cancel", &id]), "1 job\n");
    assert_eq!(json_of(folder, &["jobs", "get", &id])["state"], "cancelled");
    assert!(done(folder, &["jobs", "get", &id]).contains("cancelled"));
    assert_eq!(done(folder, &["jobs", "retry", "--state", "cancelled"]), "1 job\n");
    assert_eq!(json_of(folder, &["jobs", "cancel", "--queue", "letters"]), json!({"count": 3}));
    assert_eq!(done(folder, &["jobs", "cancel", "--all"]), "0 jobs\n");
}

#[tokio::test]
async fn wrong_usage_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (code, _, err) = windlass(folder, &["jobs", "list"]);
    assert!(code == 2 && err.contains("migrate"), "a store without its tables: {code}, {err}");
    store(folder).await;
    let unknown = JobId::new().to_string();
    for (arguments, said) in [
        (&["jobs", "list", "--state", "lost"][..], "query:state"),
        (&["jobs", "list", "--limit", "0"], "query:limit"),
        (&["jobs", "get", &unknown], &*format!("no job {unknown}")),
        (&["jobs", "get", "a/b"], "not a valid job id"),
        (&["jobs", "cancel"], "--all"),
        (&["jobs", "cancel", &unknown, "--all"], "either ids or a filter"),
        (&["jobs", "retry", "--state", "running"], "running cannot be retried"),
        (&["jobs", "cancel", "--label", "x"], "name:value"),
        (&["queues", "pause", "a b"], "name"),
    ] {
        let (code, out, err) = windlass(folder, arguments);
        assert_eq!((code, &*out), (2, ""), "{arguments:?}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn the_fleet_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store(folder).await;
    let queues = json_of(folder, &["queues"]);
    let letters = queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "letters");
    assert!(
        letters.is_none(),
        "the worker has said another queue, and what waits is not counted by the store"
    );
    assert!(done(folder, &["queues", "pause", "letters"]).contains("paused"));
    let queues = json_of(folder, &["queues", "list"]);
    let letters =
        queues["queues"].as_array().unwrap().iter().find(|queue| queue["name"] == "letters").unwrap();
    assert_eq!((&letters["paused"], &letters["depth"]), (&json!(true), &json!(3)));
    assert!(done(folder, &["queues", "resume", "letters"]).contains("open"));
    assert!(done(folder, &["queues", "drain", "letters"]).contains("draining"));
    assert!(done(folder, &["workers"]).contains("host-1"));
    assert_eq!(json_of(folder, &["workers"])["workers"][0]["kinds"], json!([{"kind": "mail", "version": 1}]));
    assert!(done(folder, &["kinds"]).lines().nth(1).unwrap().starts_with("mail "));
    assert_eq!(json_of(folder, &["kinds"])["kinds"][0]["kind"], "mail");
}

#[tokio::test]
async fn webhooks_are_listed_with_what_they_have_been_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    store(folder).await;
    let url = format!("sqlite:{}", folder.join("jobs.db").display());
    let client = Client::connect(&Settings { store_url: url.into(), ..Settings::default() }).await.unwrap();
    let hook = "https://example.com/hook".to_owned();
    let created = client.create_webhook(None, hook.clone(), windlass::WebhookFilter::default(), true).await;
    let (id, secret) = created.unwrap().unwrap();
    let test = client.test_webhook(id).await.unwrap().unwrap();
    client.close().await;

    let table = done(folder, &["webhooks", "list"]);
    assert!(table.contains(&id.to_string()) && table.contains("enabled") && table.contains(&hook), "{table}");
    let list = json_of(folder, &["webhooks", "list"]);
    assert_eq!(list["webhooks"][0]["id"], json!(id));
    assert!(!list.to_string().contains(&secret.expose()));
    let log = json_of(folder, &["webhooks", "deliveries", &id.to_string()]);
    assert_eq!(
        (&log["deliveries"][0]["id"], &log["deliveries"][0]["event"]),
        (&json!(test), &json!("webhook.test"))
    );
    assert!(done(folder, &["webhooks", "deliveries", &id.to_string()]).contains(&test.to_string()));
    let (code, _, err) = windlass(folder, &["webhooks", "deliveries", "nobody"]);
    assert!(code == 2 && err.contains("webhook id"), "{code}: {err}");
}
