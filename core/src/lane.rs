use std::fmt;

use serde::{Deserialize, Serialize};

use crate::QueueName;

/// How urgent a job is within its queue. Each priority of a queue is a [`Lane`] of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum Priority {
    /// 0: what can wait.
    Low = 0,
    /// 1: the default.
    #[default]
    Normal = 1,
    /// 2: before normal work.
    High = 2,
    /// 3: before everything else.
    Urgent = 3,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Priority {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Priority".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "integer", "minimum": 0, "maximum": 3,
            "description": "0 (low), 1 (normal), 2 (high) or 3 (urgent).",
        })
    }
}

impl Priority {
    /// Every priority, most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// How many messages of this priority come to one that is low, where they have [shares](Priorities::Weighted).
    #[must_use]
    pub const fn weight(self) -> u64 {
        1 << self as u8
    }
}

/// How a worker divides itself among its lanes when messages wait in several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priorities {
    /// By [weight](Priority::weight): of fifteen messages eight are urgent, four high, two normal and one is low. The share
    /// of a lane where nothing waits goes to the others, and what comes there is among the next.
    #[default]
    Weighted,
    /// A lane waits as long as there are messages in a more urgent one.
    Strict,
}

/// A number that is no priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid priority: use 0 (low), 1 (normal), 2 (high) or 3 (urgent)")]
pub struct InvalidPriority;

impl TryFrom<u8> for Priority {
    type Error = InvalidPriority;

    fn try_from(number: u8) -> Result<Self, InvalidPriority> {
        match number {
            0 => Ok(Self::Low),
            1 => Ok(Self::Normal),
            2 => Ok(Self::High),
            3 => Ok(Self::Urgent),
            _ => Err(InvalidPriority),
        }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> Self {
        priority as Self
    }
}

/// One broker queue, topic or subscription: a queue at one priority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The queue whose jobs travel here.
    pub queue: QueueName,
    /// Their priority.
    pub priority: Priority,
}

impl Lane {
    /// All lanes of `queue`, most urgent first.
    pub fn of(queue: &QueueName) -> impl Iterator<Item = Self> {
        Priority::ALL.into_iter().map(|priority| Self { queue: queue.clone(), priority })
    }
}

impl fmt::Display for Lane {
    /// The name a broker knows the lane by, such as `windlass.mail.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "windlass.{}.{}", self.queue, self.priority as u8)
    }
}
