use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use windlass_client::{ClientError, SecretUrl, SettingsError};
use windlass_core::{BrokerError, InvalidName, Kind, Outcome, RetryPolicy, ScheduleName, StoreError};

/// Why an attempt failed, and what is to become of its job.
///
/// Any error turns into one by `?`, and then the job's retry policy decides. It does not implement
/// [`Error`] itself, which is what makes that conversion possible. Its `Display` has the chain of causes.
#[derive(Clone)]
pub struct JobError {
    decision: Decision,
    error: Arc<dyn Error + Send + Sync>,
}

/// What an error says is to become of the job. As long as it has attempts left, that is; only a snooze needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// As the retry policy says.
    Retry,
    /// Another attempt after this time, whatever the policy says.
    RetryAfter(Duration),
    /// No further attempt.
    Discard,
    /// The attempt does not count; the next one is after this time.
    Snooze(Duration),
}

impl JobError {
    /// The attempt failed; the retry policy says when to try again. The same as `?` on an error, for what is none.
    pub fn retry(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { decision: Decision::Retry, error: error.into().into() }
    }

    /// The attempt failed; try again after `delay`, whatever the policy says.
    pub fn retry_after(delay: Duration, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { decision: Decision::RetryAfter(delay), error: error.into().into() }
    }

    /// The job can never succeed: it is `dead` at once.
    pub fn discard(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { decision: Decision::Discard, error: error.into().into() }
    }

    /// Nothing failed, but it is too early: run again after `delay`. The attempt does not count.
    #[must_use]
    pub fn snooze(delay: Duration) -> Self {
        Self {
            decision: Decision::Snooze(delay),
            error: Box::<dyn Error + Send + Sync>::from("snoozed").into(),
        }
    }

    /// What it says is to become of the job.
    #[must_use]
    pub fn decision(&self) -> Decision {
        self.decision
    }

    /// The error that the handler gave, to be downcast to its type.
    #[must_use]
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }

    /// The outcome of an attempt that ended with this error.
    pub(crate) fn outcome(
        self,
        attempt: u32,
        max_attempts: u32,
        policy: &RetryPolicy,
        rng: &mut fastrand::Rng,
    ) -> Outcome {
        // Its Display is the user's code as well, and so is a custom policy below: neither may cost us the attempt.
        let text = || {
            let text = catch_unwind(AssertUnwindSafe(|| self.to_string()));
            truncated(text.unwrap_or_else(|_| "(the error panicked when asked what it says)".into()))
        };
        match self.decision {
            Decision::Snooze(after) => Outcome::Snoozed { after },
            Decision::Discard => Outcome::Dead { error: text() },
            Decision::Retry | Decision::RetryAfter(_) if attempt >= max_attempts => {
                Outcome::Dead { error: text() }
            }
            Decision::RetryAfter(after) => Outcome::Retry { after, error: text() },
            Decision::Retry => match self.wait(attempt, policy, rng) {
                Some(after) => Outcome::Retry { after, error: text() },
                None => Outcome::Dead { error: text() },
            },
        }
    }

    /// What the policy says.
    fn wait(&self, attempt: u32, policy: &RetryPolicy, rng: &mut fastrand::Rng) -> Option<Duration> {
        catch_unwind(AssertUnwindSafe(|| policy.delay(attempt, &*self.error, rng))).unwrap_or_else(|_| {
            tracing::error!("the custom retry policy panicked; the default one decides");
            RetryPolicy::DEFAULT.delay(attempt, &*self.error, rng)
        })
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
        Self { decision: Decision::Retry, error: Arc::new(error) }
    }
}

/// The error with its chain of causes.
impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut message = self.error.to_string();
        f.write_str(&message)?;
        let mut source = self.error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many errors repeat their cause in their own words.
            if !message.ends_with(&text) {
                write!(f, ": {text}")?;
                message = text;
            }
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.decision)
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
    /// The broker does not answer a worker that starts.
    #[error("{error}; check broker_url (WINDLASS_BROKER_URL), which is {url}, and whether the broker runs")]
    BrokerSilent {
        /// Where it should be, without a password.
        url: SecretUrl,
        /// What came instead of an answer.
        error: BrokerError,
    },
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
    /// Two schedules of one name.
    #[error("two schedules are named {0}; name one of them otherwise with .named(…)")]
    TwoSchedules(ScheduleName),
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
    fn a_custom_policy_sees_the_error_and_may_panic() {
        const POLICY: RetryPolicy = RetryPolicy::custom(|attempt, error| {
            assert!(attempt < 3, "a bug in the policy");
            error.downcast_ref::<std::io::Error>().map(|_| Duration::from_secs(7))
        });
        let outcome =
            |error: JobError, attempt| error.outcome(attempt, 10, &POLICY, &mut fastrand::Rng::with_seed(1));
        let seven = Duration::from_secs(7);
        let io = || JobError::from(std::io::Error::other("x"));
        assert!(matches!(outcome(io(), 1), Outcome::Retry { after, .. } if after == seven));
        assert!(matches!(outcome(JobError::retry(std::io::Error::other("x")), 1), Outcome::Retry { .. }));
        assert!(matches!(outcome(JobError::retry("no io::Error"), 1), Outcome::Dead { .. }));
        assert!(matches!(outcome(io(), 3), Outcome::Retry { .. }));
    }

    #[test]
    fn an_error_whose_display_panics_is_an_error_like_any_other() {
        #[derive(Debug)]
        struct Broken;
        impl Error for Broken {}
        impl fmt::Display for Broken {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("a bug in the error")
            }
        }
        assert!(
            matches!(outcome(Broken.into(), 1), Outcome::Retry { error, .. } if error.contains("panicked"))
        );
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
