//! What browsers are told: who may see an answer, and what not to make of it.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header, request::Builder},
};
use windlass_api::{ApiOptions, Authentication};
use windlass_client::Origin;

use crate::support::{Answer, Api};

const PAGE: &str = "https://app.example.com";

async fn api(origins: &[&str], authentication: Authentication) -> Api {
    let cors_origins = origins.iter().map(|origin| origin.parse::<Origin>().unwrap()).collect();
    Api::with(ApiOptions { cors_origins, authentication, ..ApiOptions::default() }).await
}

async fn send(api: &Api, request: Builder) -> Answer {
    api.send(request.body(Body::empty()).unwrap()).await
}

fn preflight(origin: &str) -> Builder {
    Request::builder()
        .method(Method::OPTIONS)
        .uri("/v1/jobs")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,idempotency-key")
}

fn has(list: &str, wanted: &[&str]) {
    let names: Vec<&str> = list.split(',').map(str::trim).collect();
    for name in wanted {
        assert!(names.contains(name), "{name} is not in {list:?}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_use_the_api_only_if_they_are_named() {
    let closed = api(&[], Authentication::Off).await;
    for request in [preflight(PAGE), Request::get("/v1/jobs").header("origin", PAGE)] {
        let answer = send(&closed, request).await;
        assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
    }
    // A key is needed for the request, but not to ask whether it may be sent.
    let open = api(&[PAGE, "http://localhost:3000"], Authentication::Required { jwt: None }).await;
    let answer = send(&open, preflight(PAGE)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("access-control-allow-origin"), PAGE);
    assert_eq!(answer.header("access-control-max-age"), "3600");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    has(answer.header("access-control-allow-methods"), &["GET", "POST", "PUT", "DELETE"]);
    let allowed = answer.header("access-control-allow-headers");
    has(
        allowed,
        &["authorization", "content-type", "idempotency-key", "if-none-match", "prefer", "x-request-id"],
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let answer = send(&open, preflight("https://evil.example.com")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "{answer:?}");
}

#[tokio::test]
async fn pages_see_refusals_as_well_and_the_headers_that_they_need() {
    let open = api(&[PAGE], Authentication::Required { jwt: None }).await;
    for (path, status) in [("/v1/jobs", 401), ("/nowhere", 404), ("/healthz", 204)] {
        let answer = send(&open, Request::get(path).header("origin", PAGE)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), PAGE, "{answer:?}");
        let shown = answer.header("access-control-expose-headers");
        has(shown, &["etag", "location", "retry-after", "x-request-id", "ratelimit", "idempotency-replayed"]);
        // Nor may a cache give it to a page that may not see it.
        let vary = answer.headers.get_all(header::VARY).iter().map(|value| value.to_str().unwrap());
        has(&vary.collect::<Vec<_>>().join(","), &["origin"]);
    }
    let any = api(&["*"], Authentication::Off).await;
    let answer = send(&any, Request::get("/v1/jobs").header("origin", "https://who.ever")).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn every_answer_is_what_it_is_and_nothing_else() {
    let api = api(&[], Authentication::Off).await;
    let job = format!("/v1/jobs/{}", api.job().await);
    for path in ["/v1/jobs", &job, "/nowhere", "/healthz", "/docs", "/openapi.json"] {
        let answer = api.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(policy.contains("script-src"), path == "/docs", "{path}: {policy}");
        // What may be kept says so itself.
        let kept = match path {
            "/docs" | "/openapi.json" => "public, max-age=300",
            path if path == job => "private, no-cache",
            _ => "no-store",
        };
        assert_eq!(answer.header("cache-control"), kept, "{path}");
        // Over TLS only.
        assert_eq!(answer.header("strict-transport-security"), "", "{path}");
    }
}
