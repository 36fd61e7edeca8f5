//! What operators do with many jobs at once: those that a filter means, page by page, or those that are named.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde::Serialize;
use windlass_core::{JobFilter, JobId, State as JobState};

use crate::{
    Service,
    auth::Identity,
    body::{self, Fields},
    cursor,
    dead::json,
    enqueue::nested,
    listing::{named, states},
    problem::{FieldError, Problem},
    view,
};

/// How many jobs one request changes, unless it says fewer.
const MOST: usize = 1000;

/// What one request has changed. More may be left while there is a cursor.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BulkResult"))]
pub(crate) struct BulkView {
    pub(crate) count: usize,
    pub(crate) next_cursor: Option<String>,
}

/// `POST /v1/jobs/cancel`
pub(crate) async fn cancel(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let what = What { does: "cancelled", to: &JobState::UNFINISHED, unless_said: &JobState::UNFINISHED };
    let selected = select(&service, &caller, request, &what).await?;
    let count = service.client.cancel_many(&selected.ids, &selected.from).await?.len();
    Ok(json(&BulkView { count, next_cursor: selected.next_cursor }))
}

/// `POST /v1/jobs/retry`
pub(crate) async fn retry(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let what = What { does: "retried", to: &JobState::TERMINAL, unless_said: &[JobState::Dead] };
    let selected = select(&service, &caller, request, &what).await?;
    let count = service.client.retry(&selected.ids, &selected.from).await?.len();
    Ok(json(&BulkView { count, next_cursor: selected.next_cursor }))
}

/// `POST /v1/jobs/delete`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let what = What { does: "deleted", to: &JobState::TERMINAL, unless_said: &[JobState::Dead] };
    let selected = select(&service, &caller, request, &what).await?;
    let count = service.client.delete(&selected.ids, &selected.from).await?.len();
    Ok(json(&BulkView { count, next_cursor: selected.next_cursor }))
}

/// An operation, as far as the selection of its jobs goes.
struct What {
    does: &'static str,
    /// Jobs in these states only.
    to: &'static [JobState],
    /// Those of them that a filter means which names none.
    unless_said: &'static [JobState],
}

/// Jobs, and the states in which they are still to be.
struct Selected {
    ids: Vec<JobId>,
    from: Vec<JobState>,
    next_cursor: Option<String>,
}

/// The jobs that a request's body means.
async fn select(
    service: &Service,
    caller: &Identity,
    request: Request,
    what: &What,
) -> Result<Selected, Problem> {
    let bytes = body::read_request(service, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let e = &mut Vec::new();
    let ids = fields.take("ids", e, |ids: Vec<JobId>| match ids.len() {
        ..=MOST => Ok(ids),
        _ => Err(format!("at most {MOST} at a time")),
    });
    let mut filter = nested(&mut fields, "filter", e, |fields, e| read_filter(fields, e, what));
    if let Some(filter) = &mut filter {
        caller.confine(&mut filter.tenant)?;
    }
    let limit = fields.take("limit", e, |number: u64| match usize::try_from(number) {
        Ok(limit @ 1..=MOST) => Ok(limit),
        _ => Err(format!("use 1 to {MOST}")),
    });
    let before = fields.take("cursor", e, |text: String| match &filter {
        Some(filter) => cursor::read(&text, filter).map_err(Into::into),
        None => Err("goes with the filter it came from".into()),
    });
    body::no_more(fields, e, "filter, limit, cursor; or ids");
    if e.is_empty() && ids.is_some() == filter.is_some() {
        // Nobody is to change all jobs by an empty body.
        e.push(FieldError::new("filter", "give either filter ({} means all) or ids"));
    }
    if e.is_empty() && ids.is_some() && limit.is_some() {
        e.push(FieldError::new("limit", "goes with filter only"));
    }
    if !e.is_empty() {
        return Err(Problem::invalid(std::mem::take(e)));
    }
    match (ids, filter) {
        (Some(ids), _) => {
            let ids = service.own(caller, ids).await?;
            Ok(Selected { ids, from: what.to.to_vec(), next_cursor: None })
        }
        (None, filter) => {
            let filter = filter.unwrap_or_default();
            let operations = service.client.store().operations();
            let found = operations.find(&filter, before, limit.unwrap_or(MOST)).await?;
            let next_cursor = found.next.map(|next| cursor::write(next, &filter));
            Ok(Selected { ids: found.ids, from: filter.states, next_cursor })
        }
    }
}

fn read_filter(mut fields: Fields<'_>, e: &mut Vec<FieldError>, what: &What) -> Option<JobFilter> {
    let before = e.len();
    let queue = fields.take("queue", e, |text: String| named(&text));
    let kind = fields.take("kind", e, |text: String| named(&text));
    let states = fields.take("state", e, |OneOrMany(names)| {
        let mut read =
            names.iter().map(|name| name.parse().map_err(|_| states())).collect::<Result<Vec<_>, _>>()?;
        match read.iter().find(|state| !what.to.contains(state)) {
            Some(state) => Err(format!("what is {state} cannot be {}", what.does)),
            None => {
                read.sort_by_key(|state| state.code());
                read.dedup();
                Ok(read)
            }
        }
    });
    let labels = fields.take("labels", e, Ok::<BTreeMap<String, String>, String>);
    let tenant = fields.take("tenant", e, |text: String| named(&text));
    let created_after = fields.take("created_after", e, |text: String| view::instant(&text));
    let created_before = fields.take("created_before", e, |text: String| view::instant(&text));
    body::no_more(fields, e, "queue, kind, state, labels, tenant, created_after, created_before");
    let states = states.filter(|states: &Vec<JobState>| !states.is_empty());
    (e.len() == before).then(|| JobFilter {
        queue,
        kind,
        states: states.unwrap_or_else(|| what.unless_said.to_vec()),
        labels: labels.unwrap_or_default(),
        tenant,
        created_after,
        created_before,
    })
}

/// A text, or a list of texts.
struct OneOrMany(Vec<String>);

impl<'de> serde::Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> serde::de::Visitor<'de> for Texts {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a state or a list of states")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<S: serde::de::SeqAccess<'de>>(self, mut list: S) -> Result<OneOrMany, S::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMany(texts))
            }
        }

        deserializer.deserialize_any(Texts)
    }
}
