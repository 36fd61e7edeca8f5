use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::address::Address;
use super::problem::Problem;

/// For how long an event explains the failures after it. Clients try to connect at least once a second.
const FRESH: Duration = Duration::from_secs(5);

/// The target of the library's own lines.
pub(super) const LIBRARY: &str = "librdkafka";

/// What ails the connections to the brokers. Calls fail with no more than "timed out"; the reason comes apart from
/// them, as an event on whichever thread serves the client, hence the lock.
pub(super) struct Health {
    address: Arc<Address>,
    last: Mutex<Option<(Instant, Problem)>>,
}

impl Health {
    pub(super) fn new(address: Arc<Address>) -> Arc<Self> {
        Arc::new(Self { address, last: Mutex::default() })
    }

    /// Notes an error event, and answers with what it means for someone waiting.
    pub(super) fn note(&self, error: &KafkaError, reason: &str) -> Option<Problem> {
        let code = error.rdkafka_error_code()?;
        let problem = Problem::event(code, reason, &self.address)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let news = match &*last {
            Some((_, known)) => known.is_config() != problem.is_config(),
            None => true,
        };
        *last = Some((Instant::now(), problem.clone()));
        drop(last);
        if news {
            tracing::warn!(broker = %self.address, reason, "trouble with the connection to the brokers; trying on");
        }
        Some(problem)
    }

    /// The brokers have answered.
    pub(super) fn clear(&self) {
        if self.last.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!(broker = %self.address, "the brokers answer again");
        }
    }

    /// Notes what was found out apart from the library's events.
    pub(super) fn found(&self, problem: Problem) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), problem));
    }

    /// What the failed call should have said.
    pub(super) fn explain(&self, problem: Problem) -> Problem {
        let vague = matches!(problem, Problem::Late | Problem::Outage(_));
        match &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((when, reason)) if vague && when.elapsed() < FRESH => reason.clone(),
            _ => problem,
        }
    }

    /// What went wrong with a request about `subject`.
    pub(super) fn failure(&self, code: RDKafkaErrorCode, subject: &str) -> Problem {
        self.explain(Problem::of(code, subject, &self.address))
    }
}

/// The context of a client of which nothing but its health is of interest.
pub(super) struct Watched(pub(super) Arc<Health>);

impl ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Watched {}

/// The library's own lines are details: what matters to an operator comes as an error of a call.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    tracing::debug!(target: LIBRARY, ?level, facility, "{text}");
}
