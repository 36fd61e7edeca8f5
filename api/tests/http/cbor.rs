//! CBOR in either direction.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use ciborium::cbor;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use windlass_api::ApiOptions;

use crate::support::Api;

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Past the check against the OpenAPI document, which describes the JSON.
async fn send(api: &Api, request: Request<Body>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let (parts, body) = api.router.clone().oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers, to_bytes(body, 1 << 24).await.unwrap().to_vec())
}

async fn post(api: &Api, body: Vec<u8>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::post("/v1/jobs").header("content-type", "application/cbor");
    send(api, request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_job_may_come_as_cbor_and_be_answered_so() {
    let api = Api::new().await;
    let job =
        json!({"kind": "mail", "payload": {"n": [1, -2, 1.5, true, null, "ü\n"]}, "labels": {"a": "b"}});
    let request = Request::post("/v1/jobs")
        .header("content-type", "application/cbor")
        .header("accept", "application/cbor")
        .header("idempotency-key", "k");
    let (status, headers, body) = send(&api, request.body(written(&job).into()).unwrap()).await;
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::ACCEPTED, &"application/cbor".parse().unwrap())
    );
    let accepted: Value = ciborium::from_reader(body.as_slice()).unwrap();
    assert_eq!((&accepted["state"], &accepted["labels"]), (&json!("queued"), &json!({"a": "b"})));
    let id = accepted["id"].as_str().unwrap().parse().unwrap();
    // The payload is what the JSON would have been.
    let payload = api.claim(id).await.payload;
    assert_eq!(payload.get(), r#"{"n":[1,-2,1.5,true,null,"ü\n"]}"#);
    // It is the same request in either form.
    let again =
        crate::support::enqueue().header("idempotency-key", "k").body(job.to_string().into()).unwrap();
    let again = api.send(again).await;
    assert_eq!((again.status, again.json()["id"].clone()), (StatusCode::ACCEPTED, accepted["id"].clone()));
    // Those who do not ask get JSON.
    let (_, headers, _) = post(&api, written(&job)).await;
    assert_eq!(headers["content-type"], "application/json");
}

#[tokio::test]
async fn problems_and_tags_are_as_they_would_be() {
    let api = Api::new().await;
    let id = api.job().await;
    let get = async |path: &str, accept: &str, tag: &str| {
        let request = Request::get(path).header("accept", accept).header("if-none-match", tag);
        send(&api, request.body(Body::empty()).unwrap()).await
    };
    let (status, _, body) = get("/v1/jobs/no-id", "application/cbor", "").await;
    let problem: Value = ciborium::from_reader(body.as_slice()).unwrap();
    assert_eq!((status.as_u16(), &problem["type"]), (400, &json!("urn:windlass:problem:malformed")));
    let path = format!("/v1/jobs/{id}");
    let (_, json_headers, _) = get(&path, "application/json", "").await;
    let (_, headers, body) = get(&path, "application/cbor", "").await;
    assert!(body.len() < 400, "{}", body.len());
    let tag = headers["etag"].to_str().unwrap();
    assert_eq!(tag, format!("W/{}", json_headers["etag"].to_str().unwrap()));
    assert!(headers.get_all("vary").iter().any(|name| name == "accept"));
    assert_eq!(get(&path, "application/cbor", tag).await.0, StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn limits_hold_for_cbor_as_well() {
    let api = Api::with(ApiOptions { max_body: 10_000, ..ApiOptions::default() }).await;
    let bytes = cbor!({"kind" => "mail", "payload" => ciborium::Value::Bytes(vec![1])}).unwrap();
    let mut no_json = Vec::new();
    ciborium::into_writer(&bytes, &mut no_json).unwrap();
    let deep = [&b"\xa2\x64kind\x64mail\x67payload"[..], &[0x81; 100], b"\x00"].concat();
    let whole = written(&json!({"kind": "mail", "payload": 1}));
    for (body, status, kind) in [
        (written(&json!({"kind": "mail", "payload": "x".repeat(10_000)})), 413, "body-too-large"),
        // As JSON it would be six times as long.
        (written(&json!({"kind": "mail", "payload": "\u{1}".repeat(9_000)})), 413, "body-too-large"),
        (deep, 422, "nested-too-deeply"),
        (no_json, 400, "malformed"),
        (whole[..whole.len() - 1].to_vec(), 400, "malformed"),
        (Vec::new(), 400, "malformed"),
        (written(&json!([])), 422, "invalid-field"),
        (written(&json!({"kind": "mail", "payload": 1, "more": 1})), 422, "invalid-field"),
    ] {
        let (got, _, answer) = post(&api, body).await;
        let problem: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(
            (got.as_u16(), &problem["type"]),
            (status, &json!(format!("urn:windlass:problem:{kind}"))),
            "{problem}"
        );
    }
    assert_eq!(api.stored().await, 0);
}
