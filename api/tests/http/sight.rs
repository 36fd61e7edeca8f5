//! What those see of jobs who may not read.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json, value::RawValue};
use windlass_core::{JobId, Outcome, Scope, Store as _};

use crate::{
    auth::{scopes, with_keys},
    support::{Answer, Api},
};

const SECRET: &str = "what the handler said";

async fn ask(api: &Api, key: &str, path: &str, body: &Value) -> Answer {
    let request = Request::post(path)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .header("idempotency-key", "k");
    api.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// Lets an attempt fail, log and show progress, and another succeed.
async fn work(api: &Api, id: JobId) {
    let attempt = api.claim(id).await;
    api.say(id, attempt.fence, 0..2).await;
    api.end(attempt, Outcome::Retry { after: Duration::ZERO, error: SECRET.into() }).await;
    api.store.promote_due(10).await.unwrap();
    let result = RawValue::from_string(json!(SECRET).to_string()).ok();
    api.finish(id, Outcome::Succeeded { result, keep: None }).await;
}

fn says_nothing(answer: &Answer, job: &Value) {
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains(SECRET) && !text.contains("rendering"), "{text}");
    let of_attempts = (&job["result"], &job["progress"], &job["errors"]);
    assert_eq!(of_attempts, (&Value::Null, &Value::Null, &json!([])));
}

#[tokio::test]
async fn a_replay_tells_those_who_only_enqueue_where_the_job_stands_and_no_more() {
    let api = with_keys().await;
    let enqueues = api.key(scopes(&[Scope::Enqueue]), None).await.expose();
    let reads = api.key(scopes(&[Scope::Enqueue, Scope::Read]), None).await.expose();
    let body = json!({"kind": "mail", "payload": "p", "labels": {"team": "red"}});
    let first = ask(&api, &enqueues, "/v1/jobs", &body).await;
    let id = first.json()["id"].as_str().unwrap().parse().unwrap();
    work(&api, id).await;
    let replayed = ask(&api, &enqueues, "/v1/jobs", &body).await;
    assert_eq!((replayed.status.as_u16(), replayed.header("idempotency-replayed")), (202, "true"));
    let job = replayed.json();
    says_nothing(&replayed, &job);
    assert_eq!((&job["state"], &job["labels"]["team"]), (&json!("succeeded"), &json!("red")));
    // Those who may read it see it all.
    let whole = ask(&api, &reads, "/v1/jobs", &body).await.json();
    assert_eq!((&whole["result"], &whole["errors"][0]["message"]), (&json!(SECRET), &json!(SECRET)));
    assert!(whole["progress"].is_object());
}

#[tokio::test]
async fn a_conflict_tells_them_nothing_that_another_has_said_of_the_job() {
    let api = with_keys().await;
    let enqueues = api.key(scopes(&[Scope::Enqueue]), None).await.expose();
    let reads = api.key(scopes(&[Scope::Enqueue, Scope::Read]), None).await.expose();
    let another = json!({
        "kind": "mail", "payload": SECRET, "unique": {"key": "u"}, "labels": {"a": SECRET}, "ordering_key": SECRET,
    });
    let first = api.ask(&reads, &Method::POST, "/v1/jobs", Some(another)).await.json();
    for on_conflict in ["existing", "replace"] {
        let unique = json!({"key": "u", "on_conflict": on_conflict});
        let body = Some(json!({"kind": "mail", "payload": 1, "unique": unique}));
        let conflict = api.ask(&enqueues, &Method::POST, "/v1/jobs", body.clone()).await;
        assert!(!conflict.header("unique-conflict").is_empty(), "{conflict:?}");
        let job = conflict.json();
        says_nothing(&conflict, &job);
        assert_eq!((&job["id"], &job["labels"], job.get("ordering_key")), (&first["id"], &json!({}), None));
        let whole = api.ask(&reads, &Method::POST, "/v1/jobs", body).await.json();
        assert_eq!((&whole["labels"]["a"], &whole["ordering_key"]), (&json!(SECRET), &json!(SECRET)));
    }
    let refuse = json!({"kind": "mail", "payload": 1, "unique": {"key": "u", "on_conflict": "refuse"}});
    let refused = api.ask(&enqueues, &Method::POST, "/v1/jobs", Some(refuse)).await;
    assert!(!refused.problem(409).to_string().contains(SECRET));
}

#[tokio::test]
async fn a_workflows_replay_shows_them_no_more_either() {
    let api = with_keys().await;
    let enqueues = api.key(scopes(&[Scope::Enqueue]), None).await.expose();
    let body = json!({"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": 1}]});
    let first = ask(&api, &enqueues, "/v1/workflows", &body).await.json();
    work(&api, first["jobs"][0]["id"].as_str().unwrap().parse().unwrap()).await;
    let replayed = ask(&api, &enqueues, "/v1/workflows", &body).await;
    assert_eq!(replayed.header("idempotency-replayed"), "true");
    let job = replayed.json()["jobs"][0].clone();
    says_nothing(&replayed, &job);
    assert_eq!(job["state"], "succeeded");
}

#[tokio::test]
async fn those_who_only_operate_see_no_more() {
    let api = with_keys().await;
    let operates = api.key(scopes(&[Scope::Operate]), None).await.expose();
    let all = api.key(scopes(&[Scope::Admin]), None).await.expose();
    let enqueued =
        api.ask(&all, &Method::POST, "/v1/jobs", Some(json!({"kind": "mail", "payload": 1}))).await;
    let id: JobId = enqueued.json()["id"].as_str().unwrap().parse().unwrap();
    work(&api, id).await;
    let retried = api.ask(&operates, &Method::POST, &format!("/v1/jobs/{id}/retry"), None).await;
    assert_eq!(retried.status, 202, "{retried:?}");
    says_nothing(&retried, &retried.json());
    let cancelled = api.ask(&operates, &Method::POST, &format!("/v1/jobs/{id}/cancel"), None).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    says_nothing(&cancelled, &cancelled.json());
}
