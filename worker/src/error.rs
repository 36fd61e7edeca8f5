use std::{error::Error, fmt, time::Duration};

use windlass_client::{ClientError, SettingsError};
use windlass_core::{BrokerError, InvalidName, Kind, Outcome, RetryPolicy, StoreError};

/// Why an attempt failed, and what is to become of its job.
///
/// Any error turns into one by `?`, and then the job's retry policy decides. It does not implement
/// [`Error`] itself, which is what makes that conversion possible.
pub struct JobError {
    decision: Decision,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Retry,
    RetryAfter(Duration),
    Discard,
    Snooze(Duration),
}

impl JobError {
    /// The attempt failed; the retry policy says when to try again. The same as `?` on an error, for what is none.
    pub fn retry(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Decision::Retry, &*error.into())
    }

    /// The attempt failed; try again after `delay`, whatever the policy says.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Decision::RetryAfter(delay), &*error.into())
    }

    /// The job can never succeed: it is `dead` at once.
    pub fn discard(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Decision::Discard, &*error.into())
    }

    /// Nothing failed, but it is too early: run again after `delay`. The attempt does not count.
    #[must_use]
    pub fn snooze(delay: Duration) -> Self {
        Self { decision: Decision::Snooze(delay), message: String::from("snoozed") }
    }

    fn new(decision: Decision, error: &(dyn Error + Send + Sync + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own words.
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Self { decision, message }
    }

    /// The outcome of an attempt that ended with this error.
    pub(crate) fn outcome(
        self,
        attempt: u32,
        max_attempts: u32,
        policy: &RetryPolicy,
        rng: &mut fastrand::Rng,
    ) -> Outcome {
        let error = truncated(self.message);
        match self.decision {
            Decision::Snooze(after) => Outcome::Snoozed { after },
            Decision::Discard => Outcome::Dead { error },
            Decision::Retry | Decision::RetryAfter(_) if attempt >= max_attempts => Outcome::Dead { error },
            Decision::Retry => Outcome::Retry { after: policy.delay(attempt, rng), error },
            Decision::RetryAfter(after) => Outcome::Retry { after, error },
        }
    }
}

/// The longest error kept, in bytes.
const LONGEST: usize = 8192;

fn truncated(mut text: String) -> String {
    if text.len() > LONGEST {
        text.truncate(text.floor_char_boundary(LONGEST));
        text.push('…');
    }
    text
}

impl<E: Error + Send + Sync + 'static> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::new(Decision::Retry, &error)
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.decision, self.message)
    }
}

/// Why a worker cannot start, or cannot go on.
#[derive(thiserror::Error)]
pub enum WorkerError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store or broker cannot be opened.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store will not work before someone changes something.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker will not work before someone changes something.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A payload type names a kind or queue that breaks the naming rule.
    #[error("the payload type {payload}: {error}")]
    Name {
        /// The type.
        payload: &'static str,
        /// What is wrong with its name.
        error: InvalidName,
    },
    /// A limit cannot be as it was defined.
    #[error("the limit {name:?}: {problem}")]
    Limit {
        /// Its name.
        name: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// No handler was added.
    #[error("the worker has no handler; add one with .handle(…)")]
    NoHandler,
    /// Two handlers for one kind.
    #[error("two handlers are for the kind {0}; a kind has one")]
    TwoHandlers(Kind),
    /// A handler asks for a state that was not added.
    #[error("the handler for {kind} asks for State<{state}>; add it with .state(…)")]
    MissingState {
        /// The handler's kind.
        kind: Kind,
        /// The type it asks for.
        state: &'static str,
    },
    /// The signals that end the worker cannot be listened to.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] std::io::Error),
}

/// As `Display`, since this is what a `main` that returns it prints.
impl fmt::Debug for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(error: JobError, attempt: u32) -> Outcome {
        error.outcome(attempt, 3, &RetryPolicy::DEFAULT, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn decisions_become_outcomes() {
        let hour = Duration::from_secs(3600);
        assert!(matches!(outcome(JobError::retry("x"), 2), Outcome::Retry { .. }));
        assert!(matches!(outcome(JobError::retry("x"), 3), Outcome::Dead { .. }));
        assert!(
            matches!(outcome(JobError::retry_after(hour, "x"), 1), Outcome::Retry { after, .. } if after == hour)
        );
        assert!(matches!(outcome(JobError::retry_after(hour, "x"), 3), Outcome::Dead { .. }));
        assert!(matches!(outcome(JobError::discard("x"), 1), Outcome::Dead { .. }));
        assert!(matches!(outcome(JobError::snooze(hour), 3), Outcome::Snoozed { after } if after == hour));
    }

    #[test]
    fn the_message_has_the_chain_of_causes_and_a_limit() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot send")]
        struct Outer(#[source] std::io::Error);
        let error = JobError::from(Outer(std::io::Error::other("connection refused")));
        assert_eq!(error.to_string(), "cannot send: connection refused");
        let Outcome::Dead { error } = outcome(JobError::discard("ä".repeat(10_000)), 1) else { panic!() };
        assert!(error.len() <= LONGEST + 3 && error.ends_with('…'));
    }
}
