use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use windlass_client::UnknownKinds;
use windlass_core::{
    Gating, Idempotency, InsertOutcome, Kind, KindInfo, NewJob, Priority, QueueName, Timestamp,
};

use crate::{
    Service, body,
    body::Fields,
    duration, gating,
    job::job_response,
    problem::{FieldError, Problem},
    view::{self, JobView},
};

const KNOWN: &str = "kind, payload, queue, priority, run_at, delay, max_attempts, timeout, limits, ordering_key, on_failure, \
                     tenant, labels";
const MAX_ATTEMPTS: u32 = 1000;
/// What stores can hold.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// A delay or timeout longer than this is a mistake.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `POST /v1/jobs`
pub(crate) async fn enqueue(
    State(service): State<Arc<Service>>,
    request: Request,
) -> Result<Response, Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    if !body::is_json(&parts.headers) {
        return Err(Problem::media_type());
    }
    let bytes = body::read(body, &parts.headers, options.max_body, options.request_timeout).await?;
    let text = body::text(&bytes)?;
    let mut draft = Draft::parse(text, options.max_depth)?;
    let info = kind_info(&service, &draft.kind).await?;
    draft.idempotency = idempotency(&parts.headers, text, options.idempotency_ttl)?;
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let mut job = draft.into_job(info);
    job.trace = trace.and_then(|trace| trace.parse().ok());

    let accepted = service.client.accept(job.clone()).await?;
    match accepted.outcome {
        InsertOutcome::Created(state) => {
            answer(&JobView::accepted(&job, state, accepted.at), &job.id.to_string(), false)
        }
        InsertOutcome::Existing(id) => match service.client.get(id).await? {
            Some(existing) => answer(&JobView::from(&existing), &id.to_string(), true),
            None => Err(Problem::not_found(format!(
                "the idempotency key made the job {id}, which has been removed since"
            ))),
        },
        InsertOutcome::KeyReused => Err(Problem::key_reused()),
        InsertOutcome::QueueDraining => Err(Problem::draining(&job.queue)),
        InsertOutcome::UnknownLimit(at) => Err(gating::unknown_limit(&job, at)),
    }
}

fn answer(view: &JobView<'_>, id: &str, replayed: bool) -> Result<Response, Problem> {
    let mut response = job_response(StatusCode::ACCEPTED, view)?;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    Ok(response.into_response())
}

/// What workers say of the kind; refuses it if they say nothing and the settings want that.
async fn kind_info(service: &Service, kind: &Kind) -> Result<KindInfo, Problem> {
    match service.client.kind(kind).await? {
        Some(info) => Ok(info),
        None if service.options.unknown_kinds == UnknownKinds::Accept => Ok(KindInfo {
            kind: kind.clone(),
            queue: QueueName::default(),
            max_attempts: KindInfo::DEFAULT_MAX_ATTEMPTS,
        }),
        None => Err(Problem::unknown_kind(kind.as_str())),
    }
}

/// The key with a fingerprint of the route and of the body without insignificant white space. The order of its
/// fields counts: a client that repeats a request repeats its bytes.
fn idempotency(headers: &HeaderMap, text: &str, ttl: Duration) -> Result<Option<Idempotency>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let visible =
        (1..=255).contains(&value.len()) && value.as_bytes().iter().all(|b| (0x21..=0x7e).contains(b));
    let (true, None, Ok(key)) = (visible, values.next(), value.to_str()) else {
        return Err(Problem::invalid(vec![FieldError {
            pointer: "header:idempotency-key".into(),
            detail: "send one key of 1 to 255 visible ASCII characters".into(),
        }]));
    };
    let mut hash = Sha256::new();
    hash.update("POST /v1/jobs\n");
    body::compact(text, |part| hash.update(part));
    Ok(Some(Idempotency { key: key.to_owned(), fingerprint: hash.finalize().into(), ttl }))
}

/// A request's job, before the kind's defaults are known.
struct Draft {
    kind: Kind,
    payload: Box<RawValue>,
    queue: Option<QueueName>,
    priority: Priority,
    run_at: Option<Timestamp>,
    max_attempts: Option<u32>,
    timeout: Option<Duration>,
    gating: Gating,
    labels: BTreeMap<String, String>,
    idempotency: Option<Idempotency>,
}

