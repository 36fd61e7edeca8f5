use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use serde::Serialize;
use serde_json::value::RawValue;
use windlass_core::{Kind, KindInfo, QueueName, WorkerId, WorkerRecord};

use crate::{Service, dead::json, name::Name, problem::Problem};

/// How many workers are looked through for those that handle a kind.
const WORKERS: usize = 1000;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "KindList"))]
pub(crate) struct KindsView<'a> {
    kinds: Vec<KindView<'a>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "KindInfo"))]
pub(crate) struct KindView<'a> {
    kind: &'a Kind,
    /// Where its jobs go, and how many attempts they get, unless the enqueue says otherwise.
    queue: &'a QueueName,
    max_attempts: u32,
    /// The newest that a worker has ever handled.
    version: u16,
    /// The JSON Schema of the payload in each version that has one.
    schemas: BTreeMap<u16, &'a RawValue>,
    /// The workers that handle it now.
    workers: Vec<HandledBy<'a>>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "KindWorker"))]
struct HandledBy<'a> {
    id: WorkerId,
    label: &'a str,
    version: u16,
}

impl<'a> KindView<'a> {
    fn new(info: &'a KindInfo, workers: &'a [WorkerRecord]) -> Self {
        let handled_by = |worker: &'a WorkerRecord| {
            let (_, version) = worker.kinds.iter().find(|(kind, _)| *kind == info.kind)?;
            Some(HandledBy { id: worker.id, label: &worker.label, version: *version })
        };
        let schemas = info.schemas.iter();
        Self {
            kind: &info.kind,
            queue: &info.queue,
            max_attempts: info.max_attempts,
            version: info.version,
            // A worker wrote it as JSON.
            schemas: schemas.filter_map(|(at, text)| Some((*at, serde_json::from_str(text).ok()?))).collect(),
            workers: workers.iter().filter(|worker| worker.alive).filter_map(handled_by).collect(),
        }
    }
}

/// `GET /v1/kinds`
pub(crate) async fn list(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let kinds = service.client.store().kinds().await?;
    let workers = service.client.store().operations().workers(None, WORKERS).await?;
    Ok(json(&KindsView { kinds: kinds.iter().map(|info| KindView::new(info, &workers)).collect() }))
}

/// `GET /v1/kinds/{kind}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Name(kind): Name<Kind>,
) -> Result<Response, Problem> {
    let kinds = service.client.store().kinds().await?;
    let Some(info) = kinds.iter().find(|info| info.kind == kind) else {
        return Err(Problem::not_found(format!("no worker has ever handled the kind {kind}")));
    };
    let workers = service.client.store().operations().workers(None, WORKERS).await?;
    Ok(json(&KindView::new(info, &workers)))
}
