use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{FromRequestParts, Path, Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::RawValue;
use windlass_core::{
    Gating, LimitKey, Missed, Priority, Schedule, ScheduleDefinition, ScheduleName, ScheduleRecord,
    Timestamp, Timing,
};

use crate::{
    Service, body,
    body::Fields,
    enqueue::{self, Draft, known, limited_duration, nested},
    gating,
    problem::{FieldError, Problem},
    view,
};

const KNOWN: &str = "cron, zone, every, missed, jitter, enabled, job";
/// How many runs to come are shown.
const NEXT_RUNS: usize = 5;

/// `GET /v1/schedules`
pub(crate) async fn list(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let records = service.client.schedules().await?;
    Ok(Json(SchedulesView { schedules: records.iter().map(ScheduleView::from).collect() }).into_response())
}

/// `GET /v1/schedules/{name}`
pub(crate) async fn get(State(service): State<Arc<Service>>, Name(name): Name) -> Result<Response, Problem> {
    show(&service, &name).await
}

/// `PUT /v1/schedules/{name}`
pub(crate) async fn put(
    State(service): State<Arc<Service>>,
    Name(name): Name,
    request: Request,
) -> Result<Response, Problem> {
    let options = &service.options;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&service, body, &parts.headers, options.max_body).await?;
    let (schedule, enabled, draft) = parse(body::text(&bytes)?, options.max_depth)?;
    let info = known(&service, &draft).await.map_err(|problem| problem.within("/job"))?;
    let definition = ScheduleDefinition { name: name.clone(), schedule, job: draft.into_template(&info) };
    check_limits(&service, &definition).await.map_err(|problem| problem.within("/job"))?;
    let put = service.client.put_schedule(&definition, enabled).await;
    put.map_err(|error| Problem::from(error).within("/job"))?;
    show(&service, &name).await
}

/// That somebody has defined the limits, without which nothing would come of any tick.
async fn check_limits(service: &Service, definition: &ScheduleDefinition) -> Result<(), Problem> {
    let wanted = &definition.job.gating.limits;
    if wanted.is_empty() {
        return Ok(());
    }
    let known = service.client.store().operations().limits().await?;
    let unknown = |limit: &LimitKey| !known.iter().any(|known| known.name.as_str() == limit.name());
    match wanted.iter().position(unknown) {
        Some(at) => Err(gating::unknown_limit(&definition.job.gating, at)),
        None => Ok(()),
    }
}

/// `DELETE /v1/schedules/{name}`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Name(name): Name,
) -> Result<Response, Problem> {
    match service.timetable().delete_schedule(&name).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(no_such_schedule(&name)),
    }
}

/// `POST /v1/schedules/{name}/enable`
pub(crate) async fn enable(service: State<Arc<Service>>, name: Name) -> Result<Response, Problem> {
    switch(service, name, true).await
}

/// `POST /v1/schedules/{name}/disable`
pub(crate) async fn disable(service: State<Arc<Service>>, name: Name) -> Result<Response, Problem> {
    switch(service, name, false).await
}

async fn switch(
    State(service): State<Arc<Service>>,
    Name(name): Name,
    enabled: bool,
) -> Result<Response, Problem> {
    match service.timetable().enable_schedule(&name, enabled).await? {
        true => show(&service, &name).await,
        false => Err(no_such_schedule(&name)),
    }
}

async fn show(service: &Service, name: &ScheduleName) -> Result<Response, Problem> {
    let records = service.client.schedules().await?;
    let record = records.iter().find(|record| record.definition.name == *name);
    let record = record.ok_or_else(|| no_such_schedule(name))?;
    Ok(Json(ScheduleView::from(record)).into_response())
}

/// Reads a definition: when, whether, and what.
fn parse(text: &str, max_depth: usize) -> Result<(Schedule, Option<bool>, Draft), Problem> {
    let mut fields = Fields::parse(text)?;
    fields.check_depth(max_depth)?;
    let mut errors = Vec::new();
    let e = &mut errors;
    let schedule = read_schedule(&mut fields, e);
    let enabled = fields.take("enabled", e, Ok::<bool, String>);
    let draft = nested(&mut fields, "job", e, |fields, e| {
        let draft = Draft::read(fields, enqueue::KNOWN, e)?;
        for (field, given) in draft.absolute_times() {
            if given {
                e.push(FieldError::new(field, "not for a schedule, whose ticks say when"));
            }
        }
        Some(draft)
    });
    if draft.is_none() && !e.iter().any(|error| error.pointer.starts_with("/job")) {
        e.push(FieldError::new("job", "required: what is enqueued at each tick, with kind and payload"));
    }
    for (name, _) in fields.rest("", e) {
        e.push(FieldError::new(&name, format!("unknown field; known are {KNOWN}")));
    }
    match (schedule, draft) {
        (Some(schedule), Some(draft)) if errors.is_empty() => Ok((schedule, enabled, draft)),
        _ => Err(Problem::invalid(errors)),
    }
}

