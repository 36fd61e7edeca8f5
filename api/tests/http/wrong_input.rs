//! Whatever is wrong with a request is said in a problem document that names the field, and nothing is stored.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use windlass_api::ApiOptions;

use crate::support::{Api, enqueue, with};

#[tokio::test]
async fn each_wrong_field_is_named() {
    let api = Api::new().await;
    let many: serde_json::Map<String, Value> = (0..65).map(|i| (i.to_string(), "x".into())).collect();
    let cases = [
        ("kind", json!(5), "/kind"),
        ("kind", json!(null), "/kind"),
        ("kind", json!(""), "/kind"),
        ("kind", json!("no spaces"), "/kind"),
        ("kind", json!("ü"), "/kind"),
        ("kind", json!("k".repeat(129)), "/kind"),
        ("kind", json!({"a": 1}), "/kind"),
        ("kind", json!("mail.unknown"), "/kind"),
        ("payload", json!({"$windlass": {"key": "k", "data": ""}}), "/payload"),
        ("queue", json!(7), "/queue"),
        ("queue", json!("a/b"), "/queue"),
        ("queue", json!("q".repeat(65)), "/queue"),
        ("priority", json!(4), "/priority"),
        ("priority", json!(-1), "/priority"),
        ("priority", json!(1.5), "/priority"),
        ("priority", json!("1"), "/priority"),
        ("priority", json!(u64::MAX), "/priority"),
        ("priority", json!("x".repeat(100_000)), "/priority"),
        ("run_at", json!("tomorrow"), "/run_at"),
        ("run_at", json!("2030-01-31"), "/run_at"),
        ("run_at", json!("2030-01-31T12:00:00"), "/run_at"),
        ("run_at", json!("2030-02-30T12:00:00Z"), "/run_at"),
        ("run_at", json!("+12030-01-31T12:00:00Z"), "/run_at"),
        ("run_at", json!("9999-12-31T23:59:59-01:00"), "/run_at"),
        ("run_at", json!(1_900_000_000), "/run_at"),
        ("delay", json!("soon"), "/delay"),
        ("delay", json!("-5s"), "/delay"),
        ("delay", json!(30), "/delay"),
        ("delay", json!("P1M"), "/delay"),
        ("delay", json!("PT"), "/delay"),
        ("delay", json!("1000years"), "/delay"),
        ("delay", json!("99999999999999999999s"), "/delay"),
        ("max_attempts", json!(0), "/max_attempts"),
        ("max_attempts", json!(1001), "/max_attempts"),
        ("max_attempts", json!(u64::MAX), "/max_attempts"),
        ("max_attempts", json!("3"), "/max_attempts"),
        ("timeout", json!("0s"), "/timeout"),
        ("timeout", json!("1us"), "/timeout"),
        ("timeout", json!(true), "/timeout"),
        ("labels", json!(["a"]), "/labels"),
        ("labels", json!("a"), "/labels"),
        ("labels", json!(many), "/labels"),
        ("labels", json!({"a": 1}), "/labels/a"),
        ("labels", json!({"a": null}), "/labels/a"),
        ("labels", json!({"": "x"}), "/labels/"),
        ("labels", json!({"a/b~c": 1}), "/labels/a~1b~0c"),
        ("labels", json!({"a": "x".repeat(256)}), "/labels/a"),
        ("labels", json!({"a": "nul\0"}), "/labels/a"),
        ("labels", json!({"k".repeat(63): 1}), &format!("/labels/{}", "k".repeat(63))),
        ("run-at", json!("2030-01-31T12:00:00Z"), "/run-at"),
        ("tags", json!(null), "/tags"),
        ("a/b", json!(1), "/a~1b"),
    ];
    for (field, value, pointer) in cases {
        let shown: String = value.to_string().chars().take(60).collect();
        let answer = api.enqueue(with(field, value)).await;
        let problem = answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{field}: {shown}: {problem}");
        let name = problem["detail"].as_str().unwrap();
        assert!(name.contains(field) || name.contains("kind"), "{field}: {shown}: {problem}");
        assert_eq!(api.stored().await, 0, "{field}: {shown}");
    }
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let api = Api::new().await;
    let body =
        json!({"kind": 5, "priority": 9, "labels": {"a": 1, "b": 2}, "typo": 1, "run_at": "x", "delay": "x"});
    let answer = api.enqueue(body.to_string()).await;
    answer.problem(422);
    let mut pointers = answer.pointers();
    pointers.sort();
    pointers.dedup();
    assert_eq!(
        pointers,
        ["/delay", "/kind", "/labels/a", "/labels/b", "/payload", "/priority", "/run_at", "/typo"]
    );
    assert_eq!(api.stored().await, 0);
}

