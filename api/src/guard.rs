use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt as _;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{Service, problem::Problem, shed, waiting::may_wait};

/// A body has the whole time, too; this much later it is not the body that is late.
const SLACK: Duration = Duration::from_millis(100);
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Around every request: an id, a span, a time limit, and no panic that a client would see as a cut connection.
pub(crate) async fn guard(service: &Service, request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let began = Instant::now();
    let meter = service.meters.of(request.method(), request.extensions().get::<MatchedPath>());
    let span = tracing::info_span!(
        "request",
        method = %request.method(), path = request.uri().path(), request_id = id.to_str().unwrap_or_default(),
        subject = tracing::field::Empty,
    );
    let mut response = async {
        let waits = if may_wait(&request) { service.options.max_wait } else { Duration::ZERO };
        let running = AssertUnwindSafe(shed::shed(service, request, next)).catch_unwind();
        let limit = service.options.request_timeout + waits + SLACK;
        let response = match tokio::time::timeout(limit, running).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => {
                tracing::error!("the handler panicked");
                Problem::internal().into_response()
            }
            Err(_) => Problem::unavailable(
                "the request took too long; it may have been carried out, so repeat it with the same Idempotency-Key",
                1,
            )
            .into_response(),
        };
        tracing::debug!(status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await;
    meter.answered(response.status(), began.elapsed());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own id if it is short and plain, else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|id| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"._-".contains(b);
        (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain)
    });
    given.cloned().unwrap_or_else(|| {
        let id = windlass_core::JobId::new().to_string();
        // A UUID is a valid header value.
        HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
    })
}
