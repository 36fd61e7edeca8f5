//! The commands that make and follow jobs, and the doctor, run as such on a store of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use windlass::{Client, Settings, WorkerOptions, prelude::*};

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "mail", queue = "letters", max_attempts = 2)]
struct Mail(u8);

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One whose store has its tables.
    fn migrated() -> Self {
        let folder = Self::new();
        folder.done(&["migrate"]);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The command's exit code and what it has said: to standard output, and to standard error.
    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(arguments)
            .current_dir(self.path())
            .env("WINDLASS_STORE_URL", "sqlite:jobs.db")
            .env("WINDLASS_LOG", "warn")
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run(arguments, &[]);
        assert_eq!((code, &*err), (0, ""), "{arguments:?}: {out}");
        out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// A worker on the same store, which fails jobs of 0.
    async fn worker(&self) -> (tokio::task::JoinHandle<()>, CancellationToken) {
        let url = format!("sqlite:{}", self.path().join("jobs.db").display());
        let settings = Settings { store_url: url.into(), ..Settings::default() };
        let client = Client::connect(&settings).await.unwrap();
        let worker = Worker::new(client.clone(), WorkerOptions::from(&settings)).handle(
            async |mail: Mail| match mail.0 {
                0 => Err(JobError::discard("nothing to send")),
                number => Ok(number * 2),
            },
        );
        let stop = CancellationToken::new();
        let until = stop.clone();
        let running = tokio::spawn(async move {
            worker.run_until(until).await.unwrap();
            client.close().await;
        });
        (running, stop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_enqueued_waited_for_and_watched() {
    let folder = Folder::migrated();
    let (running, stop) = folder.worker().await;
    // Known once the worker has said so.
    let enqueue = ["jobs", "enqueue", "mail", "--payload", "5", "--label", "n:5", "--priority", "2"];
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while folder.run(&enqueue, &[]).0 != 0 {
        assert!(std::time::Instant::now() < deadline, "the kind never became known");
    }
    let job = folder.json(&enqueue);
    assert_eq!(
        (&job["queue"], &job["labels"]["n"], &job["priority"]),
        (&json!("letters"), &json!("5"), &json!(2))
    );

    let waited = folder.json(&["jobs", "enqueue", "mail", "--payload", "6", "--wait"]);
    assert_eq!((&waited["state"], &waited["result"]), (&json!("succeeded"), &json!(12)));
    std::fs::write(folder.path().join("payload.json"), "7").unwrap();
    let shown = folder.done(&["jobs", "enqueue", "mail", "--payload", "@payload.json", "--wait"]);
    assert!(shown.contains("succeeded attempt 1/") && shown.ends_with("\n14\n"), "{shown}");
    let id = waited["id"].as_str().unwrap();
    let watched = folder.done(&["jobs", "watch", id]);
    assert!(watched.starts_with(&format!("{id} succeeded")) && watched.lines().count() == 1, "{watched}");

    let (code, out, err) = folder.run(&["jobs", "enqueue", "mail", "--payload", "0", "--wait"], &[]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("dead attempt 1/") && out.contains("nothing to send"), "{out}");
    assert_eq!(err, "windlass: the job is dead\n");

    let keyed = ["jobs", "enqueue", "mail", "--payload", "8", "--delay", "1h", "--idempotency-key", "a b"];
    let (first, again) = (folder.json(&keyed), folder.json(&keyed));
    assert_eq!((&first["id"], &first["state"]), (&again["id"], &json!("scheduled")));
    for (arguments, said) in [
        (&["jobs", "enqueue", "mail", "--payload", "{"][..], "--payload is not JSON"),
        (&["jobs", "enqueue", "mail", "--payload", "@none"], "--payload @none"),
        (&["jobs", "enqueue", "nobody.knows"], "nobody.knows"),
        (&["jobs", "enqueue", "mail", "--priority", "9"], "priority"),
        (&["jobs", "watch", "a"], "not a valid job id"),
    ] {
        let (code, out, err) = folder.run(arguments, &[]);
        assert_eq!((code, &*out), (2, ""), "{arguments:?}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
    let doctor = folder.json(&["doctor"]);
    let workers =
        doctor["checks"].as_array().unwrap().iter().find(|check| check["check"] == "workers").unwrap();
    assert_eq!(workers["verdict"], "ok", "{doctor}");
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn schedules_are_made_switched_and_deleted() {
    let folder = Folder::migrated();
    let known = [("WINDLASS_API_UNKNOWN_KINDS", "accept")];
    let run = |arguments: &[&str]| {
        let (code, out, err) = folder.run(arguments, &known);
        assert_eq!((code, &*err), (0, ""), "{arguments:?}: {out}");
        out
    };
    let put = [
        "schedules",
        "put",
        "nightly",
        "--cron",
        "0 30 2 * * *",
        "--zone",
        "Europe/Berlin",
        "--kind",
        "mail",
    ];
    let table = run(&put);
    assert!(table.contains("0 30 2 * * * (Europe/Berlin)") && table.contains(" yes "), "{table}");
    assert!(run(&["schedules", "disable", "nightly"]).contains(" no "));
    assert!(run(&["schedules", "enable", "nightly"]).contains(" yes "));
    let definition =
        r#"{"every": "1h", "enabled": false, "job": {"kind": "mail", "payload": 1, "tenant": "acme"}}"#;
    run(&["schedules", "put", "hourly", "--definition", definition]);
    let all = folder.json(&["schedules"]);
    assert_eq!(all["schedules"].as_array().unwrap().len(), 2);
    let hourly = folder.json(&["schedules", "get", "hourly"]);
    assert_eq!((&hourly["enabled"], &hourly["job"]["tenant"]), (&json!(false), &json!("acme")));
    assert_eq!(run(&["schedules", "delete", "hourly"]), "");
    for (arguments, said) in [
        (&["schedules", "delete", "hourly"][..], "no schedule hourly"),
        (&["schedules", "put", "s", "--cron", "soon", "--kind", "mail"], "cron"),
        (&["schedules", "put", "s", "--every", "1h"], "--kind"),
        (&["schedules", "put", "s", "--definition", "{}", "--every", "1h"], "cannot be used with"),
    ] {
        let (code, _, err) = folder.run(arguments, &known);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn workflows_are_shown_called_off_and_retried() {
    let folder = Folder::migrated();
    let url = format!("sqlite:{}", folder.path().join("jobs.db").display());
    let client = Client::connect(&Settings { store_url: url.into(), ..Settings::default() }).await.unwrap();
    let id = client.workflow("w").job("a", Mail(1)).job("b", Mail(2)).after(["a"]).await.unwrap().to_string();
    client.close().await;
    let shown = folder.done(&["workflows", "show", &id]);
    assert!(
        shown.starts_with(&format!("{id} w ")) && shown.contains("1 queued") && shown.contains("1 waiting"),
        "{shown}"
    );
    assert_eq!(folder.json(&["workflows", "cancel", &id])["counts"], json!({"cancelled": 2}));
    let retried = folder.json(&["workflows", "retry", &id]);
    assert_eq!(retried["counts"], json!({"queued": 1, "waiting": 1}));
    assert_eq!(retried["jobs"].as_array().unwrap().len(), 2);
    let (code, _, err) = folder.run(&["workflows", "show", &windlass::JobId::new().to_string()], &[]);
    assert!(code == 2 && err.contains("no workflow"), "{err}");
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let folder = Folder::new();
    let doctor = |environment: &[(&str, &str)]| {
        let (code, out, err) = folder.run(&["doctor", "--json"], environment);
        let answer: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        let check = |name: &str| {
            let found =
                answer["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).cloned();
            found.unwrap_or_else(|| panic!("{name}: {answer}"))
        };
        (code, check("store"), check("broker"))
    };
    // Without its tables.
    let (code, store, _) = doctor(&[]);
    assert_eq!((code, &store["verdict"]), (1, &json!("failed")));
    assert!(store["detail"].as_str().unwrap().contains("windlass migrate"), "{store}");
    folder.done(&["migrate"]);
    let (code, store, broker) = doctor(&[]);
    assert_eq!(
        (code, &store["verdict"], &broker["verdict"]),
        (0, &json!("ok"), &json!("ok")),
        "{store} {broker}"
    );
    assert!(broker["detail"].as_str().unwrap().contains("from publish to receipt"), "{broker}");
    // It can be done again, and leaves nothing that would be in the way.
    assert_eq!(doctor(&[]).0, 0);
    let (code, _, broker) = doctor(&[("WINDLASS_BROKER_URL", "memory:")]);
    assert_eq!((code, &broker["verdict"]), (0, &json!("warning")));
    let (code, _, broker) = doctor(&[("WINDLASS_BROKER_URL", "carrier-pigeon://user:hunter2@coop")]);
    assert_eq!((code, &broker["verdict"]), (1, &json!("failed")));
    assert!(!broker.to_string().contains("hunter2"), "{broker}");
    assert!(broker["remedy"].is_string());
    #[cfg(feature = "redis")]
    {
        let url = std::env::var("WINDLASS_TEST_REDIS_URL")
            .expect("WINDLASS_TEST_REDIS_URL is not set: run scripts/test, which starts the servers");
        for (url, verdict) in [(&*url, "ok  "), ("redis://user:hunter2@127.0.0.1:1", "warning")] {
            let (code, out, err) = folder.run(&["doctor"], &[("WINDLASS_SHARED_URL", url)]);
            assert_eq!(code, 0, "{out}{err}");
            let shared = out.lines().find(|line| line.contains(" shared ")).unwrap();
            assert!(shared.starts_with(verdict) && !out.contains("hunter2"), "{out}");
        }
    }
    let people = folder.done(&["doctor"]);
    assert!(people.lines().any(|line| line.starts_with("ok       clock")), "{people}");
    assert!(people.contains("warning  workers") && people.contains("-> start one"), "{people}");
}
