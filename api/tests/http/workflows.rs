//! Workflows: accepted as a whole, shown, called off, retried; and what is refused.

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_core::{JobId, Outcome, WorkflowLimits};

use crate::support::{Answer, Api};

async fn send(api: &Api, body: &Value, key: Option<&str>) -> Answer {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/v1/workflows")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    api.send(request.body(Body::from(body.to_string())).unwrap()).await
}

fn job(name: &str, after: Value) -> Value {
    json!({"name": name, "kind": "mail", "payload": {}, "after": after})
}

fn workflow(jobs: Vec<Value>) -> Value {
    json!({"name": "nightly", "jobs": jobs})
}

/// The id of the job called `name` on the first page.
fn id(workflow: &Value, name: &str) -> JobId {
    let jobs = workflow["jobs"].as_array().unwrap();
    let job = jobs.iter().find(|job| job["name"] == name).unwrap();
    job["id"].as_str().unwrap().parse().unwrap()
}

async fn end(api: &Api, job: JobId, outcome: Outcome) {
    api.finish(job, outcome).await;
    while windlass_core::Store::follow_up(&api.store, 100).await.unwrap() > 0 {}
}

#[tokio::test]
async fn a_workflow_is_accepted_shown_and_ends() {
    let api = Api::new().await;
    let body = workflow(vec![
        job("a", json!([])),
        job("b", json!(["a"])),
        job("c", json!([{"job": "a", "needs": "finished"}, {"job": "b"}])),
        json!({"name": "all", "kind": "mail", "payload": {}, "after_all": "finished", "max_attempts": 3}),
    ]);
    let answer = send(&api, &body, None).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let view = answer.json();
    let path = format!("/v1/workflows/{}", view["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    assert_eq!((&view["name"], &view["status"]), (&json!("nightly"), &json!("running")));
    assert_eq!(view["counts"], json!({"queued": 1, "waiting": 3}));
    let names: Vec<_> = view["jobs"].as_array().unwrap().iter().map(|job| &job["name"]).collect();
    assert_eq!(names, ["a", "b", "c", "all"]);
    assert_eq!((&view["jobs"][3]["max_attempts"], &view["jobs"][0]["queue"]), (&json!(3), &json!("letters")));

    end(&api, id(&view, "a"), Outcome::Dead { error: "no".into() }).await;
    let after = api.get(&path).await.json();
    assert_eq!(after["counts"], json!({"queued": 1, "dead": 1, "cancelled": 2}));
    let result = serde_json::value::to_raw_value(&[1, 2]).unwrap();
    end(&api, id(&view, "all"), Outcome::Succeeded { result: Some(result), keep: None }).await;
    let after = api.get(&path).await.json();
    assert_eq!((&after["status"], &after["jobs"][3]["result"]), (&json!("failed"), &json!([1, 2])));

    let answer = api.post(&format!("{path}/retry")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["counts"], json!({"queued": 1, "waiting": 2, "succeeded": 1}));
    let answer = api.post(&format!("{path}/cancel")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["status"], "cancelled");
    assert_eq!(answer.json()["counts"], json!({"cancelled": 3, "succeeded": 1}));
}

#[tokio::test]
async fn jobs_come_in_pages() {
    let api = Api::new().await;
    let jobs = (0..5).map(|n| job(&format!("j{n}"), json!([]))).collect();
    let view = send(&api, &workflow(jobs), None).await.json();
    let path = format!("/v1/workflows/{}", view["id"].as_str().unwrap());
    assert_eq!(view["next_cursor"], Value::Null);
    let (mut names, mut query) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}?limit=2{query}")).await.json();
        names.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["name"].clone()));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["j0", "j1", "j2", "j3", "j4"]);
    for query in ["limit=0", "limit=1001", "limit=x", "cursor=x", "page=2"] {
        api.get(&format!("{path}?{query}")).await.problem(422);
    }
}

