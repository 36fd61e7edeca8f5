//! Which pages of other origins browsers let use the API.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};
use windlass_client::Origin;

use crate::guard::REQUEST_ID;

/// How long browsers need not ask again; none takes more than two hours.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// What pages may send beside what browsers always let them.
fn asked() -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> =
        ["idempotency-key", "prefer", "last-event-id", "traceparent", "tracestate"]
            .map(HeaderName::from_static)
            .to_vec();
    names.extend([
        header::ACCEPT,
        header::AUTHORIZATION,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        REQUEST_ID,
    ]);
    names
}

/// What pages may see beside what browsers always show them.
fn shown() -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> =
        ["idempotency-replayed", "preference-applied", "unique-conflict", "ratelimit", "ratelimit-policy"]
            .map(HeaderName::from_static)
            .to_vec();
    names.extend([header::ETAG, header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE, REQUEST_ID]);
    names
}

/// Answers preflights, and says in every other answer who may see it. None where no origin may.
pub(crate) fn layer(origins: &[Origin]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.contains(&Origin::Any) {
        AllowOrigin::any()
    } else {
        // An origin is written in letters that a header may have.
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(&origin.to_string()).ok()))
    };
    // Nobody is known here by a cookie, so there is nothing that browsers would have to be told to send along.
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(asked())
        .expose_headers(shown())
        .max_age(MAX_AGE);
    Some(layer)
}
