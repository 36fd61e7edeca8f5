//! Every route of the API.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::Method,
    routing::{self, MethodRouter},
};

use crate::{
    Service, batch, bulk, dead, enqueue, events, health, job, kinds, limits, listing, logs, openapi, queues,
    schedules, workers, workflows,
};

/// The routes. What each takes and answers is described in `openapi/operations.rs`.
fn table() -> Vec<Route> {
    vec![
        get("/v1/jobs", listing::list),
        post("/v1/jobs", enqueue::enqueue),
        post("/v1/jobs/batch", batch::enqueue),
        post("/v1/jobs/cancel", bulk::cancel),
        post("/v1/jobs/retry", bulk::retry),
        post("/v1/jobs/delete", bulk::delete),
        get("/v1/jobs/events", events::many),
        get("/v1/jobs/{id}", job::get),
        delete("/v1/jobs/{id}", dead::delete),
        post("/v1/jobs/{id}/cancel", job::cancel),
        get("/v1/jobs/{id}/events", events::one),
        get("/v1/jobs/{id}/errors", job::errors),
        get("/v1/jobs/{id}/logs", logs::logs),
        get("/v1/jobs/{id}/progress", job::progress),
        get("/v1/jobs/{id}/result", job::result),
        post("/v1/jobs/{id}/retry", dead::retry),
        get("/v1/dead", dead::list),
        post("/v1/dead/retry", dead::retry_many),
        post("/v1/dead/delete", dead::delete_many),
        get("/v1/schedules", schedules::list),
        get("/v1/schedules/{name}", schedules::get),
        put("/v1/schedules/{name}", schedules::put),
        delete("/v1/schedules/{name}", schedules::delete),
        post("/v1/schedules/{name}/enable", schedules::enable),
        post("/v1/schedules/{name}/disable", schedules::disable),
        post("/v1/workflows", workflows::enqueue),
        get("/v1/workflows/{id}", workflows::get),
        post("/v1/workflows/{id}/cancel", workflows::cancel),
        post("/v1/workflows/{id}/retry", workflows::retry),
        get("/v1/kinds", kinds::list),
        get("/v1/kinds/{kind}", kinds::get),
        get("/v1/workers", workers::list),
        get("/v1/workers/{id}", workers::get),
        get("/v1/limits", limits::list),
        get("/v1/limits/{name}", limits::get),
        put("/v1/limits/{name}", limits::put),
        delete("/v1/limits/{name}", limits::delete),
        get("/v1/queues", queues::list),
        get("/v1/queues/{name}", queues::get),
        put("/v1/queues/{name}/limit", queues::limit),
        post("/v1/queues/{name}/pause", queues::pause),
        post("/v1/queues/{name}/resume", queues::resume),
        post("/v1/queues/{name}/drain", queues::drain),
        get("/healthz", health::alive),
        get("/readyz", health::ready),
        get("/openapi.json", openapi::document),
        get("/docs", openapi::page),
    ]
}

struct Route {
    method: Method,
    path: &'static str,
    handler: MethodRouter<Arc<Service>>,
}

/// A route of the API, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its method.
    pub method: Method,
    /// Its path, with the names of parameters in braces.
    pub path: &'static str,
}

/// All routes.
#[must_use]
pub fn routes() -> Vec<RouteInfo> {
    table().into_iter().map(|route| RouteInfo { method: route.method, path: route.path }).collect()
}

pub(crate) fn add_to(router: Router<Arc<Service>>) -> Router<Arc<Service>> {
    table().into_iter().fold(router, |router, route| router.route(route.path, route.handler))
}

fn get<H: Handler<T, Arc<Service>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::GET, path, handler: routing::get(handler) }
}

fn post<H: Handler<T, Arc<Service>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::POST, path, handler: routing::post(handler) }
}

fn put<H: Handler<T, Arc<Service>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::PUT, path, handler: routing::put(handler) }
}

fn delete<H: Handler<T, Arc<Service>>, T: 'static>(path: &'static str, handler: H) -> Route {
    Route { method: Method::DELETE, path, handler: routing::delete(handler) }
}
