//! Which jobs a request means, and lists of them.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::Serialize;
use windlass_core::{JobFilter, JobId, JobRecord, State as JobState};

use crate::{
    Service,
    auth::Identity,
    cursor,
    dead::json,
    problem::{FieldError, Problem},
    view::{self, JobView},
};

const KNOWN: &str = "queue, kind, state, label, tenant, created_after, created_before, cursor, limit; or id";
/// How many jobs a page has unless the request says otherwise, and at most.
const LISTED: usize = 100;
const MOST: usize = 1000;
/// How many jobs a request may name.
const MOST_IDS: usize = 100;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "JobList"))]
pub(crate) struct ListView<'a> {
    pub(crate) jobs: Vec<JobView<'a>>,
    /// Where the list goes on; null at its end.
    pub(crate) next_cursor: Option<String>,
}

/// `GET /v1/jobs`: the jobs that a filter means, newest first, or those with the given ids.
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    caller: Identity,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    if parameters.iter().any(|(name, _)| name == "id") {
        let mut jobs = service.client.get_many_recent(&wanted_ids(&parameters)?).await?;
        jobs.retain(|job| caller.sees(job.gating.tenant.as_ref()));
        return Ok(json(&view(&jobs, None)));
    }
    let Selection { filter, before, limit } = Selection::from_query(&parameters, &caller)?;
    let page = service.client.jobs(&filter, before, limit).await?;
    Ok(json(&view(&page.jobs, page.next.map(|next| cursor::write(next, &filter)))))
}

fn view(jobs: &[JobRecord], next_cursor: Option<String>) -> ListView<'_> {
    ListView { jobs: jobs.iter().map(JobView::from).collect(), next_cursor }
}

/// The jobs that a request names by `id`, and names nothing else.
pub(crate) fn wanted_ids(parameters: &[(String, String)]) -> Result<Vec<JobId>, Problem> {
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in parameters {
        match value.parse::<JobId>() {
            _ if name != "id" => errors.push(FieldError::query(name, "cannot be given together with id")),
            Ok(id) => ids.push(id),
            Err(error) => errors.push(FieldError::query(name, error.to_string())),
        }
    }
    if ids.len() > MOST_IDS {
        errors.push(FieldError::query("id", format!("at most {MOST_IDS} at a time")));
    }
    errors.truncate(MOST_ERRORS);
    if errors.is_empty() { Ok(ids) } else { Err(Problem::invalid(errors)) }
}

/// How many mistakes of one kind an answer lists.
const MOST_ERRORS: usize = 20;

/// A page of the jobs that a request means.
#[derive(Debug, PartialEq, Eq)]
struct Selection {
    filter: JobFilter,
    before: Option<JobId>,
    limit: usize,
}

impl Selection {
    fn from_query(parameters: &[(String, String)], caller: &Identity) -> Result<Self, Problem> {
        let (mut filter, mut cursor, mut limit) = (JobFilter::default(), None, LISTED);
        let mut errors = Vec::new();
        for (at, (name, value)) in parameters.iter().enumerate() {
            let repeated = || parameters[..at].iter().any(|(earlier, _)| earlier == name);
            let read = match name.as_str() {
                "state" => value.parse().map(|state| filter.states.push(state)).map_err(|_| states()),
                "label" => label(value, &mut filter.labels),
                _ if repeated() => Err("is there more than once".into()),
                "queue" => named(value).map(|queue| filter.queue = Some(queue)),
                "kind" => named(value).map(|kind| filter.kind = Some(kind)),
                "tenant" => named(value).map(|tenant| filter.tenant = Some(tenant)),
                "created_after" => view::instant(value).map(|time| filter.created_after = Some(time)),
                "created_before" => view::instant(value).map(|time| filter.created_before = Some(time)),
                "cursor" => {
                    cursor = Some(value);
                    Ok(())
                }
                "limit" => match value.parse() {
                    Ok(number @ 1..=MOST) => {
                        limit = number;
                        Ok(())
                    }
                    _ => Err(format!("use 1 to {MOST}")),
                },
                _ => Err(format!("unknown; known are {KNOWN}")),
            };
            if let Err(detail) = read {
                errors.push(FieldError::query(name, detail));
            }
        }
        filter.states.sort_by_key(|state| state.code());
        filter.states.dedup();
        caller.confine(&mut filter.tenant)?;
        let before = cursor.and_then(|cursor| match cursor::read(cursor, &filter) {
            Ok(before) => Some(before),
            Err(detail) => {
                // A filter that cannot be read is not that of the cursor either.
                if errors.is_empty() {
                    errors.push(FieldError::query("cursor", detail));
                }
                None
            }
        });
        errors.truncate(MOST_ERRORS);
        if errors.is_empty() { Ok(Self { filter, before, limit }) } else { Err(Problem::invalid(errors)) }
    }
}

pub(crate) fn named<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

pub(crate) fn states() -> String {
    format!("use one of {}", JobState::ALL.map(JobState::as_str).join(", "))
}

fn label(text: &str, labels: &mut BTreeMap<String, String>) -> Result<(), String> {
    let (name, value) = text.split_once(':').ok_or("write name:value")?;
    match labels.insert(name.to_owned(), value.to_owned()) {
        Some(earlier) if earlier != value => Err(format!("no job has {name} twice")),
        _ => Ok(()),
    }
}
