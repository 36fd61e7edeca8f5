use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use serde::{Serialize, Serializer};
use uuid::Uuid;
use windlass_core::{JobId, Kind, Timestamp, WorkerId, WorkerRecord};

use crate::{
    Service,
    dead::json,
    job::Id,
    problem::{FieldError, Problem},
    view,
};

/// How many workers a page has unless the request says otherwise, and at most.
const LISTED: usize = 100;
const MOST: usize = 1000;
/// How many of a worker's jobs a list names.
const JOBS: usize = 100;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorkerList"))]
pub(crate) struct WorkersView<'a> {
    /// Newest first.
    workers: Vec<WorkerView<'a>>,
    next_cursor: Option<WorkerId>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Worker"))]
pub(crate) struct WorkerView<'a> {
    id: WorkerId,
    label: &'a str,
    #[serde(serialize_with = "view::time")]
    started_at: Timestamp,
    /// Null once it has said goodbye.
    #[serde(serialize_with = "view::optional_time")]
    seen_at: Option<Timestamp>,
    /// How long it may be silent.
    #[serde(serialize_with = "duration")]
    #[cfg_attr(test, schemars(with = "String"))]
    lease: Duration,
    /// If not, its jobs are about to be given to others.
    alive: bool,
    kinds: Vec<HandledKind<'a>>,
    /// How many jobs it runs.
    running: usize,
    /// Their ids, oldest first; in a list no more than a hundred.
    jobs: &'a [JobId],
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorkerKind"))]
struct HandledKind<'a> {
    kind: &'a Kind,
    version: u16,
}

impl<'a> WorkerView<'a> {
    fn new(worker: &'a WorkerRecord, jobs: usize) -> Self {
        let kinds = worker.kinds.iter().map(|(kind, version)| HandledKind { kind, version: *version });
        Self {
            id: worker.id,
            label: &worker.label,
            started_at: worker.started_at,
            seen_at: worker.seen_at,
            lease: worker.lease,
            alive: worker.alive,
            kinds: kinds.collect(),
            running: worker.running.len(),
            jobs: worker.running.get(..jobs).unwrap_or(&worker.running),
        }
    }
}

fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// `GET /v1/workers`
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let (mut before, mut limit, mut errors) = (None, LISTED, Vec::new());
    for (name, value) in &parameters {
        let detail = match (name.as_str(), value.parse::<usize>(), value.parse::<WorkerId>()) {
            ("limit", Ok(number @ 1..=MOST), _) => {
                limit = number;
                continue;
            }
            ("cursor", _, Ok(id)) => {
                before = Some(id);
                continue;
            }
            ("limit", ..) => format!("use 1 to {MOST}"),
            ("cursor", ..) => "give the next_cursor of an earlier answer".into(),
            _ => "unknown; known are cursor, limit".into(),
        };
        errors.push(FieldError::query(name, detail));
    }
    if !errors.is_empty() {
        return Err(Problem::invalid(errors));
    }
    // One more than asked for tells whether there are more.
    let mut workers = service.client.store().operations().workers(before, limit + 1).await?;
    let more = workers.len() > limit;
    workers.truncate(limit);
    Ok(json(&WorkersView {
        next_cursor: workers.last().filter(|_| more).map(|worker| worker.id),
        workers: workers.iter().map(|worker| WorkerView::new(worker, JOBS)).collect(),
    }))
}

/// `GET /v1/workers/{id}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Id(id): Id<WorkerId>,
) -> Result<Response, Problem> {
    let above = Uuid::from_u128(id.as_uuid().as_u128().saturating_add(1));
    let found = service.client.store().operations().workers(Some(above.into()), 1).await?;
    match found.first() {
        Some(worker) if worker.id == id => Ok(json(&WorkerView::new(worker, usize::MAX))),
        _ => Err(Problem::not_found(format!("there is no worker {id}, or no longer"))),
    }
}
