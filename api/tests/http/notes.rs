//! Progress and log lines, as clients see them.

use std::time::Duration;

use serde_json::{Value, json, value::RawValue};
use windlass_core::{JobId, LogLevel, NewLine, NewProgress, Note, Outcome, Store as _};

use crate::support::Api;

impl Api {
    /// Says as the job's attempt with this fence: progress, and lines with these numbers.
    pub(crate) async fn say(&self, id: JobId, fence: u32, lines: std::ops::Range<u32>) {
        let progress = NewProgress { value: 0.4, message: "rendering".into(), age: Duration::ZERO };
        let line = |number| NewLine {
            number,
            level: LogLevel::Warn,
            message: format!("line {number}"),
            fields: Some(RawValue::from_string(r#"{"n": 1.50}"#.into()).unwrap()),
            age: Duration::ZERO,
        };
        let lines = lines.map(line).collect();
        let note = Note { id, fence, attempt: fence, progress: Some(progress), lines };
        self.store.notes().note(&[note]).await.unwrap();
    }
}

fn numbers(page: &Value) -> Vec<String> {
    let lines = page["lines"].as_array().unwrap().iter();
    lines.map(|line| line["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn progress_is_shown_and_stays() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}");
    let fence = api.claim(id).await.fence;
    let before = api.get(&path).await;
    assert!(before.json()["progress"].is_null());
    api.say(id, fence, 0..0).await;
    let answer = api.get(&path).await;
    let shown = answer.json()["progress"].clone();
    assert_eq!(shown, json!({"value": 0.4, "message": "rendering", "at": shown["at"]}));
    assert!(shown["at"].as_str().unwrap().ends_with('Z'));
    assert_ne!(answer.header("etag"), before.header("etag"));
    let finish =
        windlass_core::Finish { id, fence, outcome: Outcome::Succeeded { result: None, keep: None } };
    api.store.finish(windlass_core::WorkerId::new(), &[finish], &[]).await.unwrap();
    assert_eq!(api.get(&path).await.json()["progress"], shown);
}

#[tokio::test]
async fn log_lines_are_read_page_by_page() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}/logs");
    assert_eq!(api.get(&path).await.json(), json!({"lines": [], "next_cursor": null}));
    let fence = api.claim(id).await.fence;
    api.say(id, fence, 0..3).await;
    let answer = api.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"));
    let page = answer.json();
    let first = &page["lines"][0];
    assert_eq!(
        *first,
        json!({"attempt": 1, "at": first["at"], "level": "warn", "message": "line 0", "fields": {"n": 1.5}})
    );
    assert!(String::from_utf8(answer.body.to_vec()).unwrap().contains(r#"{"n": 1.50}"#));
    let page = api.get(&format!("{path}?limit=2")).await.json();
    assert_eq!(numbers(&page), ["line 0", "line 1"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = api.get(&format!("{path}?limit=2&cursor={cursor}")).await.json();
    assert_eq!(numbers(&rest), ["line 2"]);
    // At the end there is a place to go on from, too.
    let end = rest["next_cursor"].as_str().unwrap();
    let nothing = api.get(&format!("{path}?cursor={end}")).await.json();
    assert_eq!(nothing, json!({"lines": [], "next_cursor": end}));
    api.say(id, fence, 3..4).await;
    assert_eq!(numbers(&api.get(&format!("{path}?cursor={end}")).await.json()), ["line 3"]);
}

#[tokio::test]
async fn wrong_requests_for_logs_are_named() {
    let api = Api::new().await;
    let id = api.job().await;
    api.finish(id, Outcome::Cancelled).await;
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("cursor=1", "cursor"),
        ("cursor=-1.2", "cursor"),
        ("cursor=1.99999999999", "cursor"),
        ("page=2", "page"),
    ] {
        let answer = api.get(&format!("/v1/jobs/{id}/logs?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [format!("query:{name}")], "{query}");
    }
    api.get(&format!("/v1/jobs/{}/logs", JobId::new())).await.problem(404);
    api.get("/v1/jobs/x/logs").await.problem(400);
}
