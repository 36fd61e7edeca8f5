//! Operations on all jobs that a filter means, and on those that are named.

use axum::http::Request;
use serde_json::{Value, json};
use windlass_core::{JobId, Outcome};

use crate::support::{Answer, Api, with};

impl Api {
    async fn all(&self, what: &str, body: Value) -> Answer {
        let request = Request::post(format!("/v1/jobs/{what}")).header("content-type", "application/json");
        self.send(request.body(body.to_string().into()).unwrap()).await
    }

    /// How many jobs the operation has changed; it must have come to the end.
    async fn changed(&self, what: &str, body: Value) -> u64 {
        let answer = self.all(what, body).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"), "{answer:?}");
        assert!(answer.json()["next_cursor"].is_null());
        answer.json()["count"].as_u64().unwrap()
    }

    async fn in_queue(&self, queue: &str) -> JobId {
        let answer = self.enqueue(with("queue", json!(queue))).await;
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    async fn state(&self, id: JobId) -> String {
        self.get(&format!("/v1/jobs/{id}")).await.json()["state"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn all_that_a_filter_means_is_cancelled_page_by_page() {
    let api = Api::new().await;
    let mut jobs = Vec::new();
    for queue in ["a", "a", "b", "a", "a", "a"] {
        jobs.push(api.in_queue(queue).await);
    }
    api.finish(jobs[0], Outcome::Succeeded { result: None, keep: None }).await;
    api.claim(jobs[1]).await;
    let (mut counts, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let answer = api.all("cancel", json!({"filter": {"queue": "a"}, "limit": 2, "cursor": cursor})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        counts.push(answer.json()["count"].as_u64().unwrap());
        cursor = answer.json()["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
        let other = api.all("cancel", json!({"filter": {"queue": "b"}, "cursor": cursor})).await;
        assert!(other.problem(422)["detail"].as_str().unwrap().contains("another filter"));
    }
    assert_eq!(counts, [2, 2]);
    let mut states = Vec::new();
    for id in jobs {
        states.push(api.state(id).await);
    }
    assert_eq!(states, ["succeeded", "running", "queued", "cancelled", "cancelled", "cancelled"]);
}

#[tokio::test]
async fn a_filter_by_state_touches_no_other() {
    let api = Api::new().await;
    let later = api.enqueue(with("delay", json!("1h"))).await.json()["id"].as_str().unwrap().parse().unwrap();
    let queued = api.job().await;
    assert_eq!(api.changed("cancel", json!({"filter": {"state": "scheduled"}})).await, 1);
    assert_eq!((api.state(later).await, api.state(queued).await), ("cancelled".into(), "queued".into()));
    assert_eq!(api.changed("cancel", json!({"filter": {"state": ["retrying", "queued"]}})).await, 1);
    assert_eq!(api.changed("cancel", json!({"filter": {}})).await, 0);
}

#[tokio::test]
async fn the_dead_are_meant_unless_the_filter_says_otherwise() {
    let api = Api::new().await;
    let (dead, done, off) = (api.job().await, api.job().await, api.in_queue("b").await);
    api.finish(dead, Outcome::Dead { error: "e".into() }).await;
    api.finish(done, Outcome::Succeeded { result: None, keep: None }).await;
    api.finish(off, Outcome::Cancelled).await;
    assert_eq!(api.changed("retry", json!({"filter": {}})).await, 1);
    assert_eq!(api.state(dead).await, "queued");
    assert_eq!(api.changed("delete", json!({"filter": {}})).await, 0);
    assert_eq!(api.changed("delete", json!({"filter": {"state": ["succeeded"], "queue": "b"}})).await, 0);
    assert_eq!(api.changed("delete", json!({"filter": {"state": "succeeded"}})).await, 1);
    api.get(&format!("/v1/jobs/{done}")).await.problem(404);
    assert_eq!(api.changed("retry", json!({"filter": {"state": ["cancelled", "dead"]}})).await, 1);
    assert_eq!(api.jobs().await, 2);
}

#[tokio::test]
async fn jobs_may_be_named() {
    let api = Api::new().await;
    let (one, two, three) = (api.job().await, api.job().await, api.job().await);
    let unknown = JobId::new();
    assert_eq!(api.changed("cancel", json!({"ids": [one, two, unknown, one]})).await, 2);
    assert_eq!(api.changed("retry", json!({"ids": [one, two, three]})).await, 2, "what is over is retried");
    assert_eq!(api.changed("cancel", json!({"ids": [one]})).await, 1);
    assert_eq!(api.changed("delete", json!({"ids": [one, two, three]})).await, 1);
    assert_eq!(api.changed("delete", json!({"ids": []})).await, 0);
    assert_eq!(api.jobs().await, 2);
}

#[tokio::test]
async fn wrong_selections_change_nothing() {
    let api = Api::new().await;
    let id = api.job().await;
    let many: Vec<JobId> = (0..1001).map(|_| JobId::new()).collect();
    for (body, pointer) in [
        (json!({}), "/filter"),
        (json!({"filter": null}), "/filter"),
        (json!({"filter": {}, "ids": [id]}), "/filter"),
        (json!({"filter": 5}), "/filter"),
        (json!({"filter": {"queue": "a/b"}}), "/filter/queue"),
        (json!({"filter": {"colour": "red"}}), "/filter/colour"),
        (json!({"filter": {"label": "a:b"}}), "/filter/label"),
        (json!({"filter": {"labels": {"a": 1}}}), "/filter/labels"),
        (json!({"filter": {"state": "dead"}}), "/filter/state"),
        (json!({"filter": {"state": ["queued", "lost"]}}), "/filter/state"),
        (json!({"filter": {"state": 5}}), "/filter/state"),
        (json!({"filter": {"created_after": "now"}}), "/filter/created_after"),
        (json!({"filter": {}, "limit": 0}), "/limit"),
        (json!({"filter": {}, "limit": 1001}), "/limit"),
        (json!({"filter": {}, "cursor": "x"}), "/cursor"),
        (json!({"ids": [id], "cursor": "x"}), "/cursor"),
        (json!({"ids": [id], "limit": 1}), "/limit"),
        (json!({"ids": ["x"]}), "/ids"),
        (json!({"ids": many}), "/ids"),
        (json!({"queue": "a"}), "/queue"),
    ] {
        let answer = api.all("cancel", body.clone()).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{body}");
    }
    for what in ["retry", "delete"] {
        let answer = api.all(what, json!({"filter": {"state": "running"}})).await;
        assert!(answer.problem(422)["detail"].as_str().unwrap().contains("running cannot be"));
    }
    api.all("cancel", json!([])).await.problem(422);
    let untyped = Request::post("/v1/jobs/cancel").body(r#"{"filter": {}}"#.into()).unwrap();
    api.send(untyped).await.problem(415);
    assert_eq!(api.state(id).await, "queued");
}

#[tokio::test]
async fn the_parts_of_a_job_have_routes_of_their_own() {
    let api = Api::new().await;
    let id = api.job().await;
    let part = |what: &str| format!("/v1/jobs/{id}/{what}");
    assert!(api.get(&part("result")).await.problem(409)["detail"].as_str().unwrap().contains("queued"));
    assert_eq!(api.get(&part("errors")).await.json(), json!({"errors": []}));
    assert_eq!(api.get(&part("progress")).await.json(), json!({"progress": null}));
    api.finish(id, Outcome::Retry { after: std::time::Duration::ZERO, error: "first".into() }).await;
    assert_eq!(api.get(&part("errors")).await.json()["errors"][0]["message"], "first");
    let store: &dyn windlass_core::Store = &api.store;
    store.promote_due(10).await.unwrap();
    let result = serde_json::value::RawValue::from_string(r#"{"b": 1, "a":2}"#.into()).unwrap();
    api.finish(id, Outcome::Succeeded { result: Some(result), keep: None }).await;
    let answer = api.get(&part("result")).await;
    assert_eq!(
        (&*answer.body, answer.header("content-type")),
        (&br#"{"b": 1, "a":2}"#[..], "application/json")
    );

    for outcome in [Outcome::Succeeded { result: None, keep: None }, Outcome::Dead { error: "e".into() }] {
        let id = api.job().await;
        api.finish(id, outcome).await;
        api.get(&format!("/v1/jobs/{id}/result")).await.problem(404);
    }
    for what in ["result", "errors", "progress"] {
        api.get(&format!("/v1/jobs/{}/{what}", JobId::new())).await.problem(404);
        api.get(&format!("/v1/jobs/x/{what}")).await.problem(400);
    }
}
