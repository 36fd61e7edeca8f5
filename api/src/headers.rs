//! Headers of every answer, which tell browsers and caches to make nothing of it but what it is.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Those that an answer has unless it says otherwise: the page has a policy of its own, and jobs that are over may be kept.
const UNLESS_SAID: [(HeaderName, HeaderValue); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Marks the requests that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secure;

/// Over TLS only: browsers are to come by nothing else from then on, for a year.
const STRICT: HeaderValue = HeaderValue::from_static("max-age=31536000");

pub(crate) fn add_to(headers: &mut HeaderMap, secure: bool) {
    for (name, value) in UNLESS_SAID {
        headers.entry(name).or_insert(value);
    }
    if secure {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, STRICT);
    }
}
