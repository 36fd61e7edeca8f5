use std::ops::Deref;

use serde::de::DeserializeOwned;
use windlass_core::{Job, JobRecord, State};

/// The jobs of a kind that there are in a [`TestSystem`](super::TestSystem), in the order in which they were enqueued. A slice of
/// [`TestJob`]; its assertions tell what is there instead.
#[derive(Debug)]
pub struct TestJobs<J>(pub(super) Vec<TestJob<J>>);

/// A job as it was when it was looked at: its payload, and by `Deref` its [`JobRecord`], with state, attempts and errors.
#[derive(Debug)]
pub struct TestJob<J> {
    /// What the handler gets.
    pub payload: J,
    /// How the job stands.
    pub record: JobRecord,
}

impl<J: Job> TestJobs<J> {
    /// The only job of its kind.
    ///
    /// # Panics
    /// If there is none, or another.
    #[track_caller]
    #[must_use]
    pub fn only(&self) -> &TestJob<J> {
        match self.0.as_slice() {
            [only] => only,
            _ => panic!("expected one {}, and there are {}", J::KIND, self.told()),
        }
    }

    /// The first job with this payload, compared as JSON.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn assert_enqueued(&self, payload: &J) -> &TestJob<J> {
        let wanted = serde_json::to_value(payload);
        let found = self.0.iter().find(|job| match (&wanted, serde_json::to_value(&job.payload)) {
            (Ok(wanted), Ok(payload)) => *wanted == payload,
            _ => false,
        });
        found.unwrap_or_else(|| {
            panic!("no {} {} was enqueued; there are {}", J::KIND, json(payload), self.told())
        })
    }

    /// There is none.
    ///
    /// # Panics
    /// If there is one.
    #[track_caller]
    pub fn assert_none(&self) {
        assert!(self.0.is_empty(), "expected no {}, and there are {}", J::KIND, self.told());
    }

    /// There are some, and all have succeeded.
    ///
    /// # Panics
    /// Otherwise.
    #[track_caller]
    pub fn assert_succeeded(&self) {
        let succeeded = !self.0.is_empty() && self.0.iter().all(|job| job.state == State::Succeeded);
        assert!(succeeded, "not every {} has succeeded; there are {}", J::KIND, self.told());
    }

    fn told(&self) -> String {
        let jobs = self.0.iter().map(|job| format!("\n  {} with {}", told(job), json(&job.payload)));
        if self.0.is_empty() {
            "none".into()
        } else {
            format!("{}:{}", self.0.len(), jobs.collect::<String>())
        }
    }
}

impl<J> Deref for TestJobs<J> {
    type Target = [TestJob<J>];

    fn deref(&self) -> &[TestJob<J>] {
        &self.0
    }
}

impl<J> Deref for TestJob<J> {
    type Target = JobRecord;

    fn deref(&self) -> &JobRecord {
        &self.record
    }
}

impl<J> TestJob<J> {
    /// The job is in this state.
    ///
    /// # Panics
    /// If it is in another.
    #[track_caller]
    pub fn assert_state(&self, state: State) -> &Self {
        assert!(self.state == state, "expected {} to be {state}: {}", self.kind, told(self));
        self
    }

    /// What the handler returned; a unit is read from nothing.
    ///
    /// # Panics
    /// If the job has not succeeded, or its result is of another type.
    #[track_caller]
    #[must_use]
    pub fn result<R: DeserializeOwned>(&self) -> R {
        self.assert_state(State::Succeeded);
        let json = self.record.result.as_ref().map_or("null", |result| result.get());
        match serde_json::from_str(json) {
            Ok(result) => result,
            Err(error) => panic!("the result of {} {} is {json}: {error}", self.kind, self.id),
        }
    }
}

/// The job, and what became of it, in one line.
pub(super) fn told(job: &JobRecord) -> String {
    let JobRecord { kind, id, state, attempt, max_attempts, .. } = job;
    let mut told = format!("{kind} {id}, {state} after {attempt} of {max_attempts} attempts");
    for error in &job.errors {
        told += &format!(" (attempt {}: {})", error.attempt, error.message);
    }
    told
}

fn json<J: Job>(payload: &J) -> String {
    serde_json::to_string(payload).unwrap_or_else(|error| format!("a payload that is no JSON: {error}"))
}
