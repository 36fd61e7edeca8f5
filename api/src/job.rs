use std::{str::FromStr, sync::Arc};

use axum::{
    extract::{FromRequestParts, Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use windlass_core::{CancelOutcome, InvalidId, JobId, JobRecord, State as JobState};

use crate::{
    Service,
    auth::Identity,
    dead::json,
    problem::Problem,
    view::{ErrorView, JobView, ProgressView},
    waiting::{self, Wait},
};

/// `GET /v1/jobs/{id}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let wait = Wait::asked(&parameters, &headers, service.options.max_wait)?;
    let known = |response: &Response| {
        response.headers().get(header::ETAG).is_some_and(|etag| matches(&headers, etag))
    };
    let conditional = headers.contains_key(header::IF_NONE_MATCH);
    let job = match &wait {
        Some(wait) => {
            let changed = |job: &JobRecord| {
                Ok(conditional && !known(&job_response(StatusCode::OK, &JobView::from(job))?))
            };
            service.check_job(&caller, id).await?;
            service.wait_for(id, wait.patience, changed).await?
        }
        None if wants_newest(&headers) => service.job(&caller, id).await?,
        None => service.recent_job(&caller, id).await?,
    };
    let mut response = job_response(StatusCode::OK, &JobView::from(&job))?;
    if known(&response) {
        let etag = response.headers_mut().remove(header::ETAG);
        response = StatusCode::NOT_MODIFIED.into_response();
        response.headers_mut().extend(etag.map(|etag| (header::ETAG, etag)));
    }
    let headers = response.headers_mut();
    waiting::set_freshness(headers, &job);
    headers.extend(waiting::retry_after(&job).map(|seconds| (header::RETRY_AFTER, seconds)));
    if let Some(applied) = wait.and_then(|wait| wait.applied) {
        headers.insert(waiting::APPLIED, applied);
    }
    Ok(response)
}

/// Whether the client says that an answer which is a little old is of no use: by `Cache-Control: no-cache` or the like.
fn wants_newest(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|directive| {
        ["no-cache", "no-store", "max-age=0"].iter().any(|newest| directive.eq_ignore_ascii_case(newest))
    })
}

/// `GET /v1/jobs/{id}/result`: the value itself.
pub(crate) async fn result(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    let job = service.job(&caller, id).await?;
    match (job.result, job.state) {
        (Some(result), _) => {
            let headers =
                [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];
            Ok((headers, result.get().to_owned()).into_response())
        }
        (None, JobState::Succeeded) => {
            Err(Problem::not_found("the job has succeeded without a result, or its result is no longer kept"))
        }
        (None, state) if state.is_terminal() => {
            Err(Problem::not_found(format!("the job is {state}, and so has no result")))
        }
        (None, state) => Err(Problem::no_result_yet(state)),
    }
}

/// `GET /v1/jobs/{id}/errors`
pub(crate) async fn errors(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    let job = service.job(&caller, id).await?;
    Ok(json(&ErrorsView { errors: job.errors.iter().map(ErrorView::from).collect() }))
}

/// `GET /v1/jobs/{id}/progress`
pub(crate) async fn progress(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    let job = service.job(&caller, id).await?;
    Ok(json(&ProgressOf { progress: job.progress.as_ref().map(ProgressView::from) }))
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "AttemptErrors"))]
pub(crate) struct ErrorsView<'a> {
    /// Oldest first.
    errors: Vec<ErrorView<'a>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "JobProgress"))]
pub(crate) struct ProgressOf<'a> {
    /// As its newest attempt that has said so sees it.
    progress: Option<ProgressView<'a>>,
}

/// `POST /v1/jobs/{id}/cancel`
pub(crate) async fn cancel(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.check_job(&caller, id).await?;
    let status = match service.client.cancel(id).await? {
        CancelOutcome::NotFound => return Err(no_such_job(id)),
        CancelOutcome::Cancelled | CancelOutcome::Finished(JobState::Cancelled) => StatusCode::OK,
        CancelOutcome::Requested => StatusCode::ACCEPTED,
        CancelOutcome::Finished(state) => return Err(Problem::finished(state)),
    };
    let job = service.job(&caller, id).await?;
    job_response(status, &caller.shown(&job))
}

/// The job with an `ETag` over all that is shown.
pub(crate) fn job_response(status: StatusCode, view: &JobView<'_>) -> Result<Response, Problem> {
    let body = serde_json::to_vec(view).map_err(|error| {
        tracing::error!(%error, "a job cannot be written as JSON");
        Problem::internal()
    })?;
    let hash = Sha256::digest(&body);
    let etag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// `If-None-Match` by the weak comparison, as RFC 9110 wants it.
fn matches(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let etag = etag.to_str().unwrap_or_default();
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag)
}

/// The id in the path.
pub(crate) struct Id<T = JobId>(pub(crate) T);

impl<S: Send + Sync, T: FromStr<Err = InvalidId>> FromRequestParts<S> for Id<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What is no UTF-8 is no id either.
        let text =
            Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        text.parse().map(Self).map_err(|error: InvalidId| Problem::malformed(error.to_string()))
    }
}

pub(crate) fn no_such_job(id: JobId) -> Problem {
    Problem::not_found(format!("there is no job {id}"))
}
