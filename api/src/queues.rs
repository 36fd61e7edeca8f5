use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};
use serde::Serialize;
use windlass_client::ClientError;
use windlass_core::{Lane, Limit, Priority, QueueName, QueueRecord, State as JobState, Tally};

use crate::{
    Service,
    body::{self, Fields},
    limits::{self, LimitView},
    name::Name,
    problem::{FieldError, Problem},
};

/// How many jobs of a fair queue may be on their way unless the request says otherwise.
const WINDOW: u32 = 100;
/// How many queues the broker is asked about at a time, and for how long.
const QUEUES_AT_A_TIME: usize = 4;
const BROKER_PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "QueueRules"))]
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

/// A queue with what is in it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Queue"))]
pub(crate) struct QueueStatus {
    #[serde(flatten)]
    queue: QueueView,
    /// How many jobs wait for a worker, as the broker counts them; null where it cannot, or does not answer.
    depth: Option<u64>,
    /// The same by priority, most urgent first.
    lanes: Vec<LaneView>,
    /// How many jobs are in those states that are counted at once.
    counts: BTreeMap<&'static str, u64>,
    /// If not, there are more jobs in these states than are counted at once, in this queue or in others.
    counts_complete: bool,
}

impl QueueStatus {
    /// How many jobs of it there are by state, those that wait for a worker among them.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = ((QueueName, &'static str), u64)> + '_ {
        let counts = self.counts.iter().map(|(state, jobs)| (*state, *jobs));
        counts
            .chain(self.depth.map(|depth| ("queued", depth)))
            .map(|(state, jobs)| ((self.queue.name.clone(), state), jobs))
    }

    /// Whether all of them were counted.
    pub(crate) fn is_whole(&self) -> bool {
        self.counts_complete
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Lane"))]
struct LaneView {
    priority: Priority,
    depth: Option<u64>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "QueueList"))]
pub(crate) struct QueuesView {
    queues: Vec<QueueStatus>,
}

/// `GET /v1/queues`
pub(crate) async fn list(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    Ok(Json(QueuesView { queues: all(&service).await? }).into_response())
}

/// Those that workers take from, that have something in them, or that an operator has said something of.
pub(crate) async fn all(service: &Service) -> Result<Vec<QueueStatus>, Problem> {
    let store = service.client.store();
    let tally = service.client.tally().await?;
    let mut queues: BTreeMap<QueueName, QueueRecord> =
        store.operations().queues().await?.into_iter().map(|queue| (queue.name.clone(), queue)).collect();
    let known = store.kinds().await?.into_iter().map(|info| info.queue);
    for name in known.chain(tally.counts.keys().map(|(queue, _)| queue.clone())) {
        queues.entry(name.clone()).or_insert_with(|| ordinary(name));
    }
    let queues = stream::iter(queues.into_values()).map(|queue| status(service, queue, &tally));
    Ok(queues.buffered(QUEUES_AT_A_TIME).collect().await)
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
    let bytes = body::read_request(&service, request).await?;
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
    let operations = service.client.store().operations();
    let queues = operations.queues().await?;
    let queue = queues.into_iter().find(|queue| queue.name == name).unwrap_or_else(|| ordinary(name));
    let tally = operations.tally().await?;
    Ok(Json(status(service, queue, &tally).await).into_response())
}

fn ordinary(name: QueueName) -> QueueRecord {
    QueueRecord { name, paused: false, draining: false, limit: Limit::default(), window: None }
}

async fn status(service: &Service, queue: QueueRecord, tally: &Tally) -> QueueStatus {
    let depth_of = |priority| {
        let lane = Lane { queue: queue.name.clone(), priority };
        async move {
            let depth = tokio::time::timeout(BROKER_PATIENCE, service.client.broker().depth(&lane)).await;
            LaneView { priority, depth: depth.ok().and_then(Result::ok).flatten() }
        }
    };
    let lanes = futures::future::join_all(Priority::ALL.map(depth_of)).await;
    let counted = [JobState::Running, JobState::Scheduled, JobState::Retrying, JobState::Dead];
    let count = |state| tally.counts.get(&(queue.name.clone(), state)).copied().unwrap_or_default();
    QueueStatus {
        depth: lanes.iter().map(|lane| lane.depth).sum(),
        lanes,
        counts: counted.map(|state| (state.as_str(), count(state))).into(),
        counts_complete: tally.complete,
        queue: queue.into(),
    }
}
