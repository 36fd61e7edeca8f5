//! P3 over HTTP: one key and one request make one job; another request under the key is refused.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{body::Body, http::Request};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use windlass_api::ApiOptions;
use windlass_brokers::Memory;
use windlass_core::{Outcome, Store};

use crate::{
    faults::{Fault, faulty_store},
    support::{Answer, Api, enqueue, with},
};

const BODY: &str = r#"{"kind": "mail", "payload": {"to": "a b"}, "delay": "1h"}"#;

async fn keyed(api: &Api, key: &str, body: &str) -> Answer {
    api.send(enqueue().header("idempotency-key", key).body(body.to_owned().into()).unwrap()).await
}

/// What a request hears whose twin is being answered.
fn in_flight(answer: &Answer) {
    assert_eq!(answer.problem(409)["type"], "urn:windlass:problem:idempotency-key-in-flight");
    assert_eq!(answer.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_make_one_job() {
    let api = Api::new().await;
    let body = r#"{"kind": "mail", "payload": 1}"#;
    let answers = futures::future::join_all((0..50).map(|_| keyed(&api, "k", body))).await;
    let (accepted, others): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
    others.into_iter().for_each(in_flight);
    let ids: BTreeSet<_> = accepted.iter().map(|answer| answer.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let made = accepted.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count();
    assert_eq!(made, 1);
    let again = keyed(&api, "k", body).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"));
    assert!(ids.contains(&again.json()["id"].to_string()));
    assert_eq!(api.jobs().await, 1);
}

/// Instances know nothing of each other: there the later request waits for the earlier one, and shows its job.
#[tokio::test(flavor = "multi_thread")]
async fn at_once_on_many_instances_they_make_one_job() {
    let api = Api::new().await;
    let answers = futures::future::join_all((0..20).map(|_| async {
        let instance = windlass_api::router(api.client.clone(), ApiOptions::default());
        let request = enqueue().header("idempotency-key", "k").body(Body::from(BODY)).unwrap();
        let response = instance.oneshot(request).await.unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        let (status, location) = (response.status().as_u16(), response.headers()["location"].clone());
        (status, location, replayed)
    }))
    .await;
    assert!(
        answers.iter().all(|(status, location, _)| (*status, location) == (202, &answers[0].1)),
        "{answers:?}"
    );
    assert_eq!(answers.iter().filter(|(.., replayed)| !replayed).count(), 1);
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
    assert!(answers.iter().any(|answer| answer.status == 202));
    for answer in answers.iter().filter(|answer| answer.status != 202) {
        match answer.status.as_u16() {
            409 => in_flight(answer),
            _ => assert_eq!(answer.problem(422)["type"], "urn:windlass:problem:idempotency-key-reused"),
        }
    }
    // Whichever came first has the key from now on.
    let again = futures::future::join_all((0..5).map(async |i| {
        loop {
            let answer = keyed(&api, "k", &body(i)).await;
            if answer.status != 409 {
                return answer.status.as_u16();
            }
            tokio::task::yield_now().await;
        }
    }))
    .await;
    assert_eq!(again.iter().filter(|status| **status == 202).count(), 1, "{again:?}");
    assert_eq!(again.iter().filter(|status| **status == 422).count(), 4, "{again:?}");
    assert_eq!(api.jobs().await, 1);
}

#[tokio::test]
async fn while_the_first_is_in_flight_its_twin_is_told_so_and_others_are_not() {
    let fault = Arc::new(Mutex::new(None));
    let switch = fault.clone();
    let wrap = |store| -> Arc<dyn Store> { Arc::new(faulty_store(store, fault)) };
    let api = Api::over(ApiOptions::default(), wrap, Arc::new(Memory::new())).await;
    // From here on, the kind is known.
    api.job().await;
    let goes_on = CancellationToken::new();
    *switch.lock().unwrap() = Some(Fault::Until(goes_on.clone()));
    let workflow = r#"{"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": 1}]}"#;
    let batch = r#"{"jobs": [{"kind": "mail", "payload": 1}]}"#;
    let others = async {
        for path in ["/v1/jobs", "/v1/jobs/batch"] {
            let body = if path == "/v1/jobs" { BODY } else { batch };
            in_flight(&at(&api, path, body).await);
        }
        // Its key is the same, and it is another route's.
        assert_eq!(at(&api, "/v1/workflows", workflow).await.status, 202);
        goes_on.cancel();
    };
    let (first, first_batch, ()) =
        futures::join!(at(&api, "/v1/jobs", BODY), at(&api, "/v1/jobs/batch", batch), others);
    assert_eq!((first.status.as_u16(), first_batch.status.as_u16()), (202, 200));
    let again = keyed(&api, "k", BODY).await;
    assert_eq!((again.header("idempotency-replayed"), &again.json()["id"]), ("true", &first.json()["id"]));
    assert_eq!(
        at(&api, "/v1/jobs/batch", batch).await.json()["jobs"][0]["id"],
        first_batch.json()["jobs"][0]["id"]
    );
}

/// A request under the key `k`.
async fn at(api: &Api, path: &str, body: &str) -> Answer {
    let request =
        Request::post(path).header("content-type", "application/json").header("idempotency-key", "k");
    api.send(request.body(body.to_owned().into()).unwrap()).await
}

#[tokio::test]
async fn each_route_has_keys_of_its_own() {
    let api = Api::new().await;
    let workflow = r#"{"name": "w", "jobs": [{"name": "a", "kind": "mail", "payload": 1}]}"#;
    let batch = r#"{"jobs": [{"kind": "mail", "payload": 1}, {"kind": "mail", "payload": 1, "idempotency_key": "k"}]}"#;
    let all = [("/v1/jobs", BODY), ("/v1/jobs/batch", batch), ("/v1/workflows", workflow)];
    let mut first = Vec::new();
    for (path, body) in all {
        let answer = at(&api, path, body).await;
        assert!(answer.status.is_success(), "{path}: {answer:?}");
        first.push(answer.json());
    }
    assert_eq!(api.jobs().await, 4);
    assert!(first[1]["jobs"].as_array().unwrap().iter().all(|job| job["id"].is_string()), "{first:?}");
    for ((path, body), first) in all.into_iter().zip(first) {
        assert_eq!(at(&api, path, body).await.json()["jobs"][0]["id"], first["jobs"][0]["id"], "{path}");
    }
    assert_eq!(api.jobs().await, 4);
}

#[tokio::test]
async fn a_key_is_the_same_with_and_without_quotes() {
    let api = Api::new().await;
    let id = keyed(&api, "order-17", BODY).await.json()["id"].clone();
    assert_eq!(keyed(&api, "\"order-17\"", BODY).await.json()["id"], id);
    let spaced = keyed(&api, r#""order \"17\"""#, BODY).await;
    assert_eq!(spaced.status, 202);
    assert_ne!(spaced.json()["id"], id);
    for bad in ["order 17", "\"order-17", "\"\"", "\"order-17\"; x"] {
        let refused = keyed(&api, bad, BODY).await;
        refused.problem(422);
        assert_eq!(refused.pointers(), ["header:idempotency-key"]);
    }
    assert_eq!(api.jobs().await, 2);
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