#[tokio::test]
async fn the_same_request_gives_the_same_workflow() {
    let api = Api::new().await;
    let body = workflow(vec![job("a", json!([])), job("b", json!(["a"]))]);
    let first = send(&api, &body, Some("k")).await;
    let stored = api.stored().await;
    let again = send(&api, &body, Some("k")).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.json()["id"], first.json()["id"]);
    let other = send(&api, &workflow(vec![job("a", json!([]))]), Some("k")).await.problem(422);
    assert_eq!(other["type"], "urn:windlass:problem:idempotency-key-reused");
    assert_eq!(api.stored().await, stored);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_stored() {
    let limits = WorkflowLimits { jobs: 4, parents: 2, edges: 100 };
    let api = Api::with(ApiOptions { workflow_limits: limits, ..ApiOptions::default() }).await;
    let a = || job("a", json!([]));
    let mut unknown_kind = a();
    unknown_kind["kind"] = json!("nobody.knows");
    let mut both = job("b", json!(["a"]));
    both["after_all"] = json!("succeeded");
    let mut unique = job("b", json!(["a"]));
    unique["unique"] = json!({"key": "one"});
    let mut limited = job("b", json!(["a"]));
    limited["limits"] = json!(["nobody/1"]);
    let many = |count| (0..count).map(|n| job(&format!("j{n}"), json!([]))).collect::<Vec<_>>();
    let mut crowd = many(3);
    crowd.push(job("child", json!(["j0", "j1", "j2"])));
    for (body, pointers, detail) in [
        (workflow(vec![]), vec!["/jobs"], "at least one job"),
        (workflow(many(5)), vec!["/jobs"], "at most 4 jobs"),
        (workflow(crowd), vec!["/jobs/3/after"], "more than 2 parents"),
        (workflow(vec![a(), a()]), vec!["/jobs/1/name"], "two jobs are called a"),
        (workflow(vec![a(), job("b", json!(["c"]))]), vec!["/jobs/1/after"], "b waits for c, which is not"),
        (workflow(vec![a(), job("b", json!(["b"]))]), vec!["/jobs/1/after"], "waits for itself"),
        (workflow(vec![a(), job("b", json!(["a", "a"]))]), vec!["/jobs/1/after"], "twice"),
        (
            workflow(vec![a(), job("b", json!(["a", "c"])), job("c", json!(["b"]))]),
            vec!["/jobs/1/after"],
            "in a circle: b → c → b",
        ),
        (workflow(vec![a(), unknown_kind]), vec!["/jobs/1/kind"], "nobody.knows"),
        (workflow(vec![a(), both]), vec!["/jobs/1/after_all"], "either"),
        (workflow(vec![a(), unique]), vec!["/jobs/1/unique"], "b has a unique key"),
        (workflow(vec![a(), limited]), vec!["/jobs/1/limits/0"], "no limit named \"nobody\""),
        (workflow(vec![job("b", json!([{"job": "a", "needs": "luck"}]))]), vec!["/jobs/0/after"], "finished"),
        (workflow(vec![job("b", json!("a"))]), vec!["/jobs/0/after"], "sequence"),
        (workflow(vec![job("no spaces", json!([]))]), vec!["/jobs/0/name"], "job name"),
        (workflow(vec![json!(1)]), vec!["/jobs/0"], "must be an object"),
        (
            workflow(vec![json!({"name": "a", "size": 1})]),
            vec!["/jobs/0/kind", "/jobs/0/payload", "/jobs/0/size"],
            "3 fields",
        ),
        (json!({"name": "x y", "jobs": [a()], "color": 1}), vec!["/name", "/color"], "2 fields"),
        (json!({}), vec!["/name", "/jobs"], "2 fields"),
    ] {
        let answer = send(&api, &body, None).await;
        let problem = answer.problem(422);
        assert_eq!(answer.pointers(), pointers, "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem} for {body}");
    }
    assert_eq!(api.stored().await, 0);
    let wrong = (0..4)
        .map(|n| json!({"name": n, "kind": 1, "payload": 1, "queue": 2, "labels": 3, "delay": 4, "x": 5}));
    let answer = send(&api, &workflow(wrong.collect()), None).await;
    answer.problem(422);
    assert_eq!(answer.pointers().len(), 20, "not all that is wrong, which could be a body full");
}

#[tokio::test]
async fn unknown_workflows_are_not_found() {
    let api = Api::new().await;
    let path = format!("/v1/workflows/{}", JobId::new());
    api.get(&path).await.problem(404);
    api.post(&format!("{path}/cancel")).await.problem(404);
    api.post(&format!("{path}/retry")).await.problem(404);
    api.get("/v1/workflows/x").await.problem(400);
}
