use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;
use windlass_client::UnknownKinds;
use windlass_core::{
    Gating, Idempotency, InsertOutcome, JobId, JobTemplate, Kind, KindInfo, NewJob, Priority, QueueName,
    Timestamp, Unique,
};

use crate::{
    Service,
    auth::Identity,
    body,
    body::Fields,
    duration, gating,
    idempotency::Space,
    job::job_response,
    problem::{FieldError, Problem},
    unique,
    view::{self, JobView},
};

pub(crate) const KNOWN: &str = "kind, payload, queue, priority, run_at, delay, expires_at, expires_in, deadline, max_attempts, \
                     timeout, limits, ordering_key, on_failure, tenant, version, unique, debounce, throttle, labels";
const MAX_ATTEMPTS: u32 = 1000;
/// What stores can hold.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// A delay or timeout longer than this is a mistake.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `POST /v1/jobs`
pub(crate) async fn enqueue(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&service, body, &parts.headers, options.max_body).await?;
    let text = body::text(&bytes)?;
    let mut draft = Draft::parse(text, options.max_depth)?;
    draft.confine(&caller)?;
    let info = known(&service, &draft).await?;
    let tenant = draft.gating.tenant.as_ref();
    let (idempotency, _held) = service.repeatable(&parts.headers, tenant, Space::Jobs, text)?.unzip();
    draft.idempotency = idempotency;
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let mut job = draft.into_job(&info);
    job.trace = trace.and_then(|trace| trace.parse().ok());

    let began = Instant::now();
    let accepted = service.client.accept(job.clone()).await?;
    // Of one job, and without the body, which may be slow, and without the wait for a rate.
    let now = Instant::now();
    service.crowd.accepted(now - began, now);
    let (id, instead) = made(&job, accepted.outcome)?;
    match accepted.outcome {
        // When a debounced one starts is the store's to say.
        InsertOutcome::Created(state) if !job.unique.as_deref().is_some_and(Unique::is_debounced) => {
            answer(&JobView::accepted(&job, state, accepted.at), id, None)
        }
        _ => answer_stored(&service, &caller, id, instead).await,
    }
}

/// Why the answer is another job than the one the request would have made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
    /// An earlier request with the same idempotency key made it.
    Replayed,
    /// It has the unique key: what became of the conflict.
    Conflict(&'static str),
}

/// The job that the answer to an accepted request is about, or why it was refused after all.
pub(crate) fn made(job: &NewJob, outcome: InsertOutcome) -> Result<(JobId, Option<Instead>), Problem> {
    match outcome {
        InsertOutcome::Created(_) => Ok((job.id, None)),
        InsertOutcome::Existing(id) => Ok((id, Some(Instead::Replayed))),
        InsertOutcome::Held(id) => Ok((id, Some(Instead::Conflict("existing")))),
        InsertOutcome::Replaced(id) => Ok((id, Some(Instead::Conflict("replaced")))),
        InsertOutcome::Refused(holder) => Err(Problem::not_unique(holder)),
        InsertOutcome::KeyReused => Err(Problem::key_reused()),
        InsertOutcome::QueueDraining => Err(Problem::draining(&job.queue)),
        InsertOutcome::OverQuota => Err(Problem::over_quota(job.gating.tenant.as_ref())),
        InsertOutcome::UnknownLimit(at) => Err(gating::unknown_limit(&job.gating, at)),
    }
}

async fn answer_stored(
    service: &Service,
    caller: &Identity,
    id: JobId,
    instead: Option<Instead>,
) -> Result<Response, Problem> {
    match service.client.get(id).await?.filter(|job| caller.sees(job.gating.tenant.as_ref())) {
        Some(existing) => {
            let view = match instead {
                Some(Instead::Conflict(_)) if !caller.may_read() => JobView::from(&existing).stranger(),
                _ => caller.shown(&existing),
            };
            answer(&view, id, instead)
        }
        None => {
            Err(Problem::not_found(format!("the request made the job {id}, which has been removed since")))
        }
    }
}

fn answer(view: &JobView<'_>, id: JobId, instead: Option<Instead>) -> Result<Response, Problem> {
    let mut response = job_response(StatusCode::ACCEPTED, view)?;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/jobs/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    if let Some(instead) = instead {
        let (name, value) = match instead {
            Instead::Replayed => ("idempotency-replayed", "true"),
            Instead::Conflict(what) => ("unique-conflict", what),
        };
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response.into_response())
}

/// What workers say of the job's kind. Refuses a job whose payload does not fit the kind's schema, and one of which they
/// say nothing if the settings want that.
pub(crate) async fn known(service: &Service, draft: &Draft) -> Result<Arc<KindInfo>, Problem> {
    let info = match service.client.kind(&draft.kind).await? {
        Some(info) => info,
        None if service.options.unknown_kinds == UnknownKinds::Accept => {
            return Ok(Arc::new(KindInfo::new(draft.kind.clone())));
        }
        None => return Err(Problem::unknown_kind(draft.kind.as_str())),
    };
    let check = |info| service.schemas.check(info, draft.version, &draft.payload);
    let Err(misfit) = check(&info) else { return Ok(info) };
    // A worker may have said otherwise since.
    match service.client.kind_now(&draft.kind).await? {
        Some(newer) if !Arc::ptr_eq(&newer, &info) => check(&newer).map(|()| newer),
        _ => Err(misfit),
    }
}

/// A request's job, before the kind's defaults are known.
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    payload: Box<RawValue>,
    queue: Option<QueueName>,
    priority: Priority,
    run_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    expires_in: Option<Duration>,
    deadline: Option<Timestamp>,
    version: u16,
    unique: Option<Unique>,
    max_attempts: Option<u32>,
    timeout: Option<Duration>,
    pub(crate) gating: Gating,
    labels: BTreeMap<String, String>,
    pub(crate) idempotency: Option<Idempotency>,
}