impl Draft {
    /// Reads every field before it refuses any, so that a client hears of all its mistakes at once.
    fn parse(text: &str, max_depth: usize) -> Result<Self, Problem> {
        let mut fields = Fields::parse(text)?;
        fields.check_depth(max_depth)?;
        let mut errors = Vec::new();
        let e = &mut errors;
        let kind = fields.take("kind", e, |text: String| text.parse::<Kind>().map_err(|e| e.to_string()));
        if kind.is_none() && e.is_empty() {
            e.push(FieldError::new("kind", "required: what the job is, such as \"email.send\""));
        }
        let payload = fields.raw("payload").map(ToOwned::to_owned);
        if payload.is_none() {
            e.push(FieldError::new("payload", "required: what the handler gets, any JSON value"));
        }
        let queue =
            fields.take("queue", e, |text: String| text.parse::<QueueName>().map_err(|e| e.to_string()));
        let priority = fields.take("priority", e, |number: u64| {
            let priority = u8::try_from(number).ok().and_then(|number| Priority::try_from(number).ok());
            priority.ok_or_else(|| "use 0 (low), 1 (normal), 2 (high) or 3 (urgent)".into())
        });
        let run_at = fields.take("run_at", e, |text: String| view::instant(&text));
        let delay = fields.take("delay", e, |text: String| limited_duration(&text));
        if run_at.is_some() && delay.is_some() {
            e.push(FieldError::new("delay", "give either delay or run_at"));
        }
        let max_attempts = fields.take("max_attempts", e, |number: u64| match u32::try_from(number) {
            Ok(number @ 1..=MAX_ATTEMPTS) => Ok(number),
            _ => Err(format!("use 1 to {MAX_ATTEMPTS}")),
        });
        let timeout = fields.take("timeout", e, |text: String| match limited_duration(&text)? {
            timeout if timeout < SHORTEST_TIMEOUT => Err("must be at least 1ms".into()),
            timeout => Ok(timeout),
        });
        let labels = fields.take("labels", e, Ok::<Fields<'_>, String>).unwrap_or_default();
        let labels = read_labels(labels, e);
        let gating = gating::read(&mut fields, e);
        body::no_more(fields, e, KNOWN);
        let (Some(kind), Some(payload), true) = (kind, payload, errors.is_empty()) else {
            return Err(Problem::invalid(errors));
        };
        let delayed = delay.and_then(|delay| {
            chrono::Utc::now().checked_add_signed(chrono::TimeDelta::from_std(delay).ok()?)
        });
        Ok(Self {
            kind,
            payload,
            queue,
            priority: priority.unwrap_or_default(),
            run_at: run_at.or(delayed),
            max_attempts,
            timeout,
            gating,
            labels,
            idempotency: None,
        })
    }

    fn into_job(self, info: KindInfo) -> NewJob {
        let mut job = NewJob::new(self.kind, self.payload);
        job.queue = self.queue.unwrap_or(info.queue);
        job.priority = self.priority;
        job.max_attempts = self.max_attempts.unwrap_or(info.max_attempts);
        job.timeout = self.timeout;
        job.run_at = self.run_at;
        job.gating = self.gating;
        job.labels = self.labels;
        job.idempotency = self.idempotency;
        job
    }
}

fn limited_duration(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    if duration > LONGEST { Err("may be at most ten years".into()) } else { Ok(duration) }
}

fn read_labels(labels: Fields<'_>, errors: &mut Vec<FieldError>) -> BTreeMap<String, String> {
    let mut read = BTreeMap::new();
    let fits = |text: &str, longest| text.len() <= longest && !text.chars().any(char::is_control);
    for (name, value) in labels.rest("/labels", errors) {
        match serde_json::from_str::<String>(value.get()) {
            Ok(value) if !name.is_empty() && fits(&name, 63) && fits(&value, 255) => {
                read.insert(name, value);
            }
            _ => {
                let detail = "a name of 1 to 63 bytes and a text of up to 255, without control characters";
                errors.push(FieldError::within("/labels", &name, detail));
            }
        }
    }
    read
}
