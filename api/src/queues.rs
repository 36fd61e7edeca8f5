use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_client::ClientError;
use windlass_core::{Limit, QueueName, QueueRecord};

use crate::{
    Service,
    body::{self, Fields},
    limits::{self, LimitView},
    name::Name,
    problem::{FieldError, Problem},
};

/// How many jobs of a fair queue may be on their way unless the request says otherwise.
const WINDOW: u32 = 100;

#[derive(Debug, Serialize)]
struct QueueView {
    name: QueueName,
    paused: bool,
    draining: bool,
    #[serde(flatten)]
    limit: LimitView,
    fair: bool,
    fair_window: Option<u32>,
}

impl From<QueueRecord> for QueueView {
    fn from(queue: QueueRecord) -> Self {
        Self {
            name: queue.name,
            paused: queue.paused,
            draining: queue.draining,
            limit: queue.limit.into(),
            fair: queue.window.is_some(),
            fair_window: queue.window,
        }
    }
}

/// `GET /v1/queues`: those that an operator has said something of.
pub(crate) async fn list(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let queues = service.client.store().operations().queues().await.map_err(ClientError::from)?;
    let queues: Vec<_> = queues.into_iter().map(QueueView::from).collect();
    Ok(Json(serde_json::json!({ "queues": queues })).into_response())
}

/// `GET /v1/queues/{name}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Name(name): Name<QueueName>,
) -> Result<Response, Problem> {
    answer(&service, name).await
}

/// `PUT /v1/queues/{name}/limit`: all of it, so what is left out is no longer limited.
pub(crate) async fn limit(
    State(service): State<Arc<Service>>,
    Name(name): Name<QueueName>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body::read_json(&service.options, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let mut errors = Vec::new();
    let limit = limits::read(&mut fields, &mut errors);
    let fair = fields.take("fair", &mut errors, Ok::<bool, String>);
    let window = fields.take("fair_window", &mut errors, |number: i64| match u32::try_from(number) {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err("use 1 to 100000".to_owned()),
    });
    if fair != Some(true) && window.is_some() {
        errors.push(FieldError::new("fair_window", "only with \"fair\": true"));
    }
    body::no_more(fields, &mut errors, "max_running, rate, per, burst, fair, fair_window");
    let (Some(limit), true) = (limit, errors.is_empty()) else { return Err(Problem::invalid(errors)) };
    let window = (fair == Some(true)).then(|| window.unwrap_or(WINDOW));
    let operations = service.client.store().operations();
    operations.limit_queue(&name, limit, window).await.map_err(ClientError::from)?;
    answer(&service, name).await
}

/// `POST /v1/queues/{name}/pause`
pub(crate) async fn pause(
    State(service): State<Arc<Service>>,
    Name(name): Name<QueueName>,
) -> Result<Response, Problem> {
    service.client.store().operations().pause_queue(&name, true).await.map_err(ClientError::from)?;
    answer(&service, name).await
}

/// `POST /v1/queues/{name}/resume`: ends a pause and a drain.
pub(crate) async fn resume(
    State(service): State<Arc<Service>>,
    Name(name): Name<QueueName>,
) -> Result<Response, Problem> {
    service.client.store().operations().pause_queue(&name, false).await.map_err(ClientError::from)?;
    service.client.nudge_relay();
    answer(&service, name).await
}

/// `POST /v1/queues/{name}/drain`
pub(crate) async fn drain(
    State(service): State<Arc<Service>>,
    Name(name): Name<QueueName>,
) -> Result<Response, Problem> {
    service.client.store().operations().drain_queue(&name).await.map_err(ClientError::from)?;
    answer(&service, name).await
}

/// The queue as it is now. One that nobody has said anything of is an ordinary one.
async fn answer(service: &Service, name: QueueName) -> Result<Response, Problem> {
    let queues = service.client.store().operations().queues().await.map_err(ClientError::from)?;
    let queue = queues.into_iter().find(|queue| queue.name == name).unwrap_or(QueueRecord {
        name,
        paused: false,
        draining: false,
        limit: Limit::default(),
        window: None,
    });
    Ok(Json(QueueView::from(queue)).into_response())
}