impl Draft {
    /// Reads every field before it refuses any, so that a client hears of all its mistakes at once.
    pub(crate) fn parse(text: &str, max_depth: usize) -> Result<Self, Problem> {
        let fields = Fields::parse(text)?;
        fields.check_depth(max_depth)?;
        let mut errors = Vec::new();
        match Self::read(fields, KNOWN, &mut errors) {
            Some(draft) if errors.is_empty() => Ok(draft),
            _ => Err(Problem::invalid(errors)),
        }
    }

    /// Reads the fields of a job, each error into `e`; `known` names the fields for those who write another.
    pub(crate) fn read(mut fields: Fields<'_>, known: &str, e: &mut Vec<FieldError>) -> Option<Self> {
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
        let delayed = delay.map(from_now);
        let run_at = run_at.or(delayed);
        let unique = unique::take(&mut fields, e);
        if run_at.is_some() && unique.as_ref().is_some_and(Unique::is_debounced) {
            e.push(FieldError::new("debounce", "says when the job starts; leave out delay and run_at"));
        }
        let to_come = |text: String| after(&text, run_at);
        let expires_at = fields.take("expires_at", e, to_come);
        let expires_in = fields.take("expires_in", e, |text: String| positive_duration(&text));
        if expires_at.is_some() && expires_in.is_some() {
            e.push(FieldError::new("expires_in", "give either expires_in or expires_at"));
        }
        let deadline = fields.take("deadline", e, to_come);
        let version = fields.take("version", e, |number: u64| match i16::try_from(number) {
            Ok(number @ 1..) => Ok(number.unsigned_abs()),
            _ => Err("use 1 to 32767".into()),
        });
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
        body::no_more(fields, e, known);
        Some(Self {
            kind: kind?,
            payload: payload?,
            queue,
            priority: priority.unwrap_or_default(),
            run_at,
            expires_at,
            expires_in,
            deadline,
            version: version.unwrap_or(1),
            unique,
            max_attempts,
            timeout,
            gating,
            labels,
            idempotency: None,
        })
    }

    /// Makes it the caller's own.
    pub(crate) fn confine(&mut self, caller: &Identity) -> Result<(), Problem> {
        caller.confine(&mut self.gating.tenant)
    }

    pub(crate) fn into_job(self, info: &KindInfo) -> NewJob {
        let mut job = NewJob::new(self.kind, self.payload);
        job.queue = self.queue.unwrap_or_else(|| info.queue.clone());
        job.priority = self.priority;
        job.max_attempts = self.max_attempts.unwrap_or(info.max_attempts);
        job.timeout = self.timeout;
        job.run_at = self.run_at;
        job.expires_at = self.expires_at.or(self.expires_in.map(from_now));
        job.deadline = self.deadline;
        job.version = self.version;
        job.unique = self.unique.map(Box::new);
        job.gating = self.gating;
        job.labels = self.labels;
        job.idempotency = self.idempotency.map(Box::new);
        job
    }

    /// What a schedule makes, which has no times of its own.
    pub(crate) fn into_template(self, info: &KindInfo) -> JobTemplate {
        JobTemplate {
            queue: self.queue.unwrap_or_else(|| info.queue.clone()),
            priority: self.priority,
            max_attempts: self.max_attempts.unwrap_or(info.max_attempts),
            timeout: self.timeout,
            expires_in: self.expires_in,
            version: self.version,
            labels: self.labels,
            unique: self.unique,
            gating: self.gating,
            ..JobTemplate::new(self.kind, self.payload)
        }
    }

    /// The fields that say when a single job is run, and whether they are given.
    pub(crate) fn absolute_times(&self) -> [(&'static str, bool); 4] {
        [
            ("run_at", self.run_at.is_some()),
            ("expires_at", self.expires_at.is_some()),
            ("deadline", self.deadline.is_some()),
            ("debounce", self.unique.as_ref().is_some_and(Unique::is_debounced)),
        ]
    }
}

pub(crate) fn limited_duration(text: &str) -> Result<Duration, String> {
    let duration = duration::parse(text)?;
    if duration > LONGEST { Err("may be at most ten years".into()) } else { Ok(duration) }
}

/// A time that may not be over at once.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match limited_duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".into()),
        duration => Ok(duration),
    }
}

/// Durations are limited to what the calendar holds.
fn from_now(duration: Duration) -> Timestamp {
    let delta = chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX);
    chrono::Utc::now().checked_add_signed(delta).unwrap_or(Timestamp::MAX_UTC)
}

/// An instant that is to come, and that comes after the start of the job.
fn after(text: &str, run_at: Option<Timestamp>) -> Result<Timestamp, String> {
    let at = view::instant(text)?;
    if at <= chrono::Utc::now() {
        Err("is past".into())
    } else if run_at.is_some_and(|run_at| at <= run_at) {
        Err("must be later than the time at which the job is due".into())
    } else {
        Ok(at)
    }
}

/// Takes a field out that is an object, and reads that, with its errors at their places in it.
pub(crate) fn nested<T>(
    fields: &mut Fields<'_>,
    name: &str,
    errors: &mut Vec<FieldError>,
    read: impl FnOnce(Fields<'_>, &mut Vec<FieldError>) -> Option<T>,
) -> Option<T> {
    let object = fields.take(name, errors, Ok::<Fields<'_>, String>)?;
    let mut within = Vec::new();
    let value = read(object, &mut within);
    errors.extend(
        within.into_iter().map(|error| FieldError { pointer: format!("/{name}{}", error.pointer), ..error }),
    );
    value
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
