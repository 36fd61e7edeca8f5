//! Retrying and deleting what is over, one by one and in bulk.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use windlass_core::{JobId, Outcome};

use crate::support::{Answer, Api, with};

impl Api {
    async fn dead_job(&self, body: String) -> JobId {
        let id = self.enqueue(body).await.json()["id"].as_str().unwrap().parse().unwrap();
        self.finish(id, Outcome::Dead { error: "no".into() }).await;
        id
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await
    }

    async fn bulk(&self, what: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(format!("/v1/dead/{what}")).header("content-type", "application/json");
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/v1/dead{query}")).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-store"), "{answer:?}");
        ids(&answer.json())
    }
}

fn ids(list: &Value) -> Vec<String> {
    list["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

fn plain() -> String {
    with("priority", json!(1))
}

#[tokio::test]
async fn what_is_over_can_be_retried() {
    let api = Api::new().await;
    for outcome in [
        Outcome::Succeeded { result: None, keep: None },
        Outcome::Cancelled,
        Outcome::Dead { error: "e".into() },
    ] {
        let id = api.job().await;
        api.finish(id, outcome).await;
        let path = format!("/v1/jobs/{id}/retry");
        let answer = api.post(&path).await;
        assert_eq!(answer.status, 202);
        let job = answer.json();
        assert_eq!((&job["state"], &job["attempt"]), (&json!("queued"), &json!(0)));
        assert_eq!(api.post(&path).await.body, answer.body, "a repeat has the same answer");
        api.claim(id).await;
        let problem = api.post(&path).await.problem(409);
        assert!(problem["detail"].as_str().unwrap().contains("running"), "{problem}");
    }
}

#[tokio::test]
async fn only_what_is_over_can_be_deleted() {
    let api = Api::new().await;
    let id = api.job().await;
    let path = format!("/v1/jobs/{id}");
    assert!(api.delete(&path).await.problem(409)["detail"].as_str().unwrap().contains("queued"));
    api.claim(id).await;
    assert!(api.delete(&path).await.problem(409)["detail"].as_str().unwrap().contains("running"));
    assert_eq!(api.jobs().await, 1);
    let id = api.dead_job(plain()).await;
    let path = format!("/v1/jobs/{id}");
    let answer = api.delete(&path).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    api.delete(&path).await.problem(404);
    api.get(&path).await.problem(404);
    assert_eq!(api.jobs().await, 1);
}

#[tokio::test]
async fn unknown_jobs_are_not_found() {
    let api = Api::new().await;
    let id = JobId::new();
    api.post(&format!("/v1/jobs/{id}/retry")).await.problem(404);
    api.delete(&format!("/v1/jobs/{id}")).await.problem(404);
    api.post("/v1/jobs/x/retry").await.problem(400);
    api.delete("/v1/jobs/x").await.problem(400);
}

#[tokio::test]
async fn the_dead_are_listed_by_filter_and_page() {
    let api = Api::new().await;
    assert!(api.listed("").await.is_empty());
    let red = api.dead_job(with("labels", json!({"team": "red:1"}))).await.to_string();
    let mail = api.dead_job(with("queue", json!("post"))).await.to_string();
    let last = api.dead_job(plain()).await.to_string();
    api.job().await;
    let died = api.get(&format!("/v1/jobs/{mail}")).await.json()["finished_at"].as_str().unwrap().to_owned();
    for (query, expected) in [
        ("", vec![&last, &mail, &red]),
        ("?label=team:red:1", vec![&red]),
        ("?label=team:red", vec![]),
        ("?queue=post", vec![&mail]),
        ("?queue=post&kind=mail", vec![&mail]),
        ("?kind=other", vec![]),
        (&format!("?since={died}"), vec![&last, &mail]),
        (&format!("?until={died}"), vec![&red]),
    ] {
        assert_eq!(api.listed(query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
    let mut seen = Vec::new();
    let mut query = "?limit=1".to_owned();
    loop {
        let page = api.get(&format!("/v1/dead{query}")).await.json();
        assert_eq!(ids(&page).len(), 1);
        seen.extend(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=1&cursor={cursor}");
    }
    assert_eq!(seen, [last, mail, red]);
}

#[tokio::test]
async fn the_dead_are_retried_and_deleted_in_batches() {
    let api = Api::new().await;
    for queue in ["a", "a", "a", "b", "b"] {
        api.dead_job(with("queue", json!(queue))).await;
    }
    let mut counts = Vec::new();
    let mut body = json!({"queue": "a", "limit": 2});
    loop {
        let answer = api.bulk("retry", body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        counts.push(answer["count"].as_u64().unwrap());
        body["cursor"] = answer["next_cursor"].clone();
        if body["cursor"].is_null() {
            break;
        }
    }
    assert_eq!(counts.iter().sum::<u64>(), 3);
    assert!(counts[0] == 2, "{counts:?}");
    assert_eq!(api.listed("").await.len(), 2);
    assert_eq!(api.bulk("delete", "{}").await.json(), json!({"count": 2, "next_cursor": null}));
    assert_eq!(api.bulk("delete", "{}").await.json(), json!({"count": 0, "next_cursor": null}));
    assert_eq!(api.jobs().await, 3);
}

#[tokio::test]
async fn wrong_selections_are_named_and_change_nothing() {
    let api = Api::new().await;
    api.dead_job(plain()).await;
    for (query, name) in [
        ("queue=a/b", "queue"),
        ("kind=", "kind"),
        ("label=x", "label"),
        ("since=yesterday", "since"),
        ("until=2030-01-31", "until"),
        ("cursor=1", "cursor"),
        ("cursor=x.0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f", "cursor"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("colour=red", "colour"),
    ] {
        let answer = api.get(&format!("/v1/dead?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [format!("query:{name}")], "{query}");
    }
    for (body, pointer) in [
        (json!({"queue": 5}), "/queue"),
        (json!({"kind": "no spaces"}), "/kind"),
        (json!({"label": {"a": "b"}}), "/label"),
        (json!({"limit": 1.5}), "/limit"),
        (json!({"limit": [1]}), "/limit"),
        (json!({"colour": 1}), "/colour"),
        (json!({"colour": "red"}), "/colour"),
    ] {
        for what in ["retry", "delete"] {
            let answer = api.bulk(what, body.to_string()).await;
            answer.problem(422);
            assert_eq!(answer.pointers(), [pointer], "{body}");
        }
    }
    api.bulk("retry", "{").await.problem(400);
    api.bulk("delete", "[]").await.problem(422);
    api.bulk("delete", r#"{"kind": "x", "kind": "y"}"#).await.problem(422);
    let untyped = Request::post("/v1/dead/delete").body("{}".into()).unwrap();
    api.send(untyped).await.problem(415);
    assert_eq!(api.listed("").await.len(), 1);
}

#[tokio::test]
async fn a_retried_job_shows_what_went_wrong_before() {
    let api = Api::new().await;
    let id = api.job().await;
    api.finish(id, Outcome::Retry { after: Duration::ZERO, error: "first".into() }).await;
    let store: &dyn windlass_core::Store = &api.store;
    store.promote_due(10).await.unwrap();
    api.finish(id, Outcome::Dead { error: "second".into() }).await;
    let job = api.post(&format!("/v1/jobs/{id}/retry")).await.json();
    let errors: Vec<_> =
        job["errors"].as_array().unwrap().iter().map(|e| e["message"].as_str().unwrap()).collect();
    assert_eq!(errors, ["first", "second"]);
    assert!(job["finished_at"].is_null() && job["result"].is_null());
}
