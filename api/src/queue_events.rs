//! A queue as an event stream (Server-Sent Events).

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{Response, sse::Event},
};
use futures::{Stream, StreamExt as _, stream};
use serde::Serialize;
use windlass_client::{ClientError, QueueNews, QueueWatch};
use windlass_core::{JobId, QueueName, Standing, State as JobState, Timestamp};

use crate::{
    Service,
    auth::Identity,
    enqueue::limited_duration,
    events,
    name::Name,
    problem::{FieldError, Problem},
    view,
};

/// An event of a queue's stream, as clients read it.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "only its schema is of use")]
pub(crate) struct QueueEvent {
    event: QueueEventName,
    /// JSON: of `job` where it stands (`id`, `state`, `attempt`, `run_at`, `cancel_requested`, `progress_at`), of `lagged` how
    /// many events were `missed`, of `ready` an empty object.
    data: String,
}

#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(dead_code, reason = "only its schema is of use")]
enum QueueEventName {
    /// From here on, changes are told: the first event.
    Ready,
    /// A job is new, or stands elsewhere.
    Job,
    /// Events were not read in time, and are gone; the stream goes on.
    Lagged,
}

#[derive(Debug, Serialize)]
pub(crate) struct StandingView {
    id: JobId,
    state: JobState,
    attempt: u32,
    #[serde(serialize_with = "view::optional_time")]
    run_at: Option<Timestamp>,
    cancel_requested: bool,
    #[serde(serialize_with = "view::optional_time")]
    progress_at: Option<Timestamp>,
}

impl From<Standing> for StandingView {
    fn from(job: Standing) -> Self {
        let Standing { id, state, attempt, run_at, cancel_requested, progress_at } = job;
        Self { id, state, attempt, run_at, cancel_requested, progress_at }
    }
}

/// `GET /v1/queues/{name}/events`: those of the caller's tenant, where there is one.
pub(crate) async fn follow(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Name(name): Name<QueueName>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let mut time = None;
    let mut errors = Vec::new();
    for (name, value) in &parameters {
        match name.as_str() {
            "for" if time.is_some() => errors.push(FieldError::query(name, "is there more than once")),
            "for" => match limited_duration(value) {
                Ok(duration) => time = Some(duration),
                Err(detail) => errors.push(FieldError::query(name, detail)),
            },
            _ => errors.push(FieldError::query(name, "unknown; known is for")),
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    let place = service.place()?;
    let news = news(service.client.watch_queue(name, caller.tenant)).map(|news| event(&news));
    let over = async move {
        match time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    Ok(events::answer(&service, place, news.take_until(over)))
}

fn news(watch: QueueWatch) -> impl Stream<Item = QueueNews> {
    stream::unfold(watch, |mut watch| async {
        match watch.next().await {
            Ok(news) => Some((news, watch)),
            Err(error) => {
                // On the way down, where the client is closed first.
                if !matches!(error, ClientError::Closed) {
                    tracing::warn!(%error, "a queue can no longer be followed");
                }
                None
            }
        }
    })
}

fn event(news: &QueueNews) -> Event {
    let (name, data) = match news {
        QueueNews::Ready => ("ready", "{}".to_owned()),
        // Numbers and names only, so it always can be written.
        QueueNews::Job(job) => ("job", serde_json::to_string(&StandingView::from(*job)).unwrap_or_default()),
        QueueNews::Lagged(missed) => ("lagged", format!("{{\"missed\":{missed}}}")),
    };
    Event::default().event(name).data(data)
}
