//! Payloads against the schemas that workers have published.

use std::time::Duration;

use axum::http::Request;
use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_client::UnknownKinds;
use windlass_core::{KindInfo, NewWorker, Store as _, WorkerId};

use crate::support::{Answer, Api};

const MAIL: &str = r#"{
    "type": "object", "required": ["to"], "additionalProperties": false,
    "properties": {"to": {"type": "string"}, "copies": {"type": "integer", "minimum": 0},
                   "a/b": {"type": "array", "items": {"type": "boolean"}}}
}"#;

impl Api {
    pub(crate) async fn publish(&self, kind: &str, version: u16, schema: Option<&str>) {
        let info = KindInfo {
            version,
            schemas: schema.map(|schema| (version, schema.to_owned())).into_iter().collect(),
            ..KindInfo::new(kind.parse().unwrap())
        };
        let lease = Duration::from_secs(30);
        let worker = NewWorker { id: WorkerId::new(), label: "w".into(), lease, kinds: vec![info] };
        self.store.register(&worker).await.unwrap();
    }

    async fn typed(&self, payload: Value, version: u16) -> Answer {
        self.enqueue(json!({"kind": "typed", "payload": payload, "version": version}).to_string()).await
    }
}

#[tokio::test]
async fn what_no_handler_could_read_is_refused_with_its_places() {
    let api = Api::new().await;
    api.publish("typed", 1, Some(MAIL)).await;
    assert_eq!(api.typed(json!({"to": "a", "copies": 2, "a/b": [true]}), 1).await.status, 202);
    let stored = api.stored().await;
    for (payload, pointers) in [
        (json!(5), vec!["/payload"]),
        (json!({}), vec!["/payload"]),
        (json!({"to": 5}), vec!["/payload/to"]),
        (json!({"to": "a", "copies": -1}), vec!["/payload/copies"]),
        (json!({"to": "a", "copies": 1.5}), vec!["/payload/copies"]),
        (json!({"to": "a", "a/b": [true, "hunter2"]}), vec!["/payload/a~1b/1"]),
        (json!({"to": "a", "colour": 1}), vec!["/payload"]),
        (json!({"to": null, "copies": "x"}), vec!["/payload/copies", "/payload/to"]),
    ] {
        let answer = api.typed(payload.clone(), 1).await;
        let problem = answer.problem(422);
        assert_eq!(problem["type"], "urn:windlass:problem:payload-misfit", "{payload}");
        let mut found = answer.pointers();
        found.sort();
        assert_eq!(found, pointers, "{payload}: {problem}");
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
    let many = json!({"to": "a", "a/b": vec![1; 1000]});
    let answer = api.typed(many, 1).await;
    answer.problem(422);
    assert_eq!(answer.pointers().len(), 20);
    assert_eq!(api.stored().await, stored);
}

#[tokio::test]
async fn a_schema_is_for_its_version_only() {
    let api = Api::new().await;
    api.publish("typed", 1, Some(r#"{"type": "integer"}"#)).await;
    api.publish("typed", 3, Some(r#"{"type": "string"}"#)).await;
    for (payload, version, status) in [
        (json!(1), 1, 202),
        (json!("a"), 1, 422),
        (json!("a"), 2, 202),
        (json!("a"), 3, 202),
        (json!(1), 3, 422),
    ] {
        assert_eq!(api.typed(payload.clone(), version).await.status, status, "{payload} as {version}");
    }
}

#[tokio::test]
async fn a_refusal_is_by_the_newest_word() {
    let api = Api::new().await;
    api.publish("typed", 1, Some(r#"{"type": "integer"}"#)).await;
    api.typed(json!("a"), 1).await.problem(422);
    api.publish("typed", 1, Some(r#"{"type": "string"}"#)).await;
    // No refusal is by something older than half a second, so this need not wait for a cache.
    let accepted = crate::support::soon("the newer schema", async {
        while api.typed(json!("a"), 1).await.status != 202 {
            tokio::task::yield_now().await;
        }
    });
    accepted.await;
    api.typed(json!(1), 1).await.problem(422);
    api.publish("typed", 1, None).await;
    crate::support::soon("no schema", async {
        while api.typed(json!(1), 1).await.status != 202 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn schemas_that_cannot_be_used_refuse_nothing() {
    let api = Api::new().await;
    let schemas = [
        ("a", r#"{"type": "nonsense"}"#),
        ("b", "no JSON"),
        ("c", r#"{"$ref": "https://example.com/schema.json"}"#),
        ("d", r#"{"$ref": "file:///etc/passwd"}"#),
    ];
    for (kind, schema) in schemas {
        api.publish(kind, 1, Some(schema)).await;
    }
    for (kind, schema) in schemas {
        for _ in 0..2 {
            let body = json!({"kind": kind, "payload": {"any": 1}}).to_string();
            assert_eq!(api.enqueue(body).await.status, 202, "{schema}");
        }
    }
    assert_eq!(api.get("/v1/kinds").await.json()["kinds"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn what_is_known_is_not_asked_for_again() {
    let api = Api::new().await;
    api.publish("typed", 1, Some(MAIL)).await;
    assert_eq!(api.typed(json!({"to": "a"}), 1).await.status, 202);
    // Only a question to the store would show this.
    api.execute("DELETE FROM kinds").await;
    assert_eq!(api.typed(json!({"to": "a"}), 1).await.status, 202);
    api.get("/v1/kinds/typed").await.problem(404);
}

#[tokio::test]
async fn payloads_are_checked_wherever_they_come_in() {
    let api = Api::with(ApiOptions { unknown_kinds: UnknownKinds::Accept, ..ApiOptions::default() }).await;
    api.publish("typed", 1, Some(MAIL)).await;
    let (bad, good) =
        (json!({"kind": "typed", "payload": {"to": 1}}), json!({"kind": "typed", "payload": {"to": "a"}}));
    let any = json!({"kind": "unknown", "payload": {"to": 1}});
    let send = async |method: &str, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        api.send(request.body(body.to_string().into()).unwrap()).await
    };
    let answer = send("POST", "/v1/jobs/batch", json!({"jobs": [good, bad, any]})).await.json();
    let jobs = answer["jobs"].as_array().unwrap();
    assert!(jobs[0]["id"].is_string() && jobs[2]["id"].is_string(), "{answer}");
    assert_eq!(jobs[1]["error"]["errors"][0]["pointer"], "/jobs/1/payload/to");

    let mut step = bad.clone();
    step["name"] = json!("one");
    let answer = send("POST", "/v1/workflows", json!({"name": "w", "jobs": [step]})).await;
    answer.problem(422);
    assert_eq!(answer.pointers(), ["/jobs/0/payload/to"]);

    let answer = send("PUT", "/v1/schedules/s", json!({"every": "1h", "job": bad})).await;
    answer.problem(422);
    assert_eq!(answer.pointers(), ["/job/payload/to"]);
    assert_eq!(send("PUT", "/v1/schedules/s", json!({"every": "1h", "job": good})).await.status, 200);
}
