//! Webhooks over HTTP.

use axum::http::Method;
use serde_json::{Value, json};
use windlass_client::{Outside, WebhookSecret};
use windlass_core::{DeliveryAttempt, JobId, MOST_WEBHOOKS, Outcome, State, Store as _};

use crate::support::{Answer, Api};

impl Api {
    async fn webhooks(&self, method: &Method, rest: &str, body: Option<Value>) -> Answer {
        self.ask("none", method, &format!("/v1/webhooks{rest}"), body).await
    }

    /// A webhook's id.
    async fn webhook(&self, body: Value) -> String {
        let made = self.webhooks(&Method::POST, "", Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        made.json()["id"].as_str().unwrap().to_owned()
    }
}

fn hook() -> Value {
    json!({"url": "https://example.com/hook?a=1"})
}

#[tokio::test]
async fn a_webhook_is_made_shown_changed_and_deleted() {
    let api = Api::new().await;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let made = api.webhooks(&post, "", Some(hook())).await;
    assert_eq!(made.status, 201, "{made:?}");
    let mut shown = made.json();
    let id = shown["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/v1/webhooks/{id}"));
    assert_eq!(made.header("cache-control"), "no-store");
    let secret: WebhookSecret = shown["secret"].as_str().unwrap().parse().unwrap();
    for (field, value) in [
        ("url", json!("https://example.com/hook?a=1")),
        ("events", json!(["job.succeeded", "job.dead", "job.cancelled"])),
        ("kinds", json!(null)),
        ("queues", json!(null)),
        ("tenant", json!(null)),
        ("enabled", json!(true)),
        ("old_secret_until", json!(null)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    let path = format!("/{id}");
    shown.as_object_mut().unwrap().remove("secret");
    assert_eq!(api.webhooks(&get, &path, None).await.json(), shown, "without the secret");
    assert_eq!(api.webhooks(&get, "", None).await.json(), json!({"webhooks": [shown]}));

    let change = json!({"url": "https://b.example", "events": ["job.dead", "job.dead"], "kinds": ["mail"], "queues": ["q"]});
    let changed = api.webhooks(&put, &path, Some(change)).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let changed = changed.json();
    assert_eq!((&changed["url"], &changed["events"]), (&json!("https://b.example"), &json!(["job.dead"])));
    assert_eq!((&changed["kinds"], &changed["queues"]), (&json!(["mail"]), &json!(["q"])));
    assert_eq!(changed["created_at"], shown["created_at"]);
    for (what, enabled) in [("disable", false), ("enable", true)] {
        let switched = api.webhooks(&post, &format!("{path}/{what}"), None).await;
        assert_eq!((switched.status.as_u16(), &switched.json()["enabled"]), (200, &json!(enabled)));
    }

    let rotated = api.webhooks(&post, &format!("{path}/rotate?grace=1h"), None).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let another: WebhookSecret = rotated.json()["secret"].as_str().unwrap().parse().unwrap();
    assert_ne!(another, secret);
    assert!(rotated.json()["old_secret_until"].is_string());
    for (query, pointer) in [("grace=31d", "query:grace"), ("grace=x", "query:grace"), ("x=1", "query:x")] {
        let refused = api.webhooks(&post, &format!("{path}/rotate?{query}"), None).await;
        refused.problem(422);
        assert_eq!(refused.pointers(), [pointer]);
    }

    assert_eq!(api.webhooks(&delete, &path, None).await.status, 204);
    for (method, rest) in [
        (&get, ""),
        (&delete, ""),
        (&post, "/enable"),
        (&post, "/rotate"),
        (&post, "/test"),
        (&get, "/deliveries"),
    ] {
        api.webhooks(method, &format!("{path}{rest}"), None).await.problem(404);
    }
    api.webhooks(&put, &path, Some(hook())).await.problem(404);
    api.webhooks(&get, "/no-id", None).await.problem(400);
}

#[tokio::test]
async fn what_cannot_be_a_webhook_is_refused_with_its_field() {
    let api = Api::new().await;
    for (body, pointer) in [
        (json!({}), "/url"),
        (json!({"url": 1}), "/url"),
        (json!({"url": "example.com"}), "/url"),
        (json!({"url": "http://example.com"}), "/url"),
        (json!({"url": "https://localhost/"}), "/url"),
        (json!({"url": "https://127.0.0.1/"}), "/url"),
        (json!({"url": "https://169.254.169.254/"}), "/url"),
        (json!({"url": "https://[::ffff:10.0.0.1]/"}), "/url"),
        (json!({"url": "https://user:hunter2@example.com/"}), "/url"),
        (json!({"url": "https://example.com", "events": []}), "/events"),
        (json!({"url": "https://example.com", "events": ["job.started"]}), "/events"),
        (json!({"url": "https://example.com", "events": ["webhook.test"]}), "/events"),
        (json!({"url": "https://example.com", "kinds": ["a b"]}), "/kinds"),
        (json!({"url": "https://example.com", "kinds": vec!["a"; 101]}), "/kinds"),
        (json!({"url": "https://example.com", "queues": "a"}), "/queues"),
        (json!({"url": "https://example.com", "tenant": ""}), "/tenant"),
        (json!({"url": "https://example.com", "enabled": 1}), "/enabled"),
        (json!({"url": "https://example.com", "secret": "x"}), "/secret"),
    ] {
        let refused = api.webhooks(&Method::POST, "", Some(body.clone())).await;
        let problem = refused.problem(422);
        assert_eq!(refused.pointers(), [pointer], "{body}");
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
    assert_eq!(api.webhooks(&Method::GET, "", None).await.json(), json!({"webhooks": []}));

    // What the settings open is open.
    let outside = Outside { allow: vec!["10.0.0.0/8".parse().unwrap()], allow_http: true };
    let api = Api::with(windlass_api::ApiOptions { outside, ..windlass_api::ApiOptions::default() }).await;
    api.webhook(json!({"url": "http://10.1.2.3/"})).await;
}

#[tokio::test]
async fn there_is_an_end_to_webhooks() {
    let api = Api::new().await;
    for _ in 0..MOST_WEBHOOKS {
        api.webhook(hook()).await;
    }
    api.webhooks(&Method::POST, "", Some(hook())).await.problem(409);
    api.webhook(json!({"url": "https://example.com", "tenant": "acme"})).await;
}

#[tokio::test]
async fn the_log_shows_what_has_been_told() {
    let api = Api::new().await;
    let id = api.webhook(hook()).await;
    let job = api.job().await;
    let attempt = api.claim(job).await;
    api.end(attempt, Outcome::Dead { error: "x".into() }).await;
    while api.store.follow_up(10).await.unwrap() > 0 {}
    let test = api.webhooks(&Method::POST, &format!("/{id}/test"), None).await;
    assert_eq!(test.status, 202, "{test:?}");
    let test: JobId = test.json()["delivery"].as_str().unwrap().parse().unwrap();
    let noted =
        DeliveryAttempt { attempt: 3, status: Some(500), error: Some("the receiver answered 500".into()) };
    api.store.webhooks().note_delivery(test, &noted).await.unwrap();

    let deliveries = api.webhooks(&Method::GET, &format!("/{id}/deliveries"), None).await.json();
    let [newest, oldest] = deliveries["deliveries"].as_array().unwrap().as_slice() else {
        panic!("{deliveries}");
    };
    assert_eq!(
        (&newest["id"], &newest["event"], &newest["job"]),
        (&json!(test), &json!("webhook.test"), &json!(null))
    );
    assert_eq!((&newest["attempt"], &newest["status_code"]), (&json!(3), &json!(500)));
    assert_eq!(newest["error"], "the receiver answered 500");
    assert!(newest["attempted_at"].is_string());
    assert_eq!((&oldest["event"], &oldest["job"]), (&json!("job.dead"), &json!(job)));
    assert_eq!((&oldest["attempt"], &oldest["state"]), (&json!(0), &json!("queued")));
    assert_eq!(api.get(&format!("/v1/jobs/{test}")).await.json()["state"], json!(State::Queued));

    let page = api.webhooks(&Method::GET, &format!("/{id}/deliveries?limit=1"), None).await.json();
    assert_eq!(page["deliveries"], json!([newest]));
    let cursor = page["next_cursor"].as_str().unwrap();
    let page = api.webhooks(&Method::GET, &format!("/{id}/deliveries?cursor={cursor}"), None).await.json();
    assert_eq!((&page["deliveries"], &page["next_cursor"]), (&json!([oldest]), &json!(null)));
    for query in ["limit=0", "limit=1001", "cursor=x"] {
        api.webhooks(&Method::GET, &format!("/{id}/deliveries?{query}"), None).await.problem(422);
    }
}

/// A tenant's webhooks are its own, whatever it asks for, and those of others do not exist for it.
#[tokio::test]
async fn webhooks_are_their_tenants() {
    use windlass_core::Scope;

    use crate::auth::{scopes, with_keys};

    let api = with_keys().await;
    let all = scopes(&[Scope::Admin]);
    let (acme, globex) =
        (api.key(all, Some("acme")).await.expose(), api.key(all, Some("globex")).await.expose());
    let operator = api.key(all, None).await.expose();
    let made = async |key: &str, body: Value| api.ask(key, &Method::POST, "/v1/webhooks", Some(body)).await;
    let listed = async |key: &str| {
        let list = api.ask(key, &Method::GET, "/v1/webhooks", None).await.json();
        list["webhooks"].as_array().unwrap().iter().map(|hook| hook["tenant"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(made(&acme, hook()).await.json()["tenant"], "acme");
    made(&acme, json!({"url": "https://example.com", "tenant": "globex"})).await.problem(403);
    assert_eq!(
        made(&operator, json!({"url": "https://example.com", "tenant": "globex"})).await.json()["tenant"],
        "globex"
    );
    assert_eq!(made(&operator, hook()).await.json()["tenant"], json!(null));
    assert_eq!(listed(&acme).await, [json!("acme")]);
    assert_eq!(listed(&globex).await, [json!("globex")]);
    assert_eq!(listed(&operator).await, [json!("acme"), json!("globex"), json!(null)]);
}
