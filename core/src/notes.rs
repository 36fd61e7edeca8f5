use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{JobId, StoreError, Timestamp};

/// What running attempts say about themselves. Kept beside the jobs, and gone with them. Every method is one transaction
/// and may be repeated after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait JobNotes: Send + Sync {
    /// Keeps the progress and the log lines of a group of attempts. What comes from another attempt than the job's
    /// newest is dropped; a line that is there already, by its number, is left as it is.
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError>;

    /// Up to `limit` log lines of a job from behind `after` on, oldest attempt first, each in order.
    async fn logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, StoreError>;

    /// Keeps a value for the job's next attempt, in place of an earlier one. `false`: the attempt with this fence is
    /// over or its lease is lost, and nothing was kept.
    async fn checkpoint(&self, id: JobId, fence: u32, value: &RawValue) -> Result<bool, StoreError>;

    /// The value that an attempt of this job has kept last.
    async fn last_checkpoint(&self, id: JobId) -> Result<Option<Box<RawValue>>, StoreError>;
}

/// What one attempt has said since it was last written.
#[derive(Debug, Clone)]
pub struct Note {
    /// The job.
    pub id: JobId,
    /// The attempt's fence.
    pub fence: u32,
    /// Which attempt this is to the user.
    pub attempt: u32,
    /// How far it is.
    pub progress: Option<NewProgress>,
    /// Its log lines.
    pub lines: Vec<NewLine>,
}

/// How far an attempt is.
#[derive(Debug, Clone, PartialEq)]
pub struct NewProgress {
    /// From 0 to 1.
    pub value: f64,
    /// What it is doing.
    pub message: String,
    /// How long ago it said so.
    pub age: Duration,
}

/// A line that an attempt has logged.
#[derive(Debug, Clone)]
pub struct NewLine {
    /// Its number in the attempt.
    pub number: u32,
    /// How much it matters.
    pub level: LogLevel,
    /// For people.
    pub message: String,
    /// For machines: a JSON object.
    pub fields: Option<Box<RawValue>>,
    /// How long ago it was logged.
    pub age: Duration,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub value: f64,
    /// What it is doing.
    pub message: String,
    /// When it said so, by the store's clock.
    pub at: Timestamp,
}

/// A log line of a job.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Its place.
    pub cursor: LogCursor,
    /// Which attempt has logged it, counted from 1.
    pub attempt: u32,
    /// When, by the store's clock.
    pub at: Timestamp,
    /// How much it matters.
    pub level: LogLevel,
    /// For people.
    pub message: String,
    /// For machines: a JSON object.
    pub fields: Option<Box<RawValue>>,
}

/// A place in the log of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCursor {
    /// The fence of the attempt.
    pub fence: u32,
    /// The number of the line in it.
    pub number: u32,
}

/// How much a log line matters. The number is what stores keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum LogLevel {
    /// For whoever is looking for a fault.
    Debug = 0,
    /// What happens.
    Info = 1,
    /// What should not happen.
    Warn = 2,
    /// What went wrong.
    Error = 3,
}

impl LogLevel {
    const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The number that stores keep.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A level's name or number that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown log level: {0}; known are debug, info, warn and error")]
pub struct UnknownLevel(String);

impl TryFrom<i16> for LogLevel {
    type Error = UnknownLevel;

    fn try_from(code: i16) -> Result<Self, UnknownLevel> {
        let found = Self::ALL.into_iter().find(|level| level.code() == code);
        found.ok_or_else(|| UnknownLevel(code.to_string()))
    }
}

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == name);
        found.ok_or_else(|| UnknownLevel(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_keep_their_numbers_and_names() {
        for (number, level) in (0..).zip(LogLevel::ALL) {
            assert_eq!((level.code(), LogLevel::try_from(number)), (number, Ok(level)));
            assert_eq!(level.as_str().parse(), Ok(level));
        }
        assert!(LogLevel::try_from(4).is_err() && "INFO".parse::<LogLevel>().is_err());
    }
}
