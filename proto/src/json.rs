//! How the fields of messages are written in the JSON of the HTTP API.

use std::{collections::BTreeMap, str::FromStr as _};

use prost::bytes::Bytes;
use prost_types::{Duration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize as _, Serializer, de, ser};
use serde_json::value::RawValue;

use crate::v1::{
    Job, JobState, LogLevel, Missed, Needs, OnConflict, OnFailure, WebhookEvent, WorkflowJob, WorkflowStatus,
};

/// A duration as ISO 8601 has it, such as `PT1.5S`. The API refuses one below zero.
#[must_use]
pub fn iso_8601(duration: &Duration) -> String {
    let Duration { seconds, nanos } = *duration;
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("PT{sign}{}.{:09}S", seconds.unsigned_abs(), nanos.unsigned_abs())
}

/// An enumeration whose values have a name in the API: that of the file, without what all of them begin with, in small
/// letters.
pub(crate) trait Named: TryFrom<i32> + Into<i32> {
    const PREFIX: &'static str;
    /// What is between two words of a name.
    const BETWEEN: &'static str;

    fn file_name(&self) -> &'static str;

    fn of_file_name(name: &str) -> Option<Self>;
}

macro_rules! named {
    ($($name:ident $prefix:literal $between:literal),*) => {
        $(impl Named for $name {
            const PREFIX: &'static str = $prefix;
            const BETWEEN: &'static str = $between;

            fn file_name(&self) -> &'static str {
                self.as_str_name()
            }

            fn of_file_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        })*
    };
}

named!(
    JobState "JOB_STATE_" "_",
    LogLevel "LOG_LEVEL_" "_",
    Missed "MISSED_" "_",
    Needs "NEEDS_" "_",
    OnConflict "ON_CONFLICT_" "_",
    OnFailure "ON_FAILURE_" "_",
    WebhookEvent "WEBHOOK_EVENT_" ".",
    WorkflowStatus "WORKFLOW_STATUS_" "_"
);

impl JobState {
    /// Its name in the HTTP API, such as `queued`.
    #[must_use]
    pub fn name(self) -> String {
        name(&self)
    }
}

fn name<T: Named>(value: &T) -> String {
    value.file_name().trim_start_matches(T::PREFIX).to_ascii_lowercase().replace('_', T::BETWEEN)
}

pub(crate) fn write_name<T: Named, S: Serializer>(value: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written::<T>(*value))
}

pub(crate) fn write_names<T: Named, S: Serializer>(values: &[i32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| written::<T>(*value)))
}

/// What is not known here is for the API to refuse, by its number.
fn written<T: Named>(value: i32) -> String {
    T::try_from(value).map_or_else(|_| value.to_string(), |value| name(&value))
}

/// `null` is what is unspecified here.
pub(crate) fn read_name<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    Option::<String>::deserialize(deserializer)?.map_or(Ok(0), |name| value_of::<T, _>(&name))
}

pub(crate) fn read_names<'de, T: Named, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i32>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|name| value_of::<T, _>(name)).collect()
}

fn value_of<T: Named, E: de::Error>(name: &str) -> Result<i32, E> {
    let value =
        T::of_file_name(&format!("{}{}", T::PREFIX, name.to_ascii_uppercase().replace(T::BETWEEN, "_")));
    value.map(Into::into).ok_or_else(|| E::custom(format_args!("{name:?} is not one of {}…", T::PREFIX)))
}

pub(crate) fn is_unspecified(value: &i32) -> bool {
    *value == 0
}

/// A list that is `null` where it would be empty.
pub(crate) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// JSON by number.
pub(crate) fn raws<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, Bytes>, D::Error> {
    let raws = BTreeMap::<u32, Box<RawValue>>::deserialize(deserializer)?;
    Ok(raws.into_iter().map(|(number, json)| (number, bytes(json))).collect())
}

fn bytes(json: Box<RawValue>) -> Bytes {
    Bytes::from(String::from(Box::<str>::from(json)))
}

/// The jobs of a workflow: each is a job with one field more.
pub(crate) fn workflow_jobs<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<WorkflowJob>, D::Error> {
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let jobs = Vec::<Box<RawValue>>::deserialize(deserializer)?;
    let read = |text: &str| {
        let Name { name } = serde_json::from_str(text)?;
        let job = serde_json::from_str::<Job>(text)?;
        Ok(WorkflowJob { name, job: Some(job) })
    };
    jobs.iter()
        .map(|job| read(job.get()))
        .collect::<Result<_, serde_json::Error>>()
        .map_err(de::Error::custom)
}

fn write_raw<S: Serializer>(json: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    match serde_json::from_slice::<&RawValue>(json) {
        Ok(json) => json.serialize(serializer),
        Err(error) => Err(ser::Error::custom(format_args!("the payload must be JSON: {error}"))),
    }
}

