//! What a worker counts and times, whatever its handlers have around them.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, Unit};
use tokio::time::Instant;
use windlass_core::Outcome;

use crate::executor::Ending;

const ATTEMPTS: &str = "windlass_attempts_total";
const DURATION: &str = "windlass_attempt_duration_seconds";
const RUNNING: &str = "windlass_attempts_running";

/// What attempts may end with.
const OUTCOMES: [&str; 7] = ["succeeded", "retry", "snoozed", "dead", "cancelled", "released", "abandoned"];

/// A handle for each metric, so that an attempt looks none up by its name.
#[derive(Debug)]
pub(crate) struct Meters {
    running: Gauge,
    ended: [OnceLock<(Counter, Histogram)>; OUTCOMES.len()],
}

impl Meters {
    pub(crate) fn new() -> Self {
        metrics::describe_counter!(
            ATTEMPTS,
            Unit::Count,
            "Attempts that have ended, by what they ended with"
        );
        metrics::describe_histogram!(
            DURATION,
            Unit::Seconds,
            "How long attempts took, from when they had a place; a batch's gathering included"
        );
        metrics::describe_gauge!(
            RUNNING,
            Unit::Count,
            "Attempts under way, without those that wait for a place"
        );
        Self { running: metrics::gauge!(RUNNING), ended: Default::default() }
    }

    /// An attempt begins.
    pub(crate) fn begin(&self) -> Attempt<'_> {
        self.running.increment(1.0);
        Attempt { meters: self, began: Instant::now(), outcome: OUTCOMES.len() - 1 }
    }
}

/// Recorded when it is dropped, since an attempt may be as well.
pub(crate) struct Attempt<'a> {
    meters: &'a Meters,
    began: Instant,
    outcome: usize,
}

impl Attempt<'_> {
    pub(crate) fn ended(mut self, ending: &Ending) {
        self.outcome = match ending {
            Ending::Committed | Ending::Outcome(Outcome::Succeeded { .. }) => 0,
            Ending::Outcome(Outcome::Retry { .. }) => 1,
            Ending::Outcome(Outcome::Snoozed { .. }) => 2,
            Ending::Outcome(Outcome::Dead { .. }) => 3,
            Ending::Outcome(Outcome::Cancelled) => 4,
            Ending::Outcome(Outcome::Released) => 5,
            Ending::Abandoned => 6,
        };
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.meters.running.decrement(1.0);
        let outcome = OUTCOMES[self.outcome];
        let (counter, duration) = self.meters.ended[self.outcome].get_or_init(|| {
            (
                metrics::counter!(ATTEMPTS, "outcome" => outcome),
                metrics::histogram!(DURATION, "outcome" => outcome),
            )
        });
        counter.increment(1);
        duration.record(self.began.elapsed());
    }
}
