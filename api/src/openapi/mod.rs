//! The description of the API for programs and for people. `openapi.json` is made from `operations` and from the types
//! of requests and answers by the tests, which fail where it is not what they would make:
//!
//! ```sh
//! WRITE_OPENAPI=1 cargo test -p windlass-api --lib openapi
//! ```

#[cfg(test)]
mod document;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod tests;

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};

/// How long clients may keep either: they change with the release only.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// The page is whole, and talks to the API that serves it alone.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// `GET /openapi.json`
pub(crate) async fn document() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, FRESH),
    ];
    (headers, include_str!("../../openapi.json")).into_response()
}

/// `GET /docs`
pub(crate) async fn page() -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, FRESH),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, include_str!("page.html")).into_response()
}
