//! The HTTP API: accepts jobs, answers polls, cancels. Stateless: any number of instances serve the same store.
//!
//! | route | |
//! |---|---|
//! | `POST /v1/jobs` | accept a job: 202 once it is committed |
//! | `GET /v1/jobs/{id}` | the job as it is now, with an `ETag` |
//! | `POST /v1/jobs/{id}/cancel` | call it off |
//! | `GET /healthz` | the process lives |
//! | `GET /readyz` | the store answers, so jobs are accepted |
//!
//! Every error is a problem document (RFC 9457); 4xx means that nothing was stored.

mod body;
mod enqueue;
mod guard;
mod health;
mod job;
mod problem;
mod view;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{get, post},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, UnknownKinds};

use crate::problem::Problem;

/// How long requests under way may still take after the shutdown has begun.
const DRAIN: Duration = Duration::from_secs(10);

/// Limits and choices of the API.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The largest request body, in bytes.
    pub max_body: usize,
    /// The deepest nesting of JSON.
    pub max_depth: usize,
    /// What becomes of kinds that no worker has made known.
    pub unknown_kinds: UnknownKinds,
    /// How long an idempotency key is remembered.
    pub idempotency_ttl: Duration,
    /// How long a request may take.
    pub request_timeout: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            max_body: 1024 * 1024,
            max_depth: 64,
            unknown_kinds: UnknownKinds::Refuse,
            idempotency_ttl: Duration::from_secs(24 * 3600),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// What every handler has at hand.
struct Service {
    client: Client,
    options: ApiOptions,
}

/// The routes, to be served or to be nested into a larger service.
pub fn router(client: Client, options: ApiOptions) -> Router {
    let service = Arc::new(Service { client, options });
    Router::new()
        .route("/v1/jobs", post(enqueue::enqueue))
        .route("/v1/jobs/{id}", get(job::get))
        .route("/v1/jobs/{id}/cancel", post(job::cancel))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(|| async { Problem::not_found("there is no such route") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(service.clone(), guard::guard))
        .with_state(service)
}

/// Serves the API until `shutdown`, then lets requests under way finish for a while.
///
/// # Errors
/// What the listener says when it fails for good.
pub async fn serve(
    listener: TcpListener,
    client: Client,
    options: ApiOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let serving = axum::serve(listener, router(client, options))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = async { serving.await } => served,
        () = late => {
            tracing::warn!("requests still under way are cut off");
            Ok(())
        }
    }
}
