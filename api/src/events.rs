//! Jobs as event streams (Server-Sent Events).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::OwnedSemaphorePermit;
use windlass_client::JobWatch;
use windlass_core::{JobId, JobRecord};

use crate::{
    Service,
    auth::Identity,
    job::{Id, job_response, no_such_job},
    listing::wanted_ids,
    problem::{FieldError, Problem},
    view::JobView,
};

/// An event of a stream, as clients read it.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "only its schema is of use")]
pub(crate) struct StreamEvent {
    event: EventName,
    /// JSON: the job, or an object with its `id`; of `end`, an empty one.
    data: String,
    /// The `ETag` of the job, in streams of one.
    id: Option<String>,
}

#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
#[allow(dead_code, reason = "only its schema is of use")]
enum EventName {
    /// What the job is now.
    Job,
    /// The job has been removed.
    Removed,
    /// The job can no longer be followed from here.
    Unavailable,
    /// All are over.
    End,
}

/// How often a stream without news says that it lives, so that nobody between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /v1/jobs/{id}/events`
pub(crate) async fn one(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    service.check_job(&caller, id).await?;
    let mut watch = service.client.watch(id);
    let job = watch.next().await?.ok_or_else(|| no_such_job(id))?;
    let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok());
    if job.state.is_terminal() && last.is_some() && last == etag(&job)?.as_deref() {
        // By which browsers know that they need not come again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    stream(&service, vec![(watch, job)])
}

/// `GET /v1/jobs/events?id=…&id=…`
pub(crate) async fn many(
    State(service): State<Arc<Service>>,
    caller: Identity,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    if let Some((name, _)) = parameters.iter().find(|(name, _)| name != "id") {
        return Err(Problem::invalid(vec![FieldError::query(name, "unknown; known is id")]));
    }
    let mut ids = wanted_ids(&parameters)?;
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Err(Problem::invalid(vec![FieldError::query("id", "required: the jobs to follow")]));
    }
    let own = service.own(&caller, ids.clone()).await?;
    if let Some(other) = ids.iter().find(|id| !own.contains(id)) {
        return Err(no_such_job(*other));
    }
    let watches = ids.iter().map(|id| async {
        let mut watch = service.client.watch(*id);
        Ok::<_, Problem>(watch.next().await?.map(|job| (watch, job)))
    });
    let watches = futures::future::try_join_all(watches).await?;
    match ids.iter().zip(&watches).find(|(_, watch)| watch.is_none()) {
        Some((id, _)) => Err(no_such_job(*id)),
        None => stream(&service, watches.into_iter().flatten().collect()),
    }
}

/// Each job as it is and whenever it changes, until all are over.
fn stream(service: &Service, watches: Vec<(JobWatch, JobRecord)>) -> Result<Response, Problem> {
    let place = service.place()?;
    let single = watches.len() == 1;
    let jobs = stream::select_all(watches.into_iter().map(|(watch, job)| Box::pin(changes(watch, job))));
    let events = jobs
        .map(move |job| event(job, single))
        .chain(stream::once(async { Event::default().event("end").data("{}") }));
    Ok(answer(service, place, events))
}

/// These events until they end, or the server does.
pub(crate) fn answer(
    service: &Service,
    place: OwnedSemaphorePermit,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Response {
    let events = events.take_until(service.ending.clone().cancelled_owned()).map(move |event| {
        // Held as long as the stream.
        let _place = &place;
        Ok::<_, Infallible>(event)
    });
    let mut response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would gather what it should pass on.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// What happens to a job, or why that cannot be told any more.
type Change = Result<JobRecord, (JobId, &'static str)>;

fn changes(watch: JobWatch, job: JobRecord) -> impl Stream<Item = Change> {
    enum Next {
        Tell(JobWatch, Box<JobRecord>),
        Await(JobWatch, JobId),
        Over,
    }
    stream::unfold(Next::Tell(watch, Box::new(job)), |next| async {
        match next {
            Next::Tell(_, job) if job.state.is_terminal() => Some((Ok(*job), Next::Over)),
            Next::Tell(watch, job) => {
                let id = job.id;
                Some((Ok(*job), Next::Await(watch, id)))
            }
            Next::Await(mut watch, id) => match watch.next().await {
                Ok(Some(job)) if job.state.is_terminal() => Some((Ok(job), Next::Over)),
                Ok(Some(job)) => Some((Ok(job), Next::Await(watch, id))),
                Ok(None) => Some((Err((id, "removed")), Next::Over)),
                Err(error) => {
                    tracing::warn!(job = %id, %error, "a job can no longer be followed");
                    Some((Err((id, "unavailable")), Next::Over))
                }
            },
            Next::Over => None,
        }
    })
}

fn event(change: Change, single: bool) -> Event {
    let job = match &change {
        Ok(job) => job,
        Err((id, why)) => return Event::default().event(*why).data(format!("{{\"id\":\"{id}\"}}")),
    };
    let event = Event::default().event("job");
    // Line breaks stand between tokens only, and would end a line of the stream.
    let data = serde_json::to_string(&JobView::from(job)).unwrap_or_default().replace(['\r', '\n'], " ");
    match etag(job) {
        Ok(Some(etag)) if single => event.id(etag),
        _ => event,
    }
    .data(data)
}

fn etag(job: &JobRecord) -> Result<Option<String>, Problem> {
    let response = job_response(StatusCode::OK, &JobView::from(job))?;
    let etag = response.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
    Ok(etag.map(|etag| etag.trim_matches('"').to_owned()))
}
