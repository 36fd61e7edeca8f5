//! What is accepted, and that it is stored as asked for.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use windlass_api::ApiOptions;
use windlass_client::UnknownKinds;

use crate::support::{Api, enqueue, with};

#[tokio::test]
async fn the_answer_is_the_job_as_a_poll_shows_it() {
    let api = Api::new().await;
    for body in [
        with("labels", json!({})),
        with("delay", json!("1h 30m")),
        with("run_at", json!("2030-01-31T12:00:00.123456789+01:00")),
        with("run_at", json!("2001-01-31T12:00:00Z")),
        with("run_at", json!("0000-01-01T00:00:00Z")),
        with("run_at", json!("2030-06-30T23:59:60Z")),
        with("run_at", json!("9999-12-31T23:59:59Z")),
        with("labels", json!({"customer": "42", "ü": "ß", "quote\"": "\\"})),
        with("priority", json!(3)),
    ] {
        let accepted = api.enqueue(body.clone()).await;
        assert_eq!(accepted.status, 202, "{body}: {accepted:?}");
        let polled = api.get(accepted.header("location")).await;
        assert_eq!(polled.status, 200);
        assert_eq!(accepted.body, polled.body, "{body}");
        assert_eq!(accepted.header("content-type"), "application/json");
        assert_eq!(accepted.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn the_object_has_every_field_and_the_kind_s_defaults() {
    let api = Api::new().await;
    let answer = api.enqueue(r#"{"kind": "mail", "payload": {"to": "a"}}"#).await;
    let job = answer.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/v1/jobs/{id}"));
    let created = job["created_at"].as_str().unwrap();
    assert!(created.len() == 27 && created.ends_with('Z'), "{created}");
    let age = Utc::now() - created.parse::<DateTime<Utc>>().unwrap();
    assert!(age >= TimeDelta::zero() && age < TimeDelta::minutes(1), "{age}");
    assert_eq!(
        job,
        json!({
            "id": id, "kind": "mail", "queue": "letters", "state": "queued", "attempt": 0, "max_attempts": 8,
            "priority": 1, "created_at": created, "run_at": null, "started_at": null, "finished_at": null,
            "expires_at": null, "deadline": null, "version": 1, "progress": null, "result": null, "errors": [], "labels": {},
        })
    );
}

#[tokio::test]
async fn what_the_request_says_goes_before_the_defaults() {
    let api = Api::new().await;
    let body = json!({
        "kind": "mail", "payload": null, "queue": "other", "priority": 0, "run_at": "2030-01-31T12:00:00+01:00",
        "max_attempts": 1000, "timeout": "90s", "labels": {"a": "b"}, "delay": null,
    });
    let job = api.enqueue(body.to_string()).await.json();
    for (field, value) in [
        ("queue", json!("other")),
        ("priority", json!(0)),
        ("state", json!("scheduled")),
        ("run_at", json!("2030-01-31T11:00:00.000000Z")),
        ("max_attempts", json!(1000)),
        ("labels", json!({"a": "b"})),
    ] {
        assert_eq!(job[field], value, "{field}");
    }
}

#[tokio::test]
async fn the_handler_gets_the_payload_byte_for_byte() {
    let api = Api::new().await;
    for payload in [
        "null",
        "-0.0",
        "1e400",
        "12345678901234567890123456789.10",
        r#"{ "b" : [ 1 , 2.50 ],  "a":"\u00e9\/\ud83d\ude00\u0000" }"#,
        r#""é\n""#,
        "[]",
    ] {
        let answer = api.enqueue(format!(r#"{{"payload":{payload},"kind":"mail"}}"#)).await;
        let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(api.claim(id).await.payload.get(), payload);
    }
}

#[tokio::test]
async fn timeout_and_trace_reach_the_worker() {
    let api = Api::new().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (given, taken) in [(trace, Some(trace)), ("00-nonsense", None), ("ü", None)] {
        let request = enqueue().header("traceparent", given);
        let answer = api.send(request.body(with("timeout", json!("1500ms")).into()).unwrap()).await;
        let claimed = api.claim(answer.json()["id"].as_str().unwrap().parse().unwrap()).await;
        assert_eq!(claimed.trace.as_ref().map(|trace| trace.as_str()), taken);
        assert_eq!(claimed.timeout, Some(std::time::Duration::from_millis(1500)));
    }
}

#[tokio::test]
async fn a_delay_counts_from_now() {
    let api = Api::new().await;
    for (delay, seconds) in [("30s", 30), ("2h", 7200), ("1day", 86_400), ("PT45M", 2700), ("P1DT1S", 86_401)]
    {
        let job = api.enqueue(with("delay", json!(delay))).await.json();
        assert_eq!(job["state"], "scheduled");
        let time = |field: &str| job[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let wait = time("run_at") - time("created_at");
        assert!((wait - TimeDelta::seconds(seconds)).abs() < TimeDelta::seconds(5), "{delay}: {wait}");
    }
    let job = api.enqueue(with("delay", json!("0s"))).await.json();
    assert_eq!((&job["state"], &job["run_at"]), (&json!("queued"), &Value::Null));
}

#[tokio::test]
async fn unknown_kinds_are_accepted_where_that_is_wanted() {
    let options = ApiOptions { unknown_kinds: UnknownKinds::Accept, ..ApiOptions::default() };
    let api = Api::with(options).await;
    let job = api.enqueue(r#"{"kind": "strange", "payload": 1}"#).await.json();
    assert_eq!((&job["queue"], &job["max_attempts"]), (&json!("default"), &json!(20)));
    let job = api.enqueue(r#"{"kind": "mail", "payload": 1}"#).await.json();
    assert_eq!((&job["queue"], &job["max_attempts"]), (&json!("letters"), &json!(8)));
}

#[tokio::test]
async fn a_plain_request_id_comes_back_and_another_is_replaced() {
    let api = Api::new().await;
    for (given, kept) in [("abc-1.2_3", true), ("no spaces", false), ("", false), (&"x".repeat(129), false)] {
        let request = enqueue().header("x-request-id", given).body(with("queue", json!("q")).into()).unwrap();
        let answer = api.send(request).await;
        let id = answer.header("x-request-id");
        assert!(!id.is_empty());
        assert_eq!(id == given, kept, "{given:?} became {id:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_is_accepted_and_each_gets_its_own_job() {
    let api = Api::new().await;
    let bodies = (0..300).map(|i| format!(r#"{{"kind": "mail", "payload": {i}}}"#));
    let answers = futures::future::join_all(bodies.map(|body| api.enqueue(body))).await;
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 202);
        let id = answer.json()["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(api.claim(id).await.payload.get(), i.to_string());
    }
    assert_eq!(api.jobs().await, 300);
}