#[tokio::test]
async fn what_contradicts_itself_or_is_missing_is_named() {
    let api = Api::new().await;
    let cases = [
        (r#"{"payload": 1}"#, "/kind"),
        (r#"{"kind": "mail"}"#, "/payload"),
        (r#"{"kind": "mail", "payload": 1, "delay": "5s", "run_at": "2030-01-31T12:00:00Z"}"#, "/delay"),
        (r#"{"kind": "mail", "payload": 1, "queue": "a", "queue": "b"}"#, "/queue"),
        (r#"{"kind": "mail", "payload": 1, "payload": 1}"#, "/payload"),
        (r#"{"kind": "mail", "payload": 1, "\u006bind": "mail"}"#, "/kind"),
        (r#"{"kind": "mail", "payload": 1, "labels": {"a": "1", "a": "2"}}"#, "/labels/a"),
        (r#"{"kind": "\ud800", "payload": 1}"#, "/kind"),
        ("[]", ""),
        ("null", ""),
        ("17", ""),
        (r#""kind""#, ""),
    ];
    for (body, pointer) in cases {
        let answer = api.enqueue(body).await;
        let problem = answer.problem(422);
        assert_eq!(answer.pointers(), [pointer], "{body}: {problem}");
        assert_eq!(api.stored().await, 0, "{body}");
    }
}

#[tokio::test]
async fn malformed_json_is_told_with_its_place() {
    let api = Api::new().await;
    let cases = [
        ("", "line 1"),
        (" ", "line 1"),
        ("{", "line 1"),
        (r#"{"kind": "mail", "payload": }"#, "line 1 column 29"),
        ("{\"kind\": \"mail\",\n \"payload\": 01}", "line 2"),
        (r#"{"kind": "mail", "payload": 1} x"#, "line 1 column 32"),
        (r#"{"kind": "mail", "payload": 1,}"#, "line 1"),
        (r#"{"kind": "mail", "payload": NaN}"#, "line 1"),
        (r#"{'kind': 'mail', 'payload': 1}"#, "line 1"),
        ("{\"kind\": \"mail\", \"payload\": \"\n\"}", "line"),
        ("\u{feff}{\"kind\": \"mail\", \"payload\": 1}", "line 1"),
        (r#"{"\ud800": 1, "kind": "mail", "payload": 1}"#, "line 1"),
    ];
    for (body, place) in cases {
        let problem = api.enqueue(body).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().contains(place), "{body}: {problem}");
        assert_eq!(api.stored().await, 0, "{body}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused() {
    let api = Api::new().await;
    for bytes in
        [&b"\xff"[..], b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\xaf", b"\xe2\x82"]
    {
        let mut body = b"{\"kind\": \"mail\", \"payload\": \"".to_vec();
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\"}");
        let problem = api.enqueue(body).await.problem(400);
        assert!(problem["detail"].as_str().unwrap().contains("UTF-8 (at byte 29)"), "{problem}");
        assert_eq!(api.stored().await, 0);
    }
}

#[tokio::test]
async fn nesting_is_limited_to_the_level() {
    let api = Api::with(ApiOptions { max_depth: 8, ..ApiOptions::default() }).await;
    let nested = |open: &str, close: &str, levels: usize| {
        format!(r#"{{"kind": "mail", "payload": {}1{}}}"#, open.repeat(levels), close.repeat(levels))
    };
    // The request's own object is the first level.
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        assert_eq!(api.enqueue(nested(open, close, 7)).await.status, 202);
        let stored = api.stored().await;
        let answer = api.enqueue(nested(open, close, 8)).await;
        assert_eq!(answer.problem(422)["type"], "urn:windlass:problem:nested-too-deeply");
        assert_eq!(answer.pointers(), ["/payload"]);
        assert_eq!(api.stored().await, stored);
    }
    // Brackets in texts are no nesting.
    let text = format!(r#"{{"kind": "mail", "payload": "\"{}"}}"#, "[".repeat(1000));
    assert_eq!(api.enqueue(text).await.status, 202);
}

#[tokio::test]
async fn a_megabyte_of_brackets_is_refused_without_harm() {
    let api = Api::new().await;
    for open in ["[", r#"{"a":"#] {
        let open = open.repeat(1_000_000 / open.len());
        for body in [
            open.clone(),
            format!(r#"{{"kind": "mail", "payload": {open}"#),
            format!(r#"{{"kind": "mail", "payload": 1, "labels": {open}"#),
            format!(r#"{{"kind": "mail", "payload": 1, "unknown": {open}"#),
        ] {
            let answer = api.enqueue(body).await;
            assert!(answer.status.is_client_error(), "{answer:?}");
            answer.problem(answer.status.as_u16());
        }
    }
    let closed = format!(
        r#"{{"kind": "mail", "payload": 1, "labels": {}{}}}"#,
        r#"{"a":"#.repeat(100_000),
        "}".repeat(99_999)
    );
    assert!(api.enqueue(closed).await.status.is_client_error());
    let labels = r#"{"kind": "mail", "payload": 1, "labels": "#;
    let closed = format!("{labels}{}1{}}}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let answer = api.enqueue(closed).await;
    answer.problem(422);
    assert_eq!(answer.pointers(), ["/labels"]);
    assert_eq!(api.stored().await, 0);
}

#[tokio::test]
async fn a_body_is_limited_to_the_byte() {
    let limit = 200;
    let api = Api::with(ApiOptions { max_body: limit, ..ApiOptions::default() }).await;
    let sized = |size: usize| {
        let frame = r#"{"kind": "mail", "payload": ""}"#;
        format!(r#"{{"kind": "mail", "payload": "{}"}}"#, "x".repeat(size - frame.len()))
    };
    let problem = api.enqueue(sized(limit + 1)).await.problem(413);
    assert!(problem["detail"].as_str().unwrap().contains("200 bytes"), "{problem}");
    assert_eq!(api.stored().await, 0);
    assert_eq!(api.enqueue(sized(limit)).await.status, 202);
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let api = Api::new().await;
    let body = || Body::from(r#"{"kind": "mail", "payload": 1}"#);
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "json", ""] {
        let request = Request::post("/v1/jobs").header("content-type", media_type).body(body()).unwrap();
        assert_eq!(
            api.send(request).await.problem(415)["type"],
            "urn:windlass:problem:media-type",
            "{media_type}"
        );
    }
    api.send(Request::post("/v1/jobs").body(body()).unwrap()).await.problem(415);
    assert_eq!(api.stored().await, 0);
    for media_type in ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"] {
        let request = Request::post("/v1/jobs").header("content-type", media_type).body(body()).unwrap();
        assert_eq!(api.send(request).await.status, 202, "{media_type}");
    }
}

#[tokio::test]
async fn an_idempotency_key_must_be_one_of_255_visible_characters() {
    let api = Api::new().await;
    let long = "k".repeat(256);
    for keys in [&[""][..], &["a b"], &["a\tb"], &["ü"], &[&long], &["a", "a"]] {
        let request = keys.iter().fold(enqueue(), |request, key| request.header("idempotency-key", *key));
        let answer = api.send(request.body(r#"{"kind": "mail", "payload": 1}"#.into()).unwrap()).await;
        answer.problem(422);
        assert_eq!(answer.pointers(), ["header:idempotency-key"], "{keys:?}");
        assert_eq!(api.stored().await, 0);
    }
    let request = enqueue().header("idempotency-key", "~".repeat(255));
    let answer = api.send(request.body(r#"{"kind": "mail", "payload": 1}"#.into()).unwrap()).await;
    assert_eq!(answer.status, 202);
}

#[tokio::test]
async fn ids_are_checked_before_the_store_is_asked() {
    let api = Api::new().await;
    for id in ["1", "x", "0199d5a2-7c1e-7cc3-98c4-dc0c0c07398", "%20", "%00", "%ff", "..", "%2e%2e", "a%2fb"]
    {
        for answer in
            [api.get(&format!("/v1/jobs/{id}")).await, api.post(&format!("/v1/jobs/{id}/cancel")).await]
        {
            let problem = answer.problem(400);
            assert!(problem["detail"].as_str().unwrap().contains("job id"), "{id}: {problem}");
        }
    }
    let unknown = "0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f";
    for id in [unknown, "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
        assert!(
            api.get(&format!("/v1/jobs/{id}")).await.problem(404)["detail"].as_str().unwrap().contains(id)
        );
        api.post(&format!("/v1/jobs/{id}/cancel")).await.problem(404);
    }
}

#[tokio::test]
async fn other_routes_and_methods_are_problems_too() {
    let api = Api::new().await;
    for path in ["/", "/v1", "/v1/jobs/", "/v1/job", "/v2/jobs", "/v1/jobs/a/b", "//", "/v1/jobs/a/cancel/"] {
        api.get(path).await.problem(404);
    }
    for (method, path, allow) in [
        ("PUT", "/v1/jobs", "GET,HEAD,POST"),
        ("DELETE", "/v1/jobs", "GET,HEAD,POST"),
        ("POST", "/v1/jobs/x", "GET,HEAD,DELETE"),
        ("OPTIONS", "/v1/jobs/x", "GET,HEAD,DELETE"),
        ("GET", "/v1/jobs/x/cancel", "POST"),
        ("BREW", "/healthz", "GET,HEAD"),
        ("PUT", "/readyz", "GET,HEAD"),
    ] {
        let answer = api.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        answer.problem(405);
        assert_eq!(answer.header("allow").replace(' ', ""), allow, "{method} {path}");
    }
    assert_eq!(api.stored().await, 0);
}
