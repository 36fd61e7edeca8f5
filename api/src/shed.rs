//! Load shedding: what is too much is refused at once, so that the rest is served in time.

use std::{cell::Cell, sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{self, HeaderValue, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Service, cbor,
    guard::{self, REQUEST_ID},
    headers::{self, Secure},
    metrics,
    problem::Problem,
    rates::by_address,
};

tokio::task_local! {
    /// The request's place among those in flight, until it gives it up.
    static PLACE: Cell<Option<OwnedSemaphorePermit>>;
}

/// Marks the requests of a connection that is one too many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowded;

/// Where jobs are enqueued.
const ENQUEUE: [&str; 3] = ["/v1/jobs", "/v1/jobs/batch", "/v1/workflows"];

/// Lets a request in if there is a place for it. Probes always are let in: who does not answer them is restarted, which
/// helps nobody when there is too much to do.
pub(crate) async fn shed(service: &Service, request: Request, next: Next) -> Response {
    if is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    if request.extensions().get::<Crowded>().is_some() {
        return refuse("connections");
    }
    let Ok(place) = service.in_flight.clone().try_acquire_owned() else {
        return refuse("requests");
    };
    let _entered = match enqueues(&request).then(|| service.crowd.enter()) {
        Some(None) => return refuse("jobs"),
        entered => entered,
    };
    PLACE.scope(Cell::new(Some(place)), by_address(service, request, next)).await
}

fn enqueues<B>(request: &http::Request<B>) -> bool {
    request.method() == Method::POST && ENQUEUE.contains(&request.uri().path())
}

/// Refuses a request to enqueue where it comes in, as long as there are too many: this has to cost little, so that there is
/// time for the others. Those that want more than the plain answer go the whole way to theirs.
pub(crate) fn refuse_early<B>(service: &Service, request: &http::Request<B>) -> Option<Response> {
    let asked = request.headers();
    if !enqueues(request)
        || asked.contains_key(header::ORIGIN)
        || cbor::is_wanted(asked)
        || request.extensions().get::<Crowded>().is_some()
        || !service.crowd.refuses()
    {
        return None;
    }
    let mut response = refuse("jobs");
    service
        .meters
        .at(request.method(), Some(request.uri().path()))
        .answered(response.status(), Duration::ZERO);
    let answered = response.headers_mut();
    answered.insert(REQUEST_ID, guard::request_id(asked));
    answered.append(header::VARY, HeaderValue::from_static("accept"));
    headers::add_to(answered, request.extensions().get::<Secure>().is_some());
    Some(response)
}

/// Gives up the request's place: from here on it only waits, which is bounded by other means.
pub(crate) fn only_waits() {
    // Outside of a request there is no place to give up.
    let _ = PLACE.try_with(Cell::take);
}

/// As many places as a setting says, or as there can be.
pub(crate) fn places(wanted: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(wanted.min(Semaphore::MAX_PERMITS)))
}

pub(crate) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn refuse(what: &'static str) -> Response {
    metrics::count_shed(what);
    let detail = format!("too many {what} at a time here; nothing was stored, so repeat it shortly");
    Problem::unavailable(detail, 1).into_response()
}
