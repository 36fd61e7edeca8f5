//! Answers are compressed for those who can read them so.

use std::sync::Arc;

use axum::{
    Router,
    body::HttpBody as _,
    extract::{Request, State},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header},
    middleware::{self, Next},
    response::Response,
};
use tokio::sync::Semaphore;
use tower_http::{CompressionLevel, compression::CompressionLayer};

use crate::{cbor, held::hold};

/// Less is not worth it.
const SMALLEST: u64 = 1024;
/// How many answers are being compressed at a time. Each has some MiB of tables until its client has read it; those beyond
/// are sent as they are.
const PLACES: usize = 32;
/// Quick rather than small, for all of them.
const LEVEL: CompressionLevel = CompressionLevel::Precise(3);

/// Marks the answers that may be compressed.
#[derive(Debug, Clone, Copy)]
struct Worth;

pub(crate) fn add_to(router: Router) -> Router {
    let worth = |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| {
        extensions.get::<Worth>().is_some()
    };
    router
        .layer(middleware::from_fn_with_state(Arc::new(Semaphore::new(PLACES)), choose))
        .layer(CompressionLayer::new().quality(LEVEL).compress_when(worth))
        .layer(middleware::map_response(weaken))
}

/// Streams are not chosen, since their events are not to wait for others.
async fn choose(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let understands = request.headers().contains_key(header::ACCEPT_ENCODING);
    let mut response = next.run(request).await;
    if response.body().size_hint().exact().is_none_or(|size| size < SMALLEST) {
        return response;
    }
    // Caches are to know, even if it is not compressed this time.
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    match places.try_acquire_owned() {
        Ok(place) if understands => {
            response.extensions_mut().insert(Worth);
            response.map(|body| hold(body, place))
        }
        _ => response,
    }
}

/// Compressed or in CBOR, an answer is no longer the same byte for byte, which is what a strong tag says.
async fn weaken(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let is_cbor = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == cbor::MEDIA_TYPE);
    if (is_cbor || headers.contains_key(header::CONTENT_ENCODING))
        && let Some(tag) = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok())
        && !tag.starts_with("W/")
        && let Ok(weak) = HeaderValue::from_str(&format!("W/{tag}"))
    {
        headers.insert(header::ETAG, weak);
    }
    response
}
