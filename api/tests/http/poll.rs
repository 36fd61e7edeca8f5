//! Polls: what they show, `ETag` and 304, and how long an answer may be kept.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::json;
use windlass_core::Outcome;

use crate::support::{Answer, Api};

async fn poll_if(api: &Api, path: &str, conditions: &[&str]) -> Answer {
    let request =
        conditions.iter().fold(Request::get(path), |request, c| request.header("if-none-match", *c));
    api.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn the_etag_changes_with_what_is_shown_and_only_then() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}");
    let mut seen = Vec::new();
    for step in 0..3 {
        match step {
            1 => api.finish(id, Outcome::Snoozed { after: Duration::from_secs(3600) }).await,
            2 => drop(api.client.cancel(id).await.unwrap()),
            _ => {}
        }
        let etag = api.get(&path).await.header("etag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");
        assert_eq!(api.get(&path).await.header("etag"), etag);
        assert!(!seen.contains(&etag), "step {step}");
        // What the client has from before is stale, what it has now is not.
        for stale in &seen {
            assert_eq!(poll_if(&api, &path, &[stale]).await.status, 200);
        }
        assert_eq!(poll_if(&api, &path, &[&etag]).await.status, 304);
        seen.push(etag);
    }
}

#[tokio::test]
async fn if_none_match_takes_lists_weak_tags_and_the_star() {
    let api = Api::new().await;
    let path = format!("/v1/jobs/{}", api.job().await);
    let etag = api.get(&path).await.header("etag").to_owned();
    let bare = etag.trim_matches('"');
    for fresh in [
        &[etag.as_str()][..],
        &[&format!("W/{etag}")],
        &["*"],
        &[&format!("\"other\", {etag}")],
        &[&format!("\"other\",W/{etag} ,\"third\"")],
        &["\"other\"", &etag],
    ] {
        let answer = poll_if(&api, &path, fresh).await;
        assert_eq!(answer.status, 304, "{fresh:?}");
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("cache-control"), "private, no-cache");
        assert_eq!(answer.header("content-type"), "");
    }
    for stale in [&["\"other\""][..], &[bare], &[""], &["W/"], &[&format!("\"x{bare}\"")], &["\"*\""], &["ü"]]
    {
        let answer = poll_if(&api, &path, stale).await;
        assert_eq!(answer.status, 200, "{stale:?}");
        assert!(!answer.body.is_empty());
    }
    // No condition makes an unknown job known.
    poll_if(&api, "/v1/jobs/0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f", &["*"]).await.problem(404);
}

#[tokio::test]
async fn only_what_is_over_may_be_kept() {
    let api = Api::new().await;
    let outcomes = [
        (Outcome::Succeeded { result: None, keep: None }, "succeeded"),
        (Outcome::Dead { error: "no".into() }, "dead"),
        (Outcome::Cancelled, "cancelled"),
    ];
    for (outcome, state) in outcomes {
        let id = api.job().await;
        let path = format!("/v1/jobs/{id}");
        assert_eq!(api.get(&path).await.header("cache-control"), "private, no-cache");
        api.finish(id, outcome).await;
        let answer = api.get(&path).await;
        assert_eq!(answer.json()["state"], state);
        assert!(!answer.json()["finished_at"].is_null());
        let cache = answer.header("cache-control");
        assert!(cache.starts_with("private, max-age="), "{cache}");
    }
    assert_eq!(api.get("/v1/jobs/x").await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn attempts_errors_and_the_result_are_shown() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}");
    api.claim(id).await;
    let running = api.get(&path).await.json();
    assert_eq!((&running["state"], &running["attempt"]), (&json!("running"), &json!(1)));
    assert!(!running["started_at"].is_null() && running["finished_at"].is_null());

    let id = api.job().await;
    let path = format!("/v1/jobs/{id}");
    let error = "smtp: \"5.7.1\"\n<b>".to_owned();
    api.finish(id, Outcome::Retry { after: Duration::ZERO, error: error.clone() }).await;
    let retrying = api.get(&path).await.json();
    assert_eq!((&retrying["state"], &retrying["attempt"]), (&json!("retrying"), &json!(1)));
    assert!(!retrying["run_at"].is_null());
    let shown = &retrying["errors"][0];
    assert_eq!(*shown, json!({"attempt": 1, "at": shown["at"], "worker": "w1", "message": error}));
    assert!(shown["at"].as_str().unwrap().ends_with('Z'));

    let store: &dyn windlass_core::Store = &api.store;
    assert_eq!(store.promote_due(10).await.unwrap(), 1);
    let result = Some(serde_json::value::RawValue::from_string(r#"{"n": 1.50}"#.into()).unwrap());
    api.finish(id, Outcome::Succeeded { result, keep: None }).await;
    let answer = api.get(&path).await;
    let done = answer.json();
    assert_eq!((&done["state"], &done["attempt"]), (&json!("succeeded"), &json!(2)));
    assert_eq!(done["errors"].as_array().unwrap().len(), 1);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains(r#""result":{"n": 1.50}"#), "{text}");
}

#[tokio::test]
async fn head_answers_like_get_without_the_body() {
    let api = Api::new().await;
    let path = format!("/v1/jobs/{}", api.job().await);
    for path in [path.as_str(), "/readyz", "/healthz", "/v1/jobs/x"] {
        let got = api.get(path).await;
        let head = api.send(Request::head(path).body(Body::empty()).unwrap()).await;
        assert_eq!(head.status, got.status);
        assert!(head.body.is_empty());
        for name in ["content-type", "etag", "cache-control"] {
            assert_eq!(head.header(name), got.header(name), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn an_id_is_understood_in_each_of_its_spellings() {
    let api = Api::new().await;
    let id = api.job().await;
    for spelling in [id.to_string().to_uppercase(), id.as_uuid().simple().to_string()] {
        assert_eq!(api.get(&format!("/v1/jobs/{spelling}")).await.json()["id"], id.to_string());
    }
}
