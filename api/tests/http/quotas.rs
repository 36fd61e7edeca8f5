//! How many unfinished jobs a tenant may have.

use axum::http::{Method, Request, header};
use serde_json::{Value, json};
use windlass_core::{Outcome, Scope, Store as _};

use crate::{
    auth::{scopes, with_keys},
    support::{Answer, Api, with},
};

async fn send(api: &Api, method: Method, path: &str, body: Value) -> Answer {
    let request =
        Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
    api.send(request.body(body.to_string().into()).unwrap()).await
}

async fn set(api: &Api, tenant: &str, most: u32) {
    let path = format!("/v1/tenants/{tenant}/quota");
    let answer = send(api, Method::PUT, &path, json!({"max_unfinished": most})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["max_unfinished"]), (200, &json!(most)), "{answer:?}");
}

fn job(tenant: &str) -> String {
    with("tenant", json!(tenant))
}

#[tokio::test]
async fn a_quota_is_set_shown_changed_and_removed() {
    let api = Api::new().await;
    let path = "/v1/tenants/acme%2Fnorth/quota";
    api.get(path).await.problem(404);
    set(&api, "acme%2Fnorth", 5).await;
    assert_eq!(api.enqueue(job("acme/north")).await.status, 202);
    set(&api, "acme%2Fnorth", 7).await;
    assert_eq!(
        api.get(path).await.json(),
        json!({"tenant": "acme/north", "max_unfinished": 7, "unfinished": 1})
    );
    assert_eq!(send(&api, Method::DELETE, path, json!(null)).await.status, 204);
    send(&api, Method::DELETE, path, json!(null)).await.problem(404);
    for (body, pointer) in [
        (json!({}), "/max_unfinished"),
        (json!({"max_unfinished": -1}), "/max_unfinished"),
        (json!({"max_unfinished": 1_000_000_001}), "/max_unfinished"),
        (json!({"max_unfinished": "5"}), "/max_unfinished"),
        (json!({"max_unfinished": 5, "max": 5}), "/max"),
    ] {
        let answer = send(&api, Method::PUT, path, body).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer]);
    }
}

#[tokio::test]
async fn jobs_beyond_it_are_refused_until_one_is_over() {
    let api = Api::new().await;
    set(&api, "acme", 1).await;
    let first = api.enqueue(job("acme")).await;
    let stored = api.stored().await;
    let keyed = || crate::support::enqueue().header("idempotency-key", "k").body(job("acme").into()).unwrap();
    for _ in 0..2 {
        let refused = api.send(keyed()).await;
        let problem = refused.problem(429);
        assert_eq!(problem["type"], "urn:windlass:problem:over-quota");
        assert!(problem["detail"].as_str().unwrap().contains("acme"), "{problem}");
        assert!(!refused.header("retry-after").is_empty());
    }
    assert_eq!(api.stored().await, stored);
    // Others have nothing to do with it.
    assert_eq!(api.enqueue(job("globex")).await.status, 202);
    api.job().await;
    let id = first.json()["id"].as_str().unwrap().parse().unwrap();
    api.finish(id, Outcome::Succeeded { result: None, keep: None }).await;
    api.store.follow_up(10).await.unwrap();
    // With the key that was refused before.
    assert_eq!(api.send(keyed()).await.status, 202);
    assert_eq!(api.send(keyed()).await.header("idempotency-replayed"), "true");
}

#[tokio::test]
async fn of_a_batch_as_many_are_taken_as_there_are_places_for() {
    let api = Api::new().await;
    set(&api, "acme", 2).await;
    let jobs = |tenants: &[&str]| {
        let jobs = tenants.iter().map(|tenant| json!({"kind": "mail", "payload": 1, "tenant": tenant}));
        json!({"jobs": jobs.collect::<Vec<_>>()})
    };
    let batch = async |body| send(&api, Method::POST, "/v1/jobs/batch", body).await;
    let answer = batch(jobs(&["acme", "acme", "globex", "acme"])).await;
    let answer = answer.json();
    let items = answer["jobs"].as_array().unwrap();
    let refused = items.iter().filter(|item| item["error"]["type"] == "urn:windlass:problem:over-quota");
    assert_eq!((items.len(), refused.count()), (4, 1), "{answer}");
    assert!(items[2]["id"].is_string(), "{answer}");
    // Where none is taken, the whole of it is to be repeated.
    batch(jobs(&["acme", "acme"])).await.problem(429);
}

#[tokio::test]
async fn a_workflow_is_taken_as_a_whole() {
    let api = Api::new().await;
    set(&api, "acme", 2).await;
    let workflow = |names: &[&str]| {
        let job = |name| json!({"name": name, "kind": "mail", "payload": 1, "tenant": "acme"});
        json!({"name": "nightly", "jobs": names.iter().map(job).collect::<Vec<_>>()})
    };
    let before = api.stored().await;
    let refused = send(&api, Method::POST, "/v1/workflows", workflow(&["a", "b", "c"])).await;
    assert_eq!(refused.problem(429)["type"], "urn:windlass:problem:over-quota");
    assert_eq!(api.stored().await, before);
    assert_eq!(send(&api, Method::POST, "/v1/workflows", workflow(&["a", "b"])).await.status, 202);
    assert_eq!(api.get("/v1/tenants/acme/quota").await.json()["unfinished"], 2);
}

#[tokio::test]
async fn quotas_are_for_those_who_see_all() {
    let api = with_keys().await;
    let own = api.key(scopes(&[Scope::Admin]), Some("acme")).await.expose();
    let operator = api.key(scopes(&[Scope::Operate]), None).await.expose();
    let path = "/v1/tenants/acme/quota";
    for key in [&own, &operator] {
        api.ask(key, &Method::PUT, path, Some(json!({"max_unfinished": 5}))).await.problem(403);
        api.ask(key, &Method::DELETE, path, None).await.problem(403);
        api.ask(key, &Method::GET, path, None).await.problem(403);
    }
}
