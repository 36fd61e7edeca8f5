//! P3 over HTTP: one key and one request make one job; another request under the key is refused.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use windlass_api::ApiOptions;
use windlass_core::Outcome;

use crate::support::{Answer, Api, enqueue, with};

const BODY: &str = r#"{"kind": "mail", "payload": {"to": "a b"}, "delay": "1h"}"#;

async fn keyed(api: &Api, key: &str, body: &str) -> Answer {
    api.send(enqueue().header("idempotency-key", key).body(body.to_owned().into()).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_make_one_job() {
    let api = Api::new().await;
    let body = r#"{"kind": "mail", "payload": 1}"#;
    let answers = futures::future::join_all((0..50).map(|_| keyed(&api, "k", body))).await;
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert_eq!(replayed, 49);
    assert_eq!(api.jobs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn different_requests_at_once_make_one_job_and_the_others_hear_of_it() {
    let api = Api::new().await;
    let body = |i| format!(r#"{{"kind": "mail", "payload": {}}}"#, i % 5);
    let answers = futures::future::join_all((0..50).map(|i| {
        let body = body(i);
        let api = &api;
        async move { keyed(api, "k", &body).await }
    }))
    .await;
    let accepted = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(accepted, 10);
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        assert_eq!(answer.problem(422)["type"], "urn:windlass:problem:idempotency-key-reused");
    }
    assert_eq!(api.jobs().await, 1);
}

#[tokio::test]
async fn a_replay_shows_the_job_as_it_is_now() {
    let api = Api::new().await;
    let body = r#"{"kind": "mail", "payload": 1}"#;
    let first = keyed(&api, "k", body).await;
    assert_eq!(first.header("idempotency-replayed"), "");
    let result = Some(serde_json::value::to_raw_value(&json!({"sent": true})).unwrap());
    api.finish(
        first.json()["id"].as_str().unwrap().parse().unwrap(),
        Outcome::Succeeded { result, keep: None },
    )
    .await;
    let again = keyed(&api, "k", body).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.body, api.get(first.header("location")).await.body);
    assert_eq!(
        (&again.json()["state"], &again.json()["result"]),
        (&json!("succeeded"), &json!({"sent": true}))
    );
}

#[tokio::test]
async fn white_space_between_tokens_is_no_difference_and_anything_else_is() {
    let api = Api::new().await;
    let id = keyed(&api, "k", BODY).await.json()["id"].clone();
    let before = api.stored().await;
    for same in [
        BODY,
        r#"{"kind":"mail","payload":{"to":"a b"},"delay":"1h"}"#,
        "\n{ \"kind\" :\t\"mail\" , \"payload\" : { \"to\" : \"a b\" },\r\n \"delay\" : \"1h\" }\n",
    ] {
        let answer = keyed(&api, "k", same).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (202, &id), "{same}");
    }
    for other in [
        r#"{"kind": "mail", "payload": {"to": "ab"}, "delay": "1h"}"#,
        r#"{"kind": "mail", "payload": {"to": "a  b"}, "delay": "1h"}"#,
        r#"{"kind": "mail", "payload": {"to": "a b"}, "delay": "2h"}"#,
        r#"{"kind": "mail", "payload": {"to": "a b"}}"#,
        r#"{"kind": "mail", "payload": {"to": "a b"}, "delay": "1h", "priority": 2}"#,
        r#"{"kind": "mail", "payload": {"to": "a b"}, "delay": "1h", "labels": {"x": "y"}}"#,
    ] {
        let problem = keyed(&api, "k", other).await.problem(422);
        assert_eq!(problem["type"], "urn:windlass:problem:idempotency-key-reused", "{other}");
    }
    assert_eq!(api.stored().await, before);
    assert_ne!(keyed(&api, "K", BODY).await.json()["id"], id, "keys are told apart by case");
}

#[tokio::test]
async fn a_refused_request_does_not_take_its_key() {
    let api = Api::new().await;
    keyed(&api, "k", &with("priority", json!(9))).await.problem(422);
    keyed(&api, "k", "{").await.problem(400);
    assert_eq!(api.stored().await, 0);
    assert_eq!(keyed(&api, "k", BODY).await.status, 202);
}

#[tokio::test]
async fn a_key_is_free_again_after_its_time() {
    let api = Api::with(ApiOptions { idempotency_ttl: Duration::ZERO, ..ApiOptions::default() }).await;
    let first = keyed(&api, "k", BODY).await.json()["id"].clone();
    let second = keyed(&api, "k", r#"{"kind": "mail", "payload": 2}"#).await;
    assert_eq!(second.status, 202);
    assert_ne!(second.json()["id"], first);
}

#[tokio::test]
async fn without_a_key_every_request_is_a_job() {
    let api = Api::new().await;
    assert_ne!(api.job().await, api.job().await);
    assert_eq!(api.jobs().await, 2);
}
