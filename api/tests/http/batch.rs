//! Many jobs in one request: each is answered by itself, as if it had come alone.

use std::sync::{Arc, Mutex};

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_brokers::Memory;
use windlass_core::JobId;

use crate::{
    faults::{Fault, faulty_store},
    support::{Answer, Api},
};

impl Api {
    async fn batch(&self, body: impl Into<Body>) -> Answer {
        self.send(batch().body(body.into()).unwrap()).await
    }

    /// The answers to these jobs, all of which were looked at.
    async fn answers(&self, jobs: &[Value]) -> Vec<Value> {
        let answer = self.batch(json!({ "jobs": jobs }).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answers = answer.json()["jobs"].as_array().unwrap().clone();
        assert_eq!(answers.len(), jobs.len());
        answers
    }
}

fn batch() -> axum::http::request::Builder {
    Request::post("/v1/jobs/batch").header("content-type", "application/json")
}

fn mail(field: &str, value: Value) -> Value {
    let mut job = json!({"kind": "mail", "payload": 1});
    job[field] = value;
    job
}

fn id(answer: &Value) -> JobId {
    answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).parse().unwrap()
}

fn pointers(answer: &Value) -> Vec<&str> {
    answer["error"]["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_jobs_take_few_statements() {
    let api = Api::new().await;
    let jobs: Vec<Value> = (0..10_000).map(|number| mail("payload", json!(number))).collect();
    let answers = api.answers(&jobs).await;
    let ids: Vec<JobId> = answers.iter().map(id).collect();
    assert!(ids.is_sorted(), "in the order of the request");
    assert_eq!(api.jobs().await, 10_000);
    let groups = api.count("outbox").await;
    assert!(groups <= 100, "{groups} groups");
    let last = api.claim(ids[9_999]).await;
    assert_eq!((last.payload.get(), last.queue.as_str()), ("9999", "letters"));

    let answer = api.batch(json!({"jobs": vec![mail("priority", json!(1)); 10_001]}).to_string()).await;
    assert!(answer.problem(422)["detail"].as_str().unwrap().contains("10000"));
    assert_eq!(answer.pointers(), ["/jobs"]);
    assert_eq!(api.jobs().await, 10_000);
}

#[tokio::test]
async fn one_bad_job_spoils_no_other() {
    let api = Api::with(ApiOptions { max_body: 5_000, ..ApiOptions::default() }).await;
    let deep: Value = serde_json::from_str(&format!("{}{}", "[".repeat(80), "]".repeat(80))).unwrap();
    let unique = json!({"key": "u", "on_conflict": "refuse"});
    let cases = [
        (json!(5), 422, "invalid-field", vec!["/jobs/0"]),
        (mail("priority", json!(9)), 422, "invalid-field", vec!["/jobs/1/priority"]),
        (json!({"kind": "unknown", "payload": 1}), 422, "unknown-kind", vec!["/jobs/2/kind"]),
        (mail("payload", deep), 422, "nested-too-deeply", vec!["/jobs/3/payload"]),
        (mail("payload", json!("x".repeat(5_000))), 413, "body-too-large", vec![]),
        (mail("payload", json!({"$windlass": 1})), 422, "invalid-field", vec!["/jobs/5/payload"]),
        (mail("limits", json!([{"name": "none", "key": "k"}])), 422, "invalid-field", vec![]),
        (mail("idempotency_key", json!("a b")), 422, "invalid-field", vec!["/jobs/7/idempotency_key"]),
        (mail("colour", json!(1)), 422, "invalid-field", vec!["/jobs/8/colour"]),
    ];
    let mut jobs: Vec<Value> = cases.iter().map(|(job, ..)| job.clone()).collect();
    jobs.push(mail("unique", unique.clone()));
    jobs.push(mail("unique", unique));
    jobs.push(mail("delay", json!("1h")));
    let answers = api.answers(&jobs).await;
    for ((job, status, kind, expected), answer) in cases.iter().zip(&answers) {
        let error = &answer["error"];
        assert_eq!(error["status"], *status, "{job}: {answer}");
        assert_eq!(error["type"], format!("urn:windlass:problem:{kind}"), "{job}: {answer}");
        if !expected.is_empty() {
            assert_eq!(&pointers(answer), expected, "{job}");
        }
        assert!(answer.get("id").is_none());
    }
    let first = id(&answers[9]);
    assert_eq!(answers[10]["error"]["status"], 409);
    assert!(answers[10]["error"]["detail"].as_str().unwrap().contains(&first.to_string()));
    id(&answers[11]);
    assert_eq!(api.jobs().await, 2);
}

#[tokio::test]
async fn each_job_may_have_a_key_of_its_own() {
    let api = Api::new().await;
    let jobs = [
        mail("idempotency_key", json!("a")),
        mail("idempotency_key", json!("b")),
        mail("idempotency_key", json!("a")),
        json!({"kind": "mail", "payload": 2, "idempotency_key": "a"}),
        mail("priority", json!(0)),
    ];
    let first = api.answers(&jobs).await;
    assert_eq!(id(&first[0]), id(&first[2]));
    assert_eq!(
        (&first[0]["idempotency_replayed"], &first[2]["idempotency_replayed"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(first[3]["error"]["type"], "urn:windlass:problem:idempotency-key-reused");
    let again = api.answers(&jobs).await;
    for at in [0, 1, 2] {
        assert_eq!((id(&again[at]), &again[at]["idempotency_replayed"]), (id(&first[at]), &json!(true)));
    }
    assert_ne!(id(&again[4]), id(&first[4]), "without a key it is another job");
    assert_eq!(api.jobs().await, 4);
}

#[tokio::test]
async fn the_requests_key_is_for_all_that_have_none() {
    let api = Api::new().await;
    let send = async |key: &str, jobs: &[Value]| {
        let body = json!({ "jobs": jobs }).to_string();
        api.send(batch().header("idempotency-key", key).body(body.into()).unwrap()).await
    };
    let jobs = [mail("payload", json!(1)), mail("payload", json!(1)), mail("idempotency_key", json!("own"))];
    let first = send("k", &jobs).await.json();
    assert_ne!(first["jobs"][0]["id"], first["jobs"][1]["id"], "two jobs, however alike");
    let again = send("k", &jobs).await.json();
    for at in 0..3 {
        assert_eq!(again["jobs"][at]["id"], first["jobs"][at]["id"]);
        assert_eq!(again["jobs"][at]["idempotency_replayed"], true);
    }
    // A repeat that has been changed: only what is the same is a repeat.
    let changed = [jobs[0].clone(), mail("payload", json!(2))];
    let changed = send("k", &changed).await.json();
    assert_eq!(changed["jobs"][0]["id"], first["jobs"][0]["id"]);
    assert_eq!(changed["jobs"][1]["error"]["type"], "urn:windlass:problem:idempotency-key-reused");
    send("a b", &jobs).await.problem(422);
    assert_eq!(api.jobs().await, 3);
    // A single job under the same key is another request, and no part of the batch.
    let single =
        crate::support::enqueue().header("idempotency-key", "k").body(jobs[0].to_string().into()).unwrap();
    assert_eq!(api.send(single).await.status, 202);
    assert_eq!(api.jobs().await, 4);
}

#[tokio::test]
async fn conflicts_are_told() {
    let api = Api::new().await;
    let unique = |conflict: &str| mail("unique", json!({"key": "u", "on_conflict": conflict}));
    let answers = api.answers(&[unique("existing"), unique("existing"), unique("replace")]).await;
    assert_eq!(answers[0]["unique_conflict"], Value::Null);
    assert_eq!((id(&answers[1]), &answers[1]["unique_conflict"]), (id(&answers[0]), &json!("existing")));
    assert_eq!((id(&answers[2]), &answers[2]["unique_conflict"]), (id(&answers[0]), &json!("replaced")));
}

#[tokio::test]
async fn wrong_batches_store_nothing() {
    let api = Api::with(ApiOptions { max_batch_body: 500, ..ApiOptions::default() }).await;
    assert_eq!(api.answers(&[]).await, Vec::<Value>::new());
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        (r#"{"jobs": 5}"#, 422),
        (r#"{"jobs": null}"#, 422),
        (r#"{"jobs": [{"kind": "mail", "payload": 1}], "more": 1}"#, 422),
        (r#"{"jobs": [{"kind": "mail", "payload": 1}], "jobs": []}"#, 422),
    ] {
        api.batch(body).await.problem(status);
    }
    api.batch(json!({"jobs": vec![mail("priority", json!(1)); 20]}).to_string()).await.problem(413);
    let untyped = Request::post("/v1/jobs/batch").body(r#"{"jobs": []}"#.into()).unwrap();
    api.send(untyped).await.problem(415);
    let deep = format!(r#"{{"jobs": [{}]}}"#, "[".repeat(200));
    api.batch(deep).await.problem(400);
    assert_eq!(api.stored().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_refuses_the_batch_as_a_whole() {
    let fault = Arc::new(Mutex::new(None));
    let wrap = {
        let fault = fault.clone();
        |store| Arc::new(faulty_store(store, fault)) as Arc<dyn windlass_core::Store>
    };
    let api = Api::over(ApiOptions::default(), wrap, Arc::new(Memory::new())).await;
    let body = json!({"jobs": vec![mail("priority", json!(1)); 3_000]}).to_string();
    // Makes the kind known to the API.
    api.job().await;
    for set in [Fault::Unavailable, Fault::Timeout] {
        *fault.lock().unwrap() = Some(set);
        let answer = api.batch(body.clone()).await;
        answer.problem(503);
        assert_eq!(answer.header("retry-after"), "1");
    }
    *fault.lock().unwrap() = None;
    assert_eq!(api.jobs().await, 1);
    let answer = api.batch(body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(api.jobs().await, 3_001);
}
