//! What is too large for the store's rows: it lies in an object store, and the row has a reference to it.

mod open;
mod sweep;

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use serde_json::value::RawValue;
use tokio::time::timeout;
use windlass_core::JobId;

/// Objects of jobs, by the day of their ids as the store's partitions are, so that a day can go as a whole.
const JOBS: &str = "jobs";
/// Results whose end is known, by the hour in which they may go.
const EXPIRING: &str = "expiring";
/// What is written and removed to see whether that works.
const CHECK: &str = "check";

/// An object store for large payloads and results: a folder, or a bucket of S3 or what speaks like it.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    above: usize,
    deadline: Duration,
    /// A folder does not come back by itself.
    local: bool,
}

/// Why an object cannot be kept or fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// The setting names nothing that can be used, or access is refused.
    #[error("objects_url {problem}; {remedy}")]
    Config {
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// It does not answer, or not as it should. Passes by itself.
    #[error("the object store of objects_url does not work: {0}")]
    Unavailable(String),
    /// This process has no object store.
    #[error(
        "it is kept as the object {0}, and objects_url is not set; set it as it is in the API and the other workers"
    )]
    NotSet(String),
    /// There is no such object.
    #[error(
        "its object {0} is not there; it was removed, or objects_url is another one than where the object was written"
    )]
    Missing(String),
}

impl ObjectsError {
    /// Whether the same may work later, be it by someone's doing: then nothing is wrong with the job.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::Unavailable(_))
    }
}

impl Objects {
    /// Whether a text of this many bytes is for the object store.
    pub(crate) const fn wants(&self, size: usize) -> bool {
        size > self.above
    }

    /// Writes and removes an object, to see whether that works.
    pub(crate) async fn check(&self) -> Result<(), ObjectsError> {
        let checked = async {
            self.put(CHECK, PutPayload::from_static(b"windlass")).await?;
            match timeout(self.deadline, self.store.delete(&CHECK.into())).await {
                // Another process may be checking as well.
                Ok(Ok(()) | Err(Error::NotFound { .. })) => Ok(()),
                Ok(Err(error)) => Err(problem(&error)),
                Err(_) => Err(self.too_slow()),
            }
        };
        checked.await.map_err(|error: ObjectsError| match error {
            ObjectsError::Unavailable(text) if self.local => ObjectsError::Config {
                problem: format!("names a folder that cannot be written: {text}"),
                remedy: "let this process write there, or name another folder",
            },
            error => error,
        })
    }

    pub(crate) async fn keep(&self, name: &str, text: &RawValue) -> Result<(), ObjectsError> {
        self.put(name, PutPayload::from(text.get().as_bytes().to_vec())).await
    }

    async fn put(&self, name: &str, bytes: PutPayload) -> Result<(), ObjectsError> {
        match timeout(self.deadline, self.store.put(&name.into(), bytes)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Error::NotFound { .. })) if !self.local => Err(ObjectsError::Config {
                problem: "names a bucket that does not exist".into(),
                remedy: "make it, or correct the name",
            }),
            Ok(Err(error)) => Err(problem(&error)),
            Err(_) => Err(self.too_slow()),
        }
    }

    pub(crate) async fn fetch(&self, name: &str) -> Result<Box<RawValue>, ObjectsError> {
        let path = Path::parse(name).map_err(|_| ObjectsError::Missing(name.into()))?;
        let fetched = timeout(self.deadline, async { self.store.get(&path).await?.bytes().await }).await;
        let bytes = match fetched.map_err(|_| self.too_slow())? {
            Ok(bytes) => bytes,
            Err(Error::NotFound { .. }) => return Err(ObjectsError::Missing(name.into())),
            Err(error) => return Err(problem(&error)),
        };
        let text = String::from_utf8(bytes.into()).ok().and_then(|text| RawValue::from_string(text).ok());
        text.ok_or_else(|| ObjectsError::Missing(format!("{name}, as it was written,")))
    }

    fn too_slow(&self) -> ObjectsError {
        ObjectsError::Unavailable(format!("no answer within {:?}", self.deadline))
    }
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("above", &self.above).finish_non_exhaustive()
    }
}

/// The object of a job's payload.
pub(crate) fn payload_name(id: JobId) -> String {
    format!("{JOBS}/{}/{id}.payload", day(id))
}

/// The object of the result of a job's attempt, by when it may go if that is known.
pub(crate) fn result_name(id: JobId, fence: u32, keep: Option<Duration>, now: DateTime<Utc>) -> String {
    let hour = TimeDelta::hours(1);
    let until = keep.and_then(|keep| {
        let until = now.checked_add_signed(TimeDelta::from_std(keep).ok()?)?;
        // The store counts from when the outcome is recorded, by its own clock: hence an hour more.
        until.duration_trunc(hour).ok()?.checked_add_signed(hour * 2)
    });
    match until {
        Some(until) => format!("{EXPIRING}/{}/{id}.result.{fence}", until.format("%Y%m%d%H")),
        None => format!("{JOBS}/{}/{id}.result.{fence}", day(id)),
    }
}

fn day(id: JobId) -> String {
    let seconds = id.as_uuid().get_timestamp().and_then(|time| i64::try_from(time.to_unix().0).ok());
    let day = seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    day.map_or_else(|| "undated".into(), |day| day.format("%Y%m%d").to_string())
}

/// In one line: servers answer with whole documents.
fn problem(error: &Error) -> ObjectsError {
    let text = error.to_string();
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(400));
    match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => ObjectsError::Config {
            problem: format!("is refused to us: {text}"),
            remedy: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role, with the right to put, get, delete and list objects",
        },
        _ => ObjectsError::Unavailable(text),
    }
}
