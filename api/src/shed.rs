//! Load shedding: what is too much is refused at once, so that the rest is served in time.

use std::{cell::Cell, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Service, metrics, problem::Problem};

tokio::task_local! {
    /// The request's place among those in flight, until it gives it up.
    static PLACE: Cell<Option<OwnedSemaphorePermit>>;
}

/// Marks the requests of a connection that is one too many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowded;

/// Lets a request in if there is a place for it. Probes always are let in: who does not answer them is restarted, which
/// helps nobody when there is too much to do.
pub(crate) async fn shed(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    if is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    if request.extensions().get::<Crowded>().is_some() {
        return refuse("connections");
    }
    match service.in_flight.clone().try_acquire_owned() {
        Ok(place) => PLACE.scope(Cell::new(Some(place)), next.run(request)).await,
        Err(_) => refuse("requests"),
    }
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
