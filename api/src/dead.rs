//! What operators do with jobs that are over: one by one, and the dead in bulk.

use std::sync::Arc;

use axum::{
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_core::{DeadCursor, DeadFilter, JobId, State as JobState, Timestamp};

use crate::{
    Service,
    auth::Identity,
    body::{self, Fields},
    bulk::BulkView,
    job::{Id, job_response},
    listing::ListView,
    problem::{FieldError, Problem},
    view::{self, JobView},
};

const KNOWN: &str = "queue, kind, label, tenant, since, until, cursor, limit";
/// How many jobs one request lists or changes, unless it says otherwise, and at most.
const LISTED: usize = 100;
const MOST: usize = 1000;

/// `POST /v1/jobs/{id}/retry`
pub(crate) async fn retry(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.check_job(&caller, id).await?;
    let retried = !service.client.retry(&[id], &JobState::TERMINAL).await?.is_empty();
    let job = service.job(&caller, id).await?;
    // One that is queued is what a retry makes of it: a repeated request has the same answer.
    if retried || job.state == JobState::Queued {
        return job_response(StatusCode::ACCEPTED, &caller.shown(&job));
    }
    Err(Problem::unfinished(job.state, "retried"))
}

/// `DELETE /v1/jobs/{id}`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.check_job(&caller, id).await?;
    if !service.client.delete(&[id], &JobState::TERMINAL).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let job = service.job(&caller, id).await?;
    Err(Problem::unfinished(job.state, "deleted"))
}

/// `GET /v1/dead`
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    caller: Identity,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let mut selection = Selection::new(LISTED);
    let mut errors = Vec::new();
    for (name, value) in &parameters {
        if let Err(detail) = selection.set(name, value) {
            errors.push(FieldError::query(name, detail));
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    caller.confine(&mut selection.filter.tenant)?;
    let page = service.client.dead(&selection.filter, selection.after, selection.limit).await?;
    let jobs = page.jobs.iter().map(JobView::from).collect();
    Ok(json(&ListView { jobs, next_cursor: page.next.map(cursor_text) }))
}

/// `POST /v1/dead/retry`
pub(crate) async fn retry_many(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let (ids, next) = select(&service, &caller, request).await?;
    // Those that someone else has retried meanwhile are dead no more.
    let count = service.client.retry(&ids, &[JobState::Dead]).await?.len();
    Ok(json(&BulkView { count, next_cursor: next.map(cursor_text) }))
}

/// `POST /v1/dead/delete`
pub(crate) async fn delete_many(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let (ids, next) = select(&service, &caller, request).await?;
    let count = service.client.delete(&ids, &[JobState::Dead]).await?.len();
    Ok(json(&BulkView { count, next_cursor: next.map(cursor_text) }))
}

/// The dead jobs that a request's body means, as many as one request changes.
async fn select(
    service: &Service,
    caller: &Identity,
    request: Request,
) -> Result<(Vec<JobId>, Option<DeadCursor>), Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    let bytes = body::read(service, body, &parts.headers, options.max_body).await?;
    let mut selection = Selection::new(MOST);
    let mut errors = Vec::new();
    for (name, value) in Fields::parse(body::text(&bytes)?)?.rest("", &mut errors) {
        let set = match serde_json::from_str::<serde_json::Value>(value.get()) {
            _ if !KNOWN.split(", ").any(|known| known == name) => Err(unknown()),
            Ok(serde_json::Value::Null) => Ok(()),
            Ok(serde_json::Value::String(text)) => selection.set(&name, &text),
            Ok(serde_json::Value::Number(number)) if name == "limit" => {
                selection.set(&name, &number.to_string())
            }
            _ => Err("write a text".into()),
        };
        if let Err(detail) = set {
            errors.push(FieldError::new(&name, detail));
        }
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    caller.confine(&mut selection.filter.tenant)?;
    let page = service.client.dead(&selection.filter, selection.after, selection.limit).await?;
    Ok((page.jobs.iter().map(|job| job.id).collect(), page.next))
}

/// Which dead jobs a request means.
struct Selection {
    filter: DeadFilter,
    after: Option<DeadCursor>,
    limit: usize,
}

impl Selection {
    fn new(limit: usize) -> Self {
        Self { filter: DeadFilter::default(), after: None, limit }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let filter = &mut self.filter;
        match name {
            "queue" => {
                filter.queue = Some(value.parse().map_err(|e: windlass_core::InvalidName| e.to_string())?)
            }
            "kind" => {
                filter.kind = Some(value.parse().map_err(|e: windlass_core::InvalidName| e.to_string())?)
            }
            "label" => {
                let (name, value) = value.split_once(':').ok_or("write name:value")?;
                filter.label = Some((name.to_owned(), value.to_owned()));
            }
            "tenant" => {
                filter.tenant = Some(value.parse().map_err(|e: windlass_core::InvalidKey| e.to_string())?)
            }
            "since" => filter.since = Some(view::instant(value)?),
            "until" => filter.until = Some(view::instant(value)?),
            "cursor" => {
                self.after = Some(cursor(value).ok_or("give the next_cursor of an earlier answer")?);
            }
            "limit" => match value.parse() {
                Ok(limit @ 1..=MOST) => self.limit = limit,
                _ => return Err(format!("use 1 to {MOST}")),
            },
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn unknown() -> String {
    format!("unknown; known are {KNOWN}")
}

fn cursor_text(cursor: DeadCursor) -> String {
    format!("{}.{}", cursor.at.timestamp_micros(), cursor.id)
}

fn cursor(text: &str) -> Option<DeadCursor> {
    let (at, id) = text.split_once('.')?;
    Some(DeadCursor { at: Timestamp::from_timestamp_micros(at.parse().ok()?)?, id: id.parse().ok()? })
}

/// An answer that is true of now only.
pub(crate) fn json(view: &impl Serialize) -> Response {
    match serde_json::to_vec(view) {
        Ok(body) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Problem::internal().into_response()
        }
    }
}
