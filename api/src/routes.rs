//! Every route of the API, and what each asks of those who use it.

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware,
    routing::{self, MethodRouter},
};
use windlass_core::Scope::{self, Admin, Enqueue, Operate, Read};

use crate::{
    Service,
    auth::{
        Access,
        Reach::{self, Fleet, Tenant},
        admit,
    },
    batch, bulk, dead, enqueue, events, health, job, kinds, limits, listing, logs, metrics, openapi,
    queue_events, queues, quotas, schedules, webhooks, workers, workflows,
};

/// A route, with the scope that it needs and whose things it is about. What each takes and answers is described in
/// `openapi/operations.rs`.
fn table() -> Vec<Route> {
    vec![
        get("/v1/jobs", Read, Tenant, listing::list),
        post("/v1/jobs", Enqueue, Tenant, enqueue::enqueue),
        post("/v1/jobs/batch", Enqueue, Tenant, batch::enqueue),
        post("/v1/jobs/cancel", Operate, Tenant, bulk::cancel),
        post("/v1/jobs/retry", Operate, Tenant, bulk::retry),
        post("/v1/jobs/delete", Operate, Tenant, bulk::delete),
        get("/v1/jobs/{id}", Read, Tenant, job::get),
        delete("/v1/jobs/{id}", Operate, Tenant, dead::delete),
        get("/v1/jobs/events", Read, Tenant, events::many),
        get("/v1/jobs/{id}/events", Read, Tenant, events::one),
        post("/v1/jobs/{id}/cancel", Operate, Tenant, job::cancel),
        get("/v1/jobs/{id}/errors", Read, Tenant, job::errors),
        get("/v1/jobs/{id}/logs", Read, Tenant, logs::logs),
        get("/v1/jobs/{id}/progress", Read, Tenant, job::progress),
        get("/v1/jobs/{id}/result", Read, Tenant, job::result),
        post("/v1/jobs/{id}/retry", Operate, Tenant, dead::retry),
        get("/v1/dead", Read, Tenant, dead::list),
        post("/v1/dead/retry", Operate, Tenant, dead::retry_many),
        post("/v1/dead/delete", Operate, Tenant, dead::delete_many),
        get("/v1/schedules", Read, Fleet, schedules::list),
        get("/v1/schedules/{name}", Read, Fleet, schedules::get),
        put("/v1/schedules/{name}", Admin, Fleet, schedules::put),
        delete("/v1/schedules/{name}", Admin, Fleet, schedules::delete),
        post("/v1/schedules/{name}/enable", Operate, Fleet, schedules::enable),
        post("/v1/schedules/{name}/disable", Operate, Fleet, schedules::disable),
        post("/v1/workflows", Enqueue, Tenant, workflows::enqueue),
        get("/v1/workflows/{id}", Read, Tenant, workflows::get),
        post("/v1/workflows/{id}/cancel", Operate, Tenant, workflows::cancel),
        post("/v1/workflows/{id}/retry", Operate, Tenant, workflows::retry),
        get("/v1/webhooks", Read, Tenant, webhooks::list),
        post("/v1/webhooks", Admin, Tenant, webhooks::create),
        get("/v1/webhooks/{id}", Read, Tenant, webhooks::get),
        put("/v1/webhooks/{id}", Admin, Tenant, webhooks::put),
        delete("/v1/webhooks/{id}", Admin, Tenant, webhooks::delete),
        post("/v1/webhooks/{id}/enable", Operate, Tenant, webhooks::enable),
        post("/v1/webhooks/{id}/disable", Operate, Tenant, webhooks::disable),
        post("/v1/webhooks/{id}/rotate", Admin, Tenant, webhooks::rotate),
        post("/v1/webhooks/{id}/test", Operate, Tenant, webhooks::test),
        get("/v1/webhooks/{id}/deliveries", Read, Tenant, webhooks::deliveries),
        get("/v1/kinds", Read, Fleet, kinds::list),
        get("/v1/kinds/{kind}", Read, Fleet, kinds::get),
        get("/v1/workers", Read, Fleet, workers::list),
        get("/v1/workers/{id}", Read, Fleet, workers::get),
        get("/v1/limits", Read, Fleet, limits::list),
        get("/v1/limits/{name}", Read, Fleet, limits::get),
        put("/v1/limits/{name}", Admin, Fleet, limits::put),
        delete("/v1/limits/{name}", Admin, Fleet, limits::delete),
        get("/v1/queues", Read, Fleet, queues::list),
        get("/v1/queues/{name}", Read, Fleet, queues::get),
        get("/v1/queues/{name}/events", Read, Tenant, queue_events::follow),
        put("/v1/queues/{name}/limit", Admin, Fleet, queues::limit),
        post("/v1/queues/{name}/pause", Operate, Fleet, queues::pause),
        post("/v1/queues/{name}/resume", Operate, Fleet, queues::resume),
        post("/v1/queues/{name}/drain", Operate, Fleet, queues::drain),
        get("/v1/tenants/{tenant}/quota", Admin, Fleet, quotas::get),
        put("/v1/tenants/{tenant}/quota", Admin, Fleet, quotas::put),
        delete("/v1/tenants/{tenant}/quota", Admin, Fleet, quotas::delete),
        get("/metrics", Read, Fleet, metrics::page),
        open("/healthz", health::alive),
        open("/readyz", health::ready),
        open("/openapi.json", openapi::document),
        open("/docs", openapi::page),
    ]
}

