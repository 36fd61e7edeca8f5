//! Many jobs in one request, each with an answer of its own.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use futures::{StreamExt as _, stream::FuturesOrdered};
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use windlass_core::{JobId, NewJob, TraceParent};

use crate::{
    ApiOptions, Service,
    auth::Identity,
    body::{self, Fields},
    dead::json,
    enqueue::{self, Draft, Instead},
    idempotency::{self, Space},
    problem::{FieldError, Problem},
};

/// The most jobs in one batch.
const MOST: usize = 10_000;
/// How many of them are on their way into the store at a time. They fill the groups that go there, and leave room for
/// others; what waits behind them has not been read yet.
const UNDER_WAY: usize = 1_000;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BatchResult"))]
pub(crate) struct BatchView {
    /// In the order of the request's.
    jobs: Vec<ItemView>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BatchItemResult"))]
#[serde(untagged)]
enum ItemView {
    /// It is committed, as [`enqueue`](enqueue::enqueue) would have answered 202.
    Accepted {
        id: JobId,
        #[serde(skip_serializing_if = "Option::is_none")]
        idempotency_replayed: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        unique_conflict: Option<&'static str>,
    },
    /// Nothing was stored for it, unless the problem says that it may have been.
    Refused { error: Problem },
}

/// `POST /v1/jobs/batch`
pub(crate) async fn enqueue(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&service, body, &parts.headers, options.max_batch_body).await?;
    let jobs = parse(body::text(&bytes)?)?;
    let batch = Batch::new(&service, &caller, &parts.headers)?;
    let own = caller.tenant.as_ref();
    // As a whole: items under keys of their own that come twice at once are told apart by the store.
    let _held =
        batch.key.as_deref().map(|key| service.keys_in_flight.begin(own, Space::Batch, key)).transpose()?;
    let mut items = Vec::with_capacity(jobs.len());
    let mut under_way = FuturesOrdered::new();
    for (at, text) in jobs.iter().enumerate() {
        // Made one after the other, so that their ids are in the order of the request.
        let job = batch.job(at, text.get()).await;
        under_way.push_back(batch.accept(at, job));
        if under_way.len() == UNDER_WAY {
            items.extend(under_way.next().await);
        }
    }
    items.extend(under_way.collect::<Vec<_>>().await);
    let fails_for_now = |item: &Result<_, Problem>| item.as_ref().is_err_and(Problem::passes);
    if items.iter().all(fails_for_now)
        && let Some(Err(problem)) = items.first()
    {
        // The whole of it is to be repeated.
        return Err(problem.clone());
    }
    let jobs =
        items.into_iter().map(|item| item.unwrap_or_else(|error| ItemView::Refused { error })).collect();
    Ok(json(&BatchView { jobs }))
}

/// The items of a request, unread.
pub(crate) fn parse(text: &str) -> Result<Vec<&RawValue>, Problem> {
    let mut fields = Fields::parse(text)?;
    let mut errors = Vec::new();
    let jobs = fields.take("jobs", &mut errors, |Items(jobs): Items<'_>| Ok::<_, String>(jobs));
    if jobs.is_none() && errors.is_empty() {
        errors.push(FieldError::new("jobs", "required: a list of jobs"));
    }
    body::no_more(fields, &mut errors, "jobs");
    match jobs {
        Some(jobs) if errors.is_empty() => Ok(jobs),
        _ => Err(Problem::invalid(errors)),
    }
}

/// An item, with its own key if it has one.
pub(crate) fn parse_item(text: &str, options: &ApiOptions) -> Result<(Draft, Option<String>), Problem> {
    if text.len() > options.max_body {
        return Err(Problem::too_large(options.max_body));
    }
    let mut fields = Fields::parse(text)?;
    fields.check_depth(options.max_depth)?;
    let mut errors = Vec::new();
    let key = fields.take("idempotency_key", &mut errors, |key: String| {
        match idempotency::is_key(key.as_bytes()) {
            true => Ok(key),
            false => Err(idempotency::KEY_RULE.to_owned()),
        }
    });
    let known = format!("idempotency_key, {}", enqueue::KNOWN);
    match Draft::read(fields, &known, &mut errors) {
        Some(draft) if errors.is_empty() => Ok((draft, key)),
        _ => Err(Problem::invalid(errors)),
    }
}

/// What the items of one request have in common.
struct Batch<'a> {
    service: &'a Service,
    caller: &'a Identity,
    /// What makes the keys of those items that have none, if the request has one.
    key: Option<Cow<'a, str>>,
    trace: Option<TraceParent>,
    /// What befell an item that will befall the others as well: no more are tried then.
    trouble: OnceLock<Problem>,
}

impl<'a> Batch<'a> {
    fn new(service: &'a Service, caller: &'a Identity, headers: &'a HeaderMap) -> Result<Self, Problem> {
        let trace = headers.get("traceparent").and_then(|value| value.to_str().ok());
        Ok(Self {
            service,
            caller,
            key: idempotency::key(headers)?,
            trace: trace.and_then(|trace| trace.parse().ok()),
            trouble: OnceLock::new(),
        })
    }

    /// An item's job, under the rules and limits for a single one.
    async fn job(&self, at: usize, text: &str) -> Result<NewJob, Problem> {
        if let Some(trouble) = self.trouble.get() {
            return Err(trouble.clone());
        }
        let options = &self.service.options;
        let (mut draft, key) = parse_item(text, options)?;
        draft.confine(self.caller)?;
        // No key has a line break, so this is nobody's own.
        let key = key.or_else(|| self.key.as_ref().map(|key| format!("{key}\n{at}")));
        let tenant = draft.gating.tenant.as_ref();
        let ttl = options.idempotency_ttl;
        draft.idempotency = key.map(|key| idempotency::keyed(tenant, Space::Batch, &key, text, ttl));
        let info = enqueue::known(self.service, &draft).await;
        let info = info.inspect_err(|problem| self.note(problem))?;
        let mut job = draft.into_job(&info);
        job.trace.clone_from(&self.trace);
        Ok(job)
    }

    async fn accept(&self, at: usize, job: Result<NewJob, Problem>) -> Result<ItemView, Problem> {
        let accepted = async { self.commit(job?).await };
        accepted.await.map_err(|problem| problem.within(&format!("/jobs/{at}")))
    }

    fn note(&self, problem: &Problem) {
        if problem.passes() {
            self.trouble.get_or_init(|| problem.clone());
        }
    }

    async fn commit(&self, job: NewJob) -> Result<ItemView, Problem> {
        let outcome = match self.service.client.accept(job.clone()).await {
            Ok(accepted) => accepted.outcome,
            // Told to the log once, however many items it has struck.
            Err(error) if error.retryable() => return Err(self.trouble.get_or_init(|| error.into()).clone()),
            Err(error) => return Err(error.into()),
        };
        let (id, instead) = enqueue::made(&job, outcome)?;
        let (idempotency_replayed, unique_conflict) = match instead {
            None => (None, None),
            Some(Instead::Replayed) => (Some(true), None),
            Some(Instead::Conflict(what)) => (None, Some(what)),
        };
        Ok(ItemView::Accepted { id, idempotency_replayed, unique_conflict })
    }
}

/// A list of no more than [`MOST`] values, each as it came: a longer one is not kept.
struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Items<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of jobs")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Items<'de>, S::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == MOST {
                        return Err(S::Error::custom(format_args!("at most {MOST} jobs at a time")));
                    }
                    items.push(item);
                }
                Ok(Items(items))
            }
        }

        deserializer.deserialize_seq(List)
    }
}
