use std::time::Duration;

use serde_json::value::RawValue;

use crate::{Event, JobId};

/// What one attempt ended with, under its fence.
#[derive(Debug, Clone)]
pub struct Finish {
    /// The job.
    pub id: JobId,
    /// The fence of the claim; an older one changes nothing.
    pub fence: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The handler returned a value.
    Succeeded {
        /// What it returned, as JSON; `None` for `()`.
        result: Option<Box<RawValue>>,
        /// How long that is kept; `None` as long as the job.
        keep: Option<Duration>,
    },
    /// It failed, and is due again after a while.
    Retry {
        /// Until the next attempt, by the store's clock.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// It failed for good: attempts used up, or discarded by the handler.
    Dead {
        /// What went wrong.
        error: String,
    },
    /// The handler followed a cancellation request, or was stopped because of it.
    Cancelled,
    /// The handler asked for another time; the attempt does not count.
    Snoozed {
        /// Until the next attempt, by the store's clock.
        after: Duration,
    },
    /// The worker gave the job back, as on shutdown; the attempt does not count.
    Released,
}

impl Outcome {
    /// The event in the state table that this outcome is.
    #[must_use]
    pub const fn event(&self) -> Event {
        match self {
            Self::Succeeded { .. } => Event::Succeed,
            Self::Retry { .. } => Event::Fail,
            Self::Dead { .. } => Event::Die,
            Self::Cancelled => Event::Abort,
            Self::Snoozed { .. } => Event::Snooze,
            Self::Released => Event::Release,
        }
    }

    /// Whether the attempt counts against `max_attempts`.
    #[must_use]
    pub const fn counts(&self) -> bool {
        !matches!(self, Self::Snoozed { .. } | Self::Released)
    }
}