struct Route {
    method: Method,
    path: &'static str,
    /// `None`: open to all.
    access: Option<Access>,
    handler: MethodRouter<Arc<Service>>,
}

/// A route of the API, as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteInfo {
    /// Its method.
    pub method: Method,
    /// Its path, with the names of parameters in braces.
    pub path: &'static str,
    /// What one must be allowed to do; `None` where it is open to all.
    pub scope: Option<Scope>,
    /// Whose things it is about.
    pub reach: Reach,
}

/// All routes, and what each asks of those who use it where [authentication](crate::Authentication) is required.
#[must_use]
pub fn routes() -> Vec<RouteInfo> {
    let info = |route: Route| RouteInfo {
        method: route.method,
        path: route.path,
        scope: route.access.map(|access| access.scope),
        reach: route.access.map_or(Fleet, |access| access.reach),
    };
    table().into_iter().map(info).collect()
}

pub(crate) fn add_to(router: Router<Arc<Service>>, service: &Arc<Service>) -> Router<Arc<Service>> {
    table().into_iter().fold(router, |router, route| {
        router.route(
            route.path,
            match route.access {
                Some(access) => route
                    .handler
                    .route_layer(middleware::from_fn_with_state((service.clone(), access), admit)),
                None => route.handler,
            },
        )
    })
}

fn get<H: Handler<T, Arc<Service>>, T: 'static>(
    path: &'static str,
    scope: Scope,
    reach: Reach,
    h: H,
) -> Route {
    Route { method: Method::GET, path, access: Some(Access { scope, reach }), handler: routing::get(h) }
}

fn post<H: Handler<T, Arc<Service>>, T: 'static>(
    path: &'static str,
    scope: Scope,
    reach: Reach,
    h: H,
) -> Route {
    Route { method: Method::POST, path, access: Some(Access { scope, reach }), handler: routing::post(h) }
}

fn put<H: Handler<T, Arc<Service>>, T: 'static>(
    path: &'static str,
    scope: Scope,
    reach: Reach,
    h: H,
) -> Route {
    Route { method: Method::PUT, path, access: Some(Access { scope, reach }), handler: routing::put(h) }
}

fn delete<H: Handler<T, Arc<Service>>, T: 'static>(
    path: &'static str,
    scope: Scope,
    reach: Reach,
    h: H,
) -> Route {
    Route { method: Method::DELETE, path, access: Some(Access { scope, reach }), handler: routing::delete(h) }
}

/// Without a key, and never about anybody's things.
fn open<H: Handler<T, Arc<Service>>, T: 'static>(path: &'static str, h: H) -> Route {
    Route { method: Method::GET, path, access: None, handler: routing::get(h) }
}
