//! Whatever is sent to `POST /v1/jobs` is answered with 202 or a 4xx problem, never with a 5xx.

use axum::body::Body;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use windlass_api::ApiOptions;

use crate::support::{Api, enqueue};

/// Any JSON, with a liking for what requests consist of.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec![
            "mail",
            "letters",
            "30s",
            "1h",
            "2030-01-31T12:00:00Z",
            "9999-12-31T23:59:59Z",
            "\0"
        ])
        .prop_map(Value::from),
        (-2i64..5).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

fn request() -> impl Strategy<Value = String> {
    const FIELDS: [&str; 10] = [
        "kind",
        "payload",
        "queue",
        "priority",
        "run_at",
        "delay",
        "max_attempts",
        "timeout",
        "labels",
        "other",
    ];
    prop::collection::btree_map(prop::sample::select(FIELDS.to_vec()), value(), 0..6).prop_map(
        |mut fields| {
            fields.entry("kind").or_insert("mail".into());
            fields.entry("payload").or_insert(Value::Null);
            json!(fields).to_string()
        },
    )
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        request().prop_map(String::into_bytes),
        // A request with one byte changed.
        (request(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(request, index, byte)| {
            let mut bytes = request.into_bytes();
            let at = index.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    let name = prop::sample::select(vec![
        "idempotency-key",
        "traceparent",
        "x-request-id",
        "if-none-match",
        "accept",
    ]);
    prop::collection::vec((name, prop::collection::vec(any::<u8>(), 0..40)), 0..3)
}

#[test]
fn no_request_is_answered_with_a_server_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = runtime.block_on(Api::with(ApiOptions { max_body: 4096, ..ApiOptions::default() }));
    let config = Config { cases: 1000, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&(body(), headers()), |(body, headers)| {
            runtime.block_on(async {
                let mut request = enqueue();
                for (name, bytes) in headers {
                    if let Ok(value) = axum::http::HeaderValue::from_bytes(&bytes) {
                        request = request.header(name, value);
                    }
                }
                let before = api.jobs().await;
                let answer = api.send(request.body(Body::from(body)).unwrap()).await;
                let created = api.jobs().await - before;
                match answer.status.as_u16() {
                    202 if answer.header("idempotency-replayed") == "true" => assert_eq!(created, 0),
                    202 => {
                        assert_eq!(created, 1);
                        let polled = api.get(answer.header("location")).await;
                        assert_eq!(polled.body, answer.body);
                    }
                    status @ (400 | 413 | 422) => {
                        answer.problem(status);
                        assert_eq!(created, 0);
                    }
                    _ => panic!("{answer:?}"),
                }
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_path_is_answered_with_a_server_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let api = runtime.block_on(Api::new());
    let config = Config { cases: 500, failure_persistence: None, ..Config::default() };
    let path = prop::collection::vec("[a-zA-Z0-9%._~/-]{0,12}|v1|jobs|cancel|%[0-9a-fA-F]{2}", 0..5);
    TestRunner::new(config)
        .run(&path, |parts| {
            let path = format!("/{}", parts.join("/"));
            // Some are no path at all.
            if let Ok(request) = axum::http::Request::get(&path).body(Body::empty()) {
                let answer = runtime.block_on(api.send(request));
                assert!(!answer.status.is_server_error(), "{path}: {answer:?}");
                if !answer.status.is_success() {
                    answer.problem(answer.status.as_u16());
                }
            }
            Ok(())
        })
        .unwrap();
}
