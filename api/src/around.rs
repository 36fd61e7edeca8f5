//! What is around every route, in few layers: each of axum's has all that is inside of it cloned for each request.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};

use crate::{
    Service, cbor, compress, cors, guard,
    headers::{self, Secure},
};

pub(crate) fn add_to(router: Router<Arc<Service>>, service: &Arc<Service>) -> Router {
    let router = router
        .layer(middleware::from_fn_with_state(service.clone(), inside))
        .layer(compress::layer())
        .with_state(service.clone());
    // Outside of all that may refuse a request, so that pages get to see why.
    match cors::layer(&service.options.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    }
    .layer(middleware::from_fn(outside))
}

async fn inside(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let wants_cbor = cbor::is_wanted(request.headers());
    let understands = compress::is_understood(request.headers());
    let response = guard::guard(&service, request, next).await;
    let response = cbor::answer(response, wants_cbor).await;
    compress::choose(response, understands, &service.encoders)
}

async fn outside(request: Request, next: Next) -> Response {
    let secure = request.extensions().get::<Secure>().is_some();
    let mut response = next.run(request).await;
    compress::weaken(response.headers_mut());
    headers::add_to(response.headers_mut(), secure);
    response
}
