use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{Service, problem::Problem};

/// Long enough for a busy server, short enough for a probe.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Readiness"))]
pub(crate) struct ReadyView {
    store: &'static str,
    /// `ok`, or `unavailable`: then jobs are accepted all the same, and delivered once it is back.
    broker: &'static str,
}

/// The process lives.
pub(crate) async fn alive() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Jobs are accepted: the store answers, and its schema fits. The broker is told of, but not needed for that.
pub(crate) async fn ready(State(service): State<Arc<Service>>) -> Response {
    let (store, broker) = tokio::join!(
        answers("store", service.client.store().ping()),
        answers("broker", service.client.broker().ping())
    );
    if store {
        Json(ReadyView { store: "ok", broker: if broker { "ok" } else { "unavailable" } }).into_response()
    } else {
        Problem::unavailable("the store does not answer, or its schema does not fit", 1).into_response()
    }
}

async fn answers<E: std::error::Error>(who: &str, ping: impl Future<Output = Result<(), E>>) -> bool {
    match tokio::time::timeout(PATIENCE, ping).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::debug!(who, %error, "not ready");
            false
        }
        Err(_) => false,
    }
}
