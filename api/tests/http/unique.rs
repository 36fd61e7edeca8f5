//! Uniqueness, expiry and versions over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Api, with};

fn body(payload: Value, field: &str, value: Value) -> String {
    let mut body = json!({"kind": "mail", "payload": payload});
    body[field] = value;
    body.to_string()
}

#[tokio::test]
async fn a_second_job_of_a_key_is_answered_by_the_rule() {
    let api = Api::new().await;
    let unique =
        |payload: u32, on: &str| body(json!(payload), "unique", json!({"key": "k", "on_conflict": on}));
    let first = api.enqueue(unique(1, "existing")).await;
    assert_eq!((first.status.as_u16(), first.header("unique-conflict")), (202, ""));
    let id = first.json()["id"].clone();
    let held = api.enqueue(unique(2, "existing")).await;
    assert_eq!((held.status.as_u16(), held.header("unique-conflict")), (202, "existing"));
    assert_eq!(held.json()["id"], id);
    assert_eq!(held.header("location"), format!("/v1/jobs/{}", id.as_str().unwrap()));
    let replaced = api.enqueue(unique(3, "replace")).await;
    assert_eq!(replaced.header("unique-conflict"), "replaced");
    let before = api.stored().await;
    let refused = api.enqueue(unique(4, "refuse")).await;
    let problem = refused.problem(409);
    assert!(problem["type"].as_str().unwrap().ends_with(":not-unique"));
    assert!(problem["detail"].as_str().unwrap().contains(id.as_str().unwrap()));
    assert_eq!(api.stored().await, before);
    let claimed = api.claim(id.as_str().unwrap().parse().unwrap()).await;
    assert_eq!(claimed.payload.get(), "3");
}

#[tokio::test]
async fn fields_debounce_and_throttle_make_keys() {
    let api = Api::new().await;
    let fields = json!({"fields": ["/to"]});
    let a =
        api.enqueue(body(json!({"to": "a", "n": 1}), "unique", fields.clone())).await.json()["id"].clone();
    assert_eq!(api.enqueue(body(json!({"n": 2, "to": "a"}), "unique", fields.clone())).await.json()["id"], a);
    assert_ne!(api.enqueue(body(json!({"to": "b"}), "unique", fields)).await.json()["id"], a);

    let debounce = || body(json!(1), "debounce", json!({"key": "k", "delay": "1h", "max_wait": "90m"}));
    let first = api.enqueue(debounce()).await;
    assert_eq!(first.json()["state"], "scheduled");
    assert!(first.json()["run_at"].is_string(), "{first:?}");
    let second = api.enqueue(debounce()).await;
    assert_eq!(second.header("unique-conflict"), "replaced");
    assert!(second.json()["run_at"].as_str() > first.json()["run_at"].as_str());

    let throttle = || body(json!(1), "throttle", json!({"key": "k", "period": "1h"}));
    let first = api.enqueue(throttle()).await;
    assert_eq!(api.enqueue(throttle()).await.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn expiry_deadline_and_version_are_stored() {
    let api = Api::new().await;
    let request = json!({"kind": "mail", "payload": 1, "expires_in": "1h", "deadline": "2100-01-01T00:00:00Z", "version": 7});
    let accepted = api.enqueue(request.to_string()).await.json();
    let id = accepted["id"].as_str().unwrap().parse().unwrap();
    let job = api.get(&format!("/v1/jobs/{id}")).await.json();
    for field in ["expires_at", "deadline", "version"] {
        assert_eq!(accepted[field], job[field], "{field}");
    }
    assert_eq!((&job["deadline"], &job["version"]), (&json!("2100-01-01T00:00:00.000000Z"), &json!(7)));
    let time = |field: &str| job[field].as_str().unwrap().parse::<windlass_core::Timestamp>().unwrap();
    let left = time("expires_at") - time("created_at");
    assert!((3590..=3600).contains(&left.num_seconds()), "{job}");
    let claimed = api.claim(id).await;
    assert_eq!(claimed.version, 7);
    assert!(claimed.time_left.unwrap() > Duration::from_secs(86_400));
}

#[tokio::test]
async fn wrong_rules_are_named() {
    let api = Api::new().await;
    let long = "k".repeat(256);
    let cases = [
        ("expires_at", json!("2020-01-01T00:00:00Z"), "/expires_at"),
        ("expires_at", json!("soon"), "/expires_at"),
        ("expires_in", json!("-5s"), "/expires_in"),
        ("expires_in", json!("0s"), "/expires_in"),
        ("deadline", json!("2020-01-01T00:00:00Z"), "/deadline"),
        ("deadline", json!("5s"), "/deadline"),
        ("version", json!(0), "/version"),
        ("version", json!(32_768), "/version"),
        ("version", json!("1"), "/version"),
        ("unique", json!("key"), "/unique"),
        ("unique", json!({}), "/unique/key"),
        ("unique", json!({"key": ""}), "/unique/key"),
        ("unique", json!({"key": long}), "/unique/key"),
        ("unique", json!({"key": "k", "fields": [""]}), "/unique/fields"),
        ("unique", json!({"fields": []}), "/unique/fields"),
        ("unique", json!({"fields": ["to"]}), "/unique/fields"),
        ("unique", json!({"fields": [1]}), "/unique/fields"),
        ("unique", json!({"fields": vec!["/a"; 17]}), "/unique/fields"),
        ("unique", json!({"key": "k", "for": "0s"}), "/unique/for"),
        ("unique", json!({"key": "k", "for": "-1s"}), "/unique/for"),
        ("unique", json!({"key": "k", "on_conflict": "ignore"}), "/unique/on_conflict"),
        ("unique", json!({"key": "k", "a/b": 1}), "/unique/a~1b"),
        ("debounce", json!({"key": "k"}), "/debounce/delay"),
        ("debounce", json!({"key": "k", "delay": "-1s"}), "/debounce/delay"),
        ("debounce", json!({"delay": "1s"}), "/debounce/key"),
        ("debounce", json!({"key": long, "delay": "1s"}), "/debounce/key"),
        ("throttle", json!({"key": "k"}), "/throttle/period"),
        ("throttle", json!({"key": "", "period": "1s"}), "/throttle/key"),
        ("throttle", json!({"key": "k", "period": "0s"}), "/throttle/period"),
    ];
    for (field, value, pointer) in cases {
        let answer = api.enqueue(with(field, value.clone())).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{field}: {value}");
        assert_eq!(api.stored().await, 0, "{field}: {value}");
    }
    for (more, pointer) in [
        (json!({"unique": {"key": "k"}, "throttle": {"key": "k", "period": "1s"}}), "/throttle"),
        (json!({"debounce": {"key": "k", "delay": "1s"}, "delay": "1s"}), "/debounce"),
        (json!({"expires_in": "1h", "expires_at": "2100-01-01T00:00:00Z"}), "/expires_in"),
        (json!({"delay": "2h", "deadline": "2000-01-01T00:00:00Z"}), "/deadline"),
        (json!({"run_at": "2101-01-01T00:00:00Z", "expires_at": "2100-01-01T00:00:00Z"}), "/expires_at"),
    ] {
        let mut request = json!({"kind": "mail", "payload": 1});
        request.as_object_mut().unwrap().append(&mut more.as_object().unwrap().clone());
        let answer = api.enqueue(request.to_string()).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{more}");
    }
    assert_eq!(api.stored().await, 0);
}
