//! Schedules over HTTP.

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use serde_json::{Value, json};

use crate::support::{Answer, Api};

impl Api {
    async fn put(&self, name: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/v1/schedules/{name}"))
            .header(header::CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn delete_schedule(&self, name: &str) -> Answer {
        self.send(Request::delete(format!("/v1/schedules/{name}")).body(Body::empty()).unwrap()).await
    }
}

fn nightly() -> Value {
    json!({
        "cron": "0 30 2 * * *", "zone": "Europe/Berlin", "missed": "skip", "jitter": "1m",
        "job": {"kind": "mail", "payload": {"to": "a"}, "priority": 2, "timeout": "30s", "expires_in": "1h", "labels": {"a": "b"}},
    })
}

/// What begins as ours would be read as such: another job's payload, for example.
#[tokio::test]
async fn the_reserved_key_is_refused() {
    let api = Api::new().await;
    let mut body = nightly();
    body["job"]["payload"] = json!({"$windlass": {"object": "jobs/20300101/x.payload"}});
    let answer = api.put("nightly", body).await;
    answer.problem(422);
    assert_eq!(answer.pointers(), ["/job/payload"]);
    assert_eq!(api.stored().await, 0);
}

#[tokio::test]
async fn its_jobs_may_be_a_tenants_and_have_limits() {
    let api = Api::new().await;
    let mut body = nightly();
    body["job"]["tenant"] = json!("acme");
    body["job"]["ordering_key"] = json!("order/1");
    let made = api.put("nightly", body.clone()).await.json();
    assert_eq!((&made["job"]["tenant"], &made["job"]["ordering_key"]), (&json!("acme"), &json!("order/1")));
    // Without the limit, nothing would come of any tick.
    body["job"]["limits"] = json!(["mails/acme"]);
    let refused = api.put("nightly", body.clone()).await;
    refused.problem(422);
    assert_eq!(refused.pointers(), ["/job/limits/0"]);
    assert_eq!(api.get("/v1/schedules/nightly").await.json()["job"]["limits"], Value::Null);
    let limit = Request::put("/v1/limits/mails").header(header::CONTENT_TYPE, "application/json");
    api.send(limit.body(Body::from(r#"{"max_running": 1}"#)).unwrap()).await;
    assert_eq!(api.put("nightly", body).await.json()["job"]["limits"], json!(["mails/acme"]));
}

#[tokio::test]
async fn a_schedule_is_kept_shown_switched_and_deleted() {
    let api = Api::new().await;
    let made = api.put("nightly", nightly()).await;
    assert_eq!(made.status, 200, "{made:?}");
    let shown = made.json();
    for (field, value) in [
        ("name", json!("nightly")),
        ("cron", json!("0 30 2 * * *")),
        ("zone", json!("Europe/Berlin")),
        ("missed", json!("skip")),
        ("jitter", json!("1m")),
        ("enabled", json!(true)),
        ("last_run", json!(null)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["job"]["queue"], "letters", "the kind's own");
    assert_eq!(shown["job"]["payload"], json!({"to": "a"}));
    assert_eq!(shown["job"]["expires_in"], "1h");
    let runs: Vec<&str> =
        shown["next_runs"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(runs.len(), 5);
    assert!(runs.is_sorted(), "{runs:?}");

    assert_eq!(api.get("/v1/schedules/nightly").await.json(), shown);
    assert_eq!(api.get("/v1/schedules").await.json(), json!({"schedules": [shown]}));

    let off = api.post("/v1/schedules/nightly/disable").await.json();
    assert_eq!((&off["enabled"], &off["next_runs"]), (&json!(false), &json!([])));
    let again = api.put("nightly", nightly()).await.json();
    assert_eq!(again["enabled"], false, "what an operator said stays");
    assert_eq!(api.post("/v1/schedules/nightly/enable").await.json()["enabled"], true);
    let mut every = nightly();
    every["every"] = json!("90s");
    every.as_object_mut().unwrap().remove("cron");
    every["enabled"] = json!(false);
    let every = api.put("nightly", every).await.json();
    assert_eq!((&every["every"], &every["enabled"]), (&json!("1m 30s"), &json!(false)));

    assert_eq!(api.delete_schedule("nightly").await.status, 204);
    for answer in [
        api.delete_schedule("nightly").await,
        api.get("/v1/schedules/nightly").await,
        api.post("/v1/schedules/nightly/enable").await,
        api.post("/v1/schedules/nightly/disable").await,
    ] {
        answer.problem(404);
    }
    api.get("/v1/schedules/no%20name").await.problem(400);
}

#[tokio::test]
async fn wrong_schedules_are_named_and_not_stored() {
    let api = Api::new().await;
    let cases = [
        ("cron", json!("0 0 30 2 *"), "/cron"),
        ("cron", json!("61 * * * *"), "/cron"),
        ("cron", json!("soon"), "/cron"),
        ("cron", json!(5), "/cron"),
        ("cron", json!(null), "/cron"),
        ("cron", json!("1,".repeat(1000)), "/cron"),
        ("zone", json!("Mars/Olympus"), "/zone"),
        ("zone", json!("+01:00"), "/zone"),
        ("every", json!("1h"), "/every"),
        ("missed", json!("maybe"), "/missed"),
        ("jitter", json!("-1s"), "/jitter"),
        ("jitter", json!("2d"), "/jitter"),
        ("enabled", json!("yes"), "/enabled"),
        ("job", json!(null), "/job"),
        ("job", json!([]), "/job"),
        ("job", json!({"payload": 1}), "/job/kind"),
        ("job", json!({"kind": "mail"}), "/job/payload"),
        ("job", json!({"kind": "mail.unknown", "payload": 1}), "/job/kind"),
        ("job", json!({"kind": "mail", "payload": 1, "priority": 9}), "/job/priority"),
        ("job", json!({"kind": "mail", "payload": 1, "delay": "1s"}), "/job/run_at"),
        ("job", json!({"kind": "mail", "payload": 1, "deadline": "2100-01-01T00:00:00Z"}), "/job/deadline"),
        ("job", json!({"kind": "mail", "payload": 1, "unique": {"fields": []}}), "/job/unique/fields"),
        ("job", json!({"kind": "mail", "payload": 1, "typo": 1}), "/job/typo"),
        ("typo", json!(1), "/typo"),
    ];
    for (field, value, pointer) in cases {
        let mut body = nightly();
        body[field] = value.clone();
        let answer = api.put("s", body).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{field}: {value}");
        assert_eq!(api.stored().await, 0, "{field}: {value}");
    }
    let mut short = nightly();
    short.as_object_mut().unwrap().remove("cron");
    short["every"] = json!("10ms");
    assert_eq!(api.put("s", short).await.pointers(), ["/every"]);
    api.put("no%20name", nightly()).await.problem(400);
    assert_eq!(api.stored().await, 0);
}
