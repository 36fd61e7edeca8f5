use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, SecondsFormat};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use windlass_core::{
    ErrorRecord, Gating, JobId, JobRecord, Kind, NewJob, OnFailure, Priority, Progress, QueueName, State,
    Timestamp,
};

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
static NO_GATES: Gating =
    Gating { limits: Vec::new(), ordering_key: None, on_failure: OnFailure::Block, tenant: None };

/// A job as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Job"))]
pub(crate) struct JobView<'a> {
    id: JobId,
    kind: &'a Kind,
    queue: &'a QueueName,
    state: State,
    attempt: u32,
    max_attempts: u32,
    priority: Priority,
    #[serde(serialize_with = "time")]
    created_at: Timestamp,
    #[serde(serialize_with = "optional_time")]
    run_at: Option<Timestamp>,
    #[serde(serialize_with = "optional_time")]
    started_at: Option<Timestamp>,
    #[serde(serialize_with = "optional_time")]
    finished_at: Option<Timestamp>,
    #[serde(serialize_with = "optional_time")]
    expires_at: Option<Timestamp>,
    #[serde(serialize_with = "optional_time")]
    deadline: Option<Timestamp>,
    version: u16,
    progress: Option<ProgressView<'a>>,
    result: Option<&'a RawValue>,
    errors: Vec<ErrorView<'a>>,
    labels: &'a BTreeMap<String, String>,
    /// What it waits for while it is `waiting`; what it does not have is not shown.
    #[serde(flatten)]
    gating: &'a Gating,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Progress"))]
pub(crate) struct ProgressView<'a> {
    value: f64,
    message: &'a str,
    #[serde(serialize_with = "time")]
    at: Timestamp,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "AttemptError"))]
pub(crate) struct ErrorView<'a> {
    attempt: u32,
    #[serde(serialize_with = "time")]
    at: Timestamp,
    worker: &'a str,
    message: &'a str,
}

impl<'a> JobView<'a> {
    /// A job that was accepted just now, without asking the store again.
    pub(crate) fn accepted(job: &'a NewJob, state: State, at: Timestamp) -> Self {
        Self {
            id: job.id,
            kind: &job.kind,
            queue: &job.queue,
            state,
            attempt: 0,
            max_attempts: job.max_attempts,
            priority: job.priority,
            created_at: at,
            run_at: job.run_at.filter(|_| state == State::Scheduled),
            started_at: None,
            finished_at: None,
            expires_at: job.expires_at,
            deadline: job.deadline,
            version: job.version,
            progress: None,
            result: None,
            errors: Vec::new(),
            labels: &job.labels,
            gating: &job.gating,
        }
    }

    /// For those who may not read: where it stands, and nothing that its attempts have said.
    pub(crate) fn outline(self) -> Self {
        Self { progress: None, result: None, errors: Vec::new(), ..self }
    }

    /// The same of a job that another's request made, without what that said of it.
    pub(crate) fn stranger(self) -> Self {
        Self { labels: &NO_LABELS, gating: &NO_GATES, ..self.outline() }
    }
}

impl<'a> From<&'a JobRecord> for JobView<'a> {
    fn from(job: &'a JobRecord) -> Self {
        Self {
            id: job.id,
            kind: &job.kind,
            queue: &job.queue,
            state: job.state,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            priority: job.priority,
            created_at: job.created_at,
            run_at: job.run_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            expires_at: job.expires_at,
            deadline: job.deadline,
            version: job.version,
            progress: job.progress.as_ref().map(ProgressView::from),
            result: job.result.as_deref(),
            errors: job.errors.iter().map(ErrorView::from).collect(),
            labels: &job.labels,
            gating: &job.gating,
        }
    }
}

impl<'a> From<&'a ErrorRecord> for ErrorView<'a> {
    fn from(error: &'a ErrorRecord) -> Self {
        Self { attempt: error.attempt, at: error.at, worker: &error.worker, message: &error.message }
    }
}

impl<'a> From<&'a Progress> for ProgressView<'a> {
    fn from(progress: &'a Progress) -> Self {
        Self { value: progress.value, message: &progress.message, at: progress.at }
    }
}

/// RFC 3339 in UTC with microseconds, always of the same length.
pub(crate) fn time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(time))
}

pub(crate) fn written(time: &Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn optional_time<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, serializer),
        None => serializer.serialize_none(),
    }
}

/// Reads an RFC 3339 time, to the precision of a store, and to a year that can be written the same way.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    let time = DateTime::parse_from_rfc3339(text).ok();
    // By way of microseconds, which also makes a leap second the second after it.
    let time = time.and_then(|time| Timestamp::from_timestamp_micros(time.timestamp_micros()));
    time.filter(|time| time.year() <= 9999)
        .ok_or_else(|| "write an RFC 3339 time such as \"2030-01-31T12:00:00Z\"".into())
}
