//! Limits and queues over HTTP, and the jobs that are held back by them.

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};

use crate::support::{Answer, Api, with};

async fn send(api: &Api, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    api.send(request.body(body).unwrap()).await
}

async fn put(api: &Api, path: &str, body: Value) -> Answer {
    send(api, Method::PUT, path, body).await
}

#[tokio::test]
async fn limits_are_defined_shown_changed_and_removed() {
    let api = Api::new().await;
    assert_eq!(api.get("/v1/limits").await.json(), json!({"limits": []}));
    let path = "/v1/limits/customer";
    api.get(path).await.problem(404);
    let answer = put(&api, path, json!({"max_running": 3, "rate": 100, "per": "1m"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let shown = json!({"name": "customer", "max_running": 3, "rate": 100, "per": "1m", "burst": 100});
    assert_eq!(answer.json(), shown);
    assert_eq!(api.get(path).await.json(), shown);
    assert_eq!(api.get("/v1/limits").await.json(), json!({"limits": [shown]}));
    let answer = put(&api, path, json!({"rate": 2, "burst": 1})).await;
    let shown = json!({"name": "customer", "max_running": null, "rate": 2, "per": "1s", "burst": 1});
    assert_eq!(answer.json(), shown);
    assert_eq!(send(&api, Method::DELETE, path, Value::Null).await.status, 204);
    send(&api, Method::DELETE, path, Value::Null).await.problem(404);
}

#[tokio::test]
async fn what_is_wrong_with_a_limit_is_named() {
    let api = Api::new().await;
    let cases = [
        (json!({"max_running": 0}), "/max_running"),
        (json!({"max_running": -1}), "/max_running"),
        (json!({"max_running": "3"}), "/max_running"),
        (json!({"rate": 0}), "/rate"),
        (json!({"rate": -5, "per": "1s"}), "/rate"),
        (json!({"rate": 1, "per": "0s"}), "/per"),
        (json!({"rate": 1, "per": "soon"}), "/per"),
        (json!({"rate": 1, "burst": 0}), "/burst"),
        (json!({"per": "1s"}), "/rate"),
        (json!({"most": 1}), "/most"),
    ];
    for (body, pointer) in cases {
        for path in ["/v1/limits/a", "/v1/queues/a/limit"] {
            let answer = put(&api, path, body.clone()).await;
            let problem = answer.problem(422);
            assert_eq!(answer.pointers(), [pointer], "{body}: {problem}");
        }
    }
    for (body, pointer) in [
        (json!({"fair_window": 5}), "/fair_window"),
        (json!({"fair": true, "fair_window": 0}), "/fair_window"),
    ] {
        let answer = put(&api, "/v1/queues/a/limit", body).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer]);
    }
    put(&api, &format!("/v1/limits/{}", "x".repeat(256)), json!({})).await.problem(400);
    put(&api, "/v1/limits/%ff", json!({})).await.problem(400);
    put(&api, "/v1/queues/a%20b/limit", json!({})).await.problem(400);
    assert_eq!(api.get("/v1/limits").await.json(), json!({"limits": []}));
    let queues = api.get("/v1/queues").await.json();
    assert_eq!((&queues["queues"][0]["name"], &queues["queues"][1]), (&json!("letters"), &json!(null)));
}

#[tokio::test]
async fn jobs_name_what_they_wait_for() {
    let api = Api::new().await;
    put(&api, "/v1/limits/customer", json!({"max_running": 1})).await;
    let body = json!({"kind": "mail", "payload": 1, "limits": ["customer/42"], "ordering_key": "k",
                      "on_failure": "skip", "tenant": "t"});
    let answer = api.enqueue(body.to_string()).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let job = answer.json();
    assert_eq!(job["state"], "waiting");
    for shown in [job.clone(), api.get(&format!("/v1/jobs/{}", job["id"].as_str().unwrap())).await.json()] {
        assert_eq!(shown["limits"], json!(["customer/42"]));
        assert_eq!((&shown["ordering_key"], &shown["on_failure"]), (&json!("k"), &json!("skip")));
        assert_eq!(shown["tenant"], "t");
    }
    let plain = api.job().await;
    assert!(api.get(&format!("/v1/jobs/{plain}")).await.json().get("limits").is_none());
}

#[tokio::test]
async fn what_a_job_cannot_wait_for_is_named() {
    let api = Api::new().await;
    put(&api, "/v1/limits/known", json!({})).await;
    let long = "x".repeat(256);
    let cases = [
        ("limits", json!("customer"), "/limits"),
        ("limits", json!(["a", "b", "c", "d", "e"]), "/limits"),
        ("limits", json!(["known", "/1"]), "/limits/1"),
        ("limits", json!([long]), "/limits/0"),
        ("limits", json!(["known/1", "unknown/1"]), "/limits/1"),
        ("ordering_key", json!(""), "/ordering_key"),
        ("ordering_key", json!(long), "/ordering_key"),
        ("ordering_key", json!(5), "/ordering_key"),
        ("on_failure", json!("skip"), "/on_failure"),
        ("tenant", json!("nul\0"), "/tenant"),
    ];
    for (field, value, pointer) in cases {
        let answer = api.enqueue(with(field, value.clone())).await;
        let problem = answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{value}: {problem}");
        assert_eq!(api.stored().await, 0, "{value}");
    }
}

#[tokio::test]
async fn queues_are_paused_drained_limited_and_resumed() {
    let api = Api::new().await;
    let path = "/v1/queues/letters";
    let settings = |mut queue: serde_json::Value| {
        // What is in it changes all the time.
        for name in ["depth", "lanes", "counts"] {
            queue.as_object_mut().unwrap().remove(name).unwrap();
        }
        queue
    };
    let ordinary = settings(api.get(path).await.json());
    assert_eq!(ordinary["paused"], false);
    assert_eq!(api.post(&format!("{path}/pause")).await.json()["paused"], true);
    assert_eq!(api.job().await.to_string().len(), 36, "a paused queue takes jobs");
    let stored = api.stored().await;
    assert_eq!(api.post(&format!("{path}/drain")).await.json()["draining"], true);
    let problem = api.enqueue(r#"{"kind": "mail", "payload": 1}"#).await.problem(409);
    assert_eq!(problem["type"], "urn:windlass:problem:queue-draining");
    assert_eq!(api.stored().await, stored);
    assert_eq!(settings(api.post(&format!("{path}/resume")).await.json()), ordinary);
    api.job().await;
    let answer = put(&api, &format!("{path}/limit"), json!({"max_running": 5, "fair": true})).await;
    assert_eq!(answer.json()["fair_window"], 100);
    assert_eq!(settings(api.get("/v1/queues").await.json()["queues"][0].clone()), settings(answer.json()));
    let answer = api.enqueue(r#"{"kind": "mail", "payload": 1}"#).await;
    assert_eq!(answer.json()["state"], "waiting");
}