/// JSON that is always there.
pub(crate) mod raw {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(json: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        write_raw(json, serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(bytes)
    }
}

/// JSON that may be missing. `null` is what the API says then.
pub(crate) mod optional_raw {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::<Box<RawValue>>::deserialize(deserializer)?.map(bytes))
    }
}

/// A time as RFC 3339 has it.
pub(crate) mod time {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => serializer.collect_str(time),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        Option::<String>::deserialize(deserializer)?.as_deref().map(read_time).transpose()
    }
}

/// Times as RFC 3339 has them.
pub(crate) mod times {
    use super::*;

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Timestamp>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|time| read_time(time)).collect()
    }
}

fn read_time<E: de::Error>(text: &str) -> Result<Timestamp, E> {
    Timestamp::from_str(text).map_err(|_| E::custom(format_args!("{text:?} is no time of RFC 3339")))
}

/// A duration: as ISO 8601 has it in requests, for people in answers.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.serialize_str(&iso_8601(duration)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let duration = humantime::parse_duration(&text).ok().and_then(|duration| duration.try_into().ok());
        duration.map(Some).ok_or_else(|| de::Error::custom(format_args!("{text:?} is no duration")))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;
    use crate::v1::{
        Debounce, Delivery, KindInfo, NewJob, NewWebhook, NewWorkflowJob, Parent, Queue, Schedule, Unique,
        Webhook, Workflow,
    };

    fn job() -> NewJob {
        NewJob {
            kind: "mail".into(),
            payload: Bytes::from_static(b"{\"b\": 1.0, \"a\": 2}"),
            ..NewJob::default()
        }
    }

    /// What is written, without what is left out.
    fn written(message: &impl serde::Serialize) -> Value {
        let mut value = serde_json::to_value(message).unwrap();
        let fields = value.as_object_mut().unwrap();
        fields.retain(|_, value| !value.is_null() && *value != json!([]) && *value != json!({}));
        value
    }

    #[test]
    fn a_job_is_written_as_the_api_reads_it() {
        let seconds = |seconds, nanos| Some(Duration { seconds, nanos });
        let full = NewJob {
            priority: Some(0),
            run_at: Some(Timestamp { seconds: 1_893_456_000, nanos: 0 }),
            timeout: seconds(90, 500_000_000),
            expires_in: seconds(-1, 0),
            on_failure: OnFailure::Skip.into(),
            unique: Some(Unique {
                key: Some("k".into()),
                period: seconds(60, 0),
                on_conflict: OnConflict::ReplaceAll.into(),
                ..Unique::default()
            }),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..job()
        };
        let unique = json!({"key": "k", "for": "PT60.000000000S", "on_conflict": "replace_all"});
        let expected = json!({
            "kind": "mail", "payload": {"b": 1.0, "a": 2}, "priority": 0, "run_at": "2030-01-01T00:00:00Z",
            "timeout": "PT90.500000000S", "expires_in": "PT-1.000000000S", "on_failure": "skip", "unique": unique,
            "labels": {"a": "b"},
        });
        assert_eq!(written(&full), expected);
        // To the letter.
        assert!(serde_json::to_string(&full).unwrap().contains(r#""payload":{"b": 1.0, "a": 2}"#));
        let debounce = Debounce { key: "k".into(), delay: seconds(1, 0), max_wait: None };
        assert_eq!(written(&debounce), json!({"key": "k", "delay": "PT1.000000000S"}));
    }

    #[test]
    fn what_is_no_json_is_not_written() {
        for payload in ["", "{", "1 2", "\u{1}"] {
            let job = NewJob { payload: payload.to_owned().into(), ..job() };
            let error = serde_json::to_string(&job).unwrap_err().to_string();
            assert!(error.contains("must be JSON"), "{payload:?}: {error}");
        }
    }

    #[test]
    fn values_of_another_version_are_written_by_number() {
        let job = NewJob { on_failure: 99, ..job() };
        assert_eq!(written(&job)["on_failure"], "99");
    }

    #[test]
    fn a_job_of_a_workflow_has_its_fields_beside_the_name() {
        let parents = vec![
            Parent { job: "a".into(), needs: 0 },
            Parent { job: "b".into(), needs: Needs::Finished.into() },
        ];
        let step = NewWorkflowJob { name: "c".into(), job: Some(job()), after: parents, after_all: 0 };
        let expected = json!({
            "name": "c", "kind": "mail", "payload": {"b": 1.0, "a": 2},
            "after": [{"job": "a"}, {"job": "b", "needs": "finished"}],
        });
        assert_eq!(written(&step), expected);
        let all = NewWorkflowJob { after: Vec::new(), after_all: Needs::Succeeded.into(), ..step };
        let value = serde_json::to_value(&all).unwrap();
        assert_eq!((value.get("after"), &value["after_all"]), (None, &json!("succeeded")));
    }

    #[test]
    fn answers_are_read() {
        let job = json!({
            "id": "0199", "kind": "mail", "queue": "q", "state": "succeeded", "attempt": 1, "max_attempts": 8,
            "priority": 1, "created_at": "2030-01-01T00:00:00.250000Z", "run_at": null, "started_at": null,
            "finished_at": "2030-01-01T00:00:01.000000Z", "expires_at": null, "deadline": null, "version": 1,
            "progress": {"value": 0.5, "message": "half", "at": "2030-01-01T00:00:00.500000Z"},
            "result": {"a": 1}, "errors": [], "labels": {"a": "b"}, "on_failure": "block", "limits": [],
        });
        let read: Job = serde_json::from_str(&job.to_string()).unwrap();
        assert_eq!(read.state(), JobState::Succeeded);
        assert_eq!(read.created_at, Some(Timestamp { seconds: 1_893_456_000, nanos: 250_000_000 }));
        assert_eq!((read.run_at, read.tenant.as_deref()), (None, None));
        assert_eq!(read.result.as_deref(), Some(&br#"{"a":1}"#[..]));
        assert_eq!(read.progress.unwrap().value, 0.5);

        let mut step = job;
        step["name"] = "first".into();
        let workflow = json!({
            "id": "1", "name": "w", "status": "running", "created_at": "2030-01-01T00:00:00.000000Z",
            "counts": {"succeeded": 1}, "jobs": [step], "next_cursor": null,
        });
        let read: Workflow = serde_json::from_str(&workflow.to_string()).unwrap();
        assert_eq!(read.status(), WorkflowStatus::Running);
        assert_eq!((&*read.jobs[0].name, read.counts["succeeded"]), ("first", 1));
        assert_eq!(read.jobs[0].job.as_ref().unwrap().kind, "mail");

        let queue = r#"{"name": "q", "paused": true, "per": "1m 30s", "rate": 5, "depth": null, "lanes": [{"priority": 3, "depth": 7}]}"#;
        let read: Queue = serde_json::from_str(queue).unwrap();
        assert_eq!(read.per, Some(Duration { seconds: 90, nanos: 0 }));
        assert_eq!((read.paused, read.depth, read.lanes[0].depth), (true, None, Some(7)));

        let schedule = r#"{"name": "s", "every": "1h", "missed": "once", "jitter": "0s", "enabled": true,
            "next_runs": ["2030-01-01T00:00:00.000000Z"], "last_run": null,
            "job": {"kind": "mail", "payload": null, "timeout": null}}"#;
        let read: Schedule = serde_json::from_str(schedule).unwrap();
        assert_eq!((read.missed(), read.next_runs.len()), (Missed::Once, 1));
        assert_eq!(read.job.unwrap().payload, &b"null"[..]);
    }

    #[test]
    fn what_is_about_the_fleet_is_read() {
        let kind = r#"{"kind": "mail", "schemas": {"1": {"type":  "object"}, "12": true}, "workers": []}"#;
        let read: KindInfo = serde_json::from_str(kind).unwrap();
        let schemas = [(1, &br#"{"type":  "object"}"#[..]), (12, b"true")];
        assert_eq!(read.schemas.iter().map(|(at, json)| (*at, &json[..])).collect::<Vec<_>>(), schemas);

        let webhook =
            r#"{"id": "1", "events": ["job.dead", "webhook.test"], "kinds": null, "queues": ["q"]}"#;
        let read: Webhook = serde_json::from_str(webhook).unwrap();
        let events = read.events().collect::<Vec<_>>();
        assert_eq!(events, [WebhookEvent::JobDead, WebhookEvent::WebhookTest]);
        assert_eq!((read.kinds.len(), read.queues), (0, vec!["q".to_owned()]));
        let delivery: Delivery = serde_json::from_str(r#"{"event": "job.dead", "state": null}"#).unwrap();
        assert_eq!((delivery.event(), delivery.state()), (WebhookEvent::JobDead, JobState::Unspecified));
    }

    #[test]
    fn a_webhook_is_written_as_the_api_reads_it() {
        let webhook = NewWebhook {
            url: "https://example.com".into(),
            events: vec![WebhookEvent::JobSucceeded.into()],
            ..NewWebhook::default()
        };
        let mut value = serde_json::to_value(&webhook).unwrap();
        // No list is not an empty one.
        assert_eq!((value.get("kinds"), value.get("queues")), (None, None));
        assert_eq!(value["events"].take(), json!(["job.succeeded"]));
    }

    #[test]
    fn states_have_the_names_of_the_api() {
        assert_eq!(JobState::Queued.name(), "queued");
        let error = serde_json::from_str::<Job>(r#"{"state": "asleep"}"#).unwrap_err();
        assert!(error.to_string().contains("asleep"), "{error}");
    }
}
