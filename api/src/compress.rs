//! Answers are compressed for those who can read them so.

use std::sync::Arc;

use axum::{
    body::HttpBody as _,
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use tokio::sync::Semaphore;
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, Predicate},
};

use crate::{cbor, held::hold};

/// Less is not worth it.
const SMALLEST: u64 = 1024;
/// How many answers are being compressed at a time. Each has some MiB of tables until its client has read it; those beyond
/// are sent as they are.
pub(crate) const PLACES: usize = 32;
/// Quick rather than small, for all of them.
const LEVEL: CompressionLevel = CompressionLevel::Precise(3);

/// Marks the answers that may be compressed.
#[derive(Debug, Clone, Copy)]
struct Worth;

/// Compresses what is [chosen](choose).
pub(crate) fn layer() -> CompressionLayer<impl Predicate> {
    let worth = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<Worth>().is_some()
    };
    CompressionLayer::new().quality(LEVEL).compress_when(worth)
}

pub(crate) fn is_understood(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ACCEPT_ENCODING)
}

/// Marks the answer if it is to be compressed. Streams are not chosen, since their events are not to wait for others.
pub(crate) fn choose(mut response: Response, understands: bool, places: &Arc<Semaphore>) -> Response {
    if response.body().size_hint().exact().is_none_or(|size| size < SMALLEST) {
        return response;
    }
    // Caches are to know, even if it is not compressed this time.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    match places.clone().try_acquire_owned() {
        Ok(place) if understands => {
            response.extensions_mut().insert(Worth);
            response.map(|body| hold(body, place))
        }
        _ => response,
    }
}

/// Compressed or in CBOR, an answer is no longer the same byte for byte, which is what a strong tag says.
pub(crate) fn weaken(headers: &mut HeaderMap) {
    let is_cbor = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == cbor::MEDIA_TYPE);
    if (is_cbor || headers.contains_key(header::CONTENT_ENCODING))
        && let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
        && let Ok(weak) = HeaderValue::from_str(&format!("W/{tag}"))
    {
        headers.insert(header::ETAG, weak);
    }
}