fn read_schedule(fields: &mut Fields<'_>, e: &mut Vec<FieldError>) -> Option<Schedule> {
    let zone = fields.take("zone", e, |zone: String| match Schedule::cron("0 0 * * *", &zone) {
        Ok(_) => Ok(zone),
        Err(error) => Err(error.to_string()),
    });
    let cron = fields.take("cron", e, |cron: String| {
        Schedule::cron(&cron, zone.as_deref().unwrap_or("UTC")).map_err(|error| error.to_string())
    });
    let every = fields.take("every", e, |every: String| {
        Schedule::every(limited_duration(&every)?).map_err(|error| error.to_string())
    });
    let missed = fields.take("missed", e, |missed: String| match missed.as_str() {
        "skip" => Ok(Missed::Skip),
        "once" => Ok(Missed::Once),
        "all" => Ok(Missed::All),
        _ => Err("use \"skip\", \"once\" or \"all\"".into()),
    });
    let jitter = fields.take("jitter", e, |jitter: String| match limited_duration(&jitter)? {
        jitter if jitter > Duration::from_secs(86_400) => Err("may be at most a day".into()),
        jitter => Ok(jitter),
    });
    let schedule = match (cron, every) {
        (Some(schedule), None) | (None, Some(schedule)) => schedule,
        (Some(_), Some(_)) => {
            e.push(FieldError::new("every", "give either cron or every"));
            return None;
        }
        (None, None) => {
            if !e.iter().any(|error| ["/cron", "/every"].contains(&error.pointer.as_str())) {
                e.push(FieldError::new("cron", "required, unless every is given"));
            }
            return None;
        }
    };
    Some(schedule.missed(missed.unwrap_or_default()).jitter(jitter.unwrap_or_default()))
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ScheduleList"))]
pub(crate) struct SchedulesView<'a> {
    schedules: Vec<ScheduleView<'a>>,
}

/// A schedule as clients see it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Schedule"))]
pub(crate) struct ScheduleView<'a> {
    name: &'a ScheduleName,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<String>,
    missed: Missed,
    jitter: String,
    enabled: bool,
    /// Before jitter; none while it is disabled.
    next_runs: Vec<String>,
    last_run: Option<String>,
    job: TemplateView<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ScheduledJob"))]
struct TemplateView<'a> {
    kind: &'a str,
    queue: &'a str,
    priority: Priority,
    payload: &'a RawValue,
    max_attempts: u32,
    timeout: Option<String>,
    expires_in: Option<String>,
    version: u16,
    labels: &'a BTreeMap<String, String>,
    /// What it does not have is not shown.
    #[serde(flatten)]
    gating: &'a Gating,
}

impl<'a> From<&'a ScheduleRecord> for ScheduleView<'a> {
    fn from(record: &'a ScheduleRecord) -> Self {
        let ScheduleDefinition { name, schedule, job } = &record.definition;
        let duration = |duration: Duration| humantime::format_duration(duration).to_string();
        let (cron, zone, every) = match schedule.timing() {
            Timing::Cron(cron) => (Some(cron.expression()), Some(cron.zone()), None),
            Timing::Every(interval) => (None, None, Some(duration(*interval))),
        };
        let next = record.next_at.filter(|_| record.enabled);
        let next = std::iter::successors(next, |tick: &Timestamp| schedule.next_after(*tick));
        Self {
            name,
            cron,
            zone,
            every,
            missed: schedule.missed_policy(),
            jitter: duration(schedule.longest_jitter()),
            enabled: record.enabled,
            next_runs: next.take(NEXT_RUNS).map(|tick| view::written(&tick)).collect(),
            last_run: record.last_at.as_ref().map(view::written),
            job: TemplateView {
                kind: job.kind.as_str(),
                queue: job.queue.as_str(),
                priority: job.priority,
                payload: &job.payload,
                max_attempts: job.max_attempts,
                timeout: job.timeout.map(duration),
                expires_in: job.expires_in.map(duration),
                version: job.version,
                labels: &job.labels,
                gating: &job.gating,
            },
        }
    }
}

/// The schedule's name in the path.
pub(crate) struct Name(ScheduleName);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text =
            Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        text.parse()
            .map(Self)
            .map_err(|error: windlass_core::InvalidName| Problem::malformed(error.to_string()))
    }
}

fn no_such_schedule(name: &ScheduleName) -> Problem {
    Problem::not_found(format!("there is no schedule {name}"))
}
