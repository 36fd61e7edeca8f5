use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Gating, JobId, Kind, Lane, Message, Priority, Progress, QueueName, State, Tenant, Timestamp, Unique,
};

/// A job to be accepted by the store.
///
/// The id is chosen by the caller, so that an insert whose answer was lost can be repeated without making a
/// second job. What few jobs have is boxed, since groups of jobs are moved about.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The job's id.
    pub id: JobId,
    /// Which handler it is for.
    pub kind: Kind,
    /// Which queue it waits in.
    pub queue: QueueName,
    /// How urgent it is there.
    pub priority: Priority,
    /// What the handler gets, as JSON text kept byte for byte.
    pub payload: Box<RawValue>,
    /// How many attempts may be started; at least 1.
    pub max_attempts: u32,
    /// How long one attempt may run; `None` leaves it to the handler's own setting.
    pub timeout: Option<Duration>,
    /// Not to be run before; `None` or a past instant means at once.
    pub run_at: Option<Timestamp>,
    /// Not to be started after: then it is `dead`. A job of which an attempt has started is not affected; attempts that
    /// were given back or snoozed do not count.
    pub expires_at: Option<Timestamp>,
    /// To be over by then: no attempt starts or goes on after it, and the job is `dead`.
    pub deadline: Option<Timestamp>,
    /// Which form the payload has; the handler's payload type knows how to read older ones.
    pub version: u16,
    /// What it may have to wait for when it is due.
    pub gating: Gating,
    /// Free names and values, for the user's filters.
    pub labels: BTreeMap<String, String>,
    /// The trace that the enqueue was part of.
    pub trace: Option<TraceParent>,
    /// Makes the enqueue repeatable (P3).
    pub idempotency: Option<Box<Idempotency>>,
    /// Makes it the only one of its key.
    pub unique: Option<Box<Unique>>,
    /// Whether it waits for parents in its workflow; see [`NewWorkflow`](crate::NewWorkflow).
    pub has_parents: bool,
    /// Whether other jobs of its workflow wait for it.
    pub has_children: bool,
}

impl NewJob {
    /// A job with a new id, in the default queue at normal priority, with 20 attempts, to be run at once.
    #[must_use]
    pub fn new(kind: Kind, payload: Box<RawValue>) -> Self {
        Self {
            id: JobId::new(),
            kind,
            queue: QueueName::default(),
            priority: Priority::default(),
            payload,
            max_attempts: KindInfo::DEFAULT_MAX_ATTEMPTS,
            timeout: None,
            run_at: None,
            expires_at: None,
            deadline: None,
            version: 1,
            gating: Gating::default(),
            labels: BTreeMap::new(),
            trace: None,
            idempotency: None,
            unique: None,
            has_parents: false,
            has_children: false,
        }
    }

    /// Whether it has to pass gates when it is due. Its queue may want that as well.
    #[must_use]
    pub const fn is_gated(&self) -> bool {
        !self.gating.limits.is_empty() || self.gating.ordering_key.is_some()
    }

    /// Whether its end, or a pause between attempts, is the business of other jobs: then the store notes a
    /// [follow-up](crate::Store::follow_up).
    #[must_use]
    pub const fn is_followed(&self) -> bool {
        self.has_children || self.is_gated()
    }

    /// Whether it has nothing that only some jobs have, so that a store may write less.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = self.expires_at.is_none() && self.deadline.is_none() && self.version == 1;
        plain && !self.has_parents && !self.has_children && self.gating == Gating::default()
    }

    /// What it is right after the store has accepted it at `now`, unless its queue is limited.
    #[must_use]
    pub fn first_state(&self, now: Timestamp) -> State {
        match self.run_at {
            Some(run_at) if run_at > now => State::Scheduled,
            _ if self.has_parents || self.is_gated() => State::Waiting,
            _ => State::Queued,
        }
    }

    /// The message that announces the job's first attempt.
    #[must_use]
    pub fn message(&self) -> Message {
        Message {
            job_id: self.id,
            attempt: 1,
            lane: Lane { queue: self.queue.clone(), priority: self.priority },
            kind: self.kind.clone(),
            trace: self.trace.clone(),
            ordering_key: self.gating.ordering_key.clone(),
        }
    }
}

/// What makes an enqueue repeatable: the same key with the same fingerprint gives the same job (P3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key as the store keeps it; see [`new`](Self::new).
    pub key: String,
    /// A hash of everything in the request that decides what the job is.
    pub fingerprint: [u8; 32],
    /// How long the key is remembered, by the store's clock.
    pub ttl: Duration,
}

impl Idempotency {
    /// From a client's key of 1 to 255 bytes. Each tenant's keys are its own.
    #[must_use]
    pub fn new(tenant: Option<&Tenant>, key: String, fingerprint: [u8; 32], ttl: Duration) -> Self {
        let key = match tenant {
            // A tenant has no control characters, and neither has the beginning of a key that came over HTTP.
            Some(tenant) => format!("\t{tenant}\t{key}"),
            None => key,
        };
        Self { key, fingerprint, ttl }
    }
}

/// A job as the store knows it: the answer to a poll.
///
/// It can be written down for others of the same release; what users see is up to the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job's id.
    pub id: JobId,
    /// Which handler it is for.
    pub kind: Kind,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority in the queue.
    pub priority: Priority,
    /// Where it stands.
    pub state: State,
    /// Attempts started so far; those given back unstarted do not count.
    pub attempt: u32,
    /// How many attempts may be started.
    pub max_attempts: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it is due, while it waits for its time (`scheduled`, `retrying`).
    pub run_at: Option<Timestamp>,
    /// When the latest attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it reached its terminal state.
    pub finished_at: Option<Timestamp>,
    /// By when an attempt has to have started.
    pub expires_at: Option<Timestamp>,
    /// By when it has to be over.
    pub deadline: Option<Timestamp>,
    /// Which form the payload has.
    pub version: u16,
    /// What the handler returned.
    pub result: Option<Box<RawValue>>,
    /// Until when the result is shown, if it is not kept as long as the job.
    pub result_until: Option<Timestamp>,
    /// What went wrong, oldest first.
    pub errors: Vec<ErrorRecord>,
    /// How far its newest attempt that has said so is, or was.
    pub progress: Option<Progress>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// What it may have to wait for when it is due.
    pub gating: Gating,
    /// A cancellation has been asked for and the running handler has been told, or will be at the next heartbeat.
    pub cancel_requested: bool,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorRecord {
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// When it failed, by the store's clock.
    pub at: Timestamp,
    /// The label of the worker that ran it; empty where none did.
    pub worker: String,
    /// What the handler said, with its chain of causes.
    pub message: String,
}

/// An attempt, as its worker gets it from a claim.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// The job's id.
    pub id: JobId,
    /// The fence: how often the job has been claimed. An outcome is recorded only under the newest number.
    pub fence: u32,
    /// Which attempt this is to the user, counted from 1.
    pub attempt: u32,
    /// How many may be started.
    pub max_attempts: u32,
    /// Which handler it is for.
    pub kind: Kind,
    /// Its queue.
    pub queue: QueueName,
    /// Its priority.
    pub priority: Priority,
    /// What the handler gets.
    pub payload: Box<RawValue>,
    /// How long the attempt may run, where the enqueue said so.
    pub timeout: Option<Duration>,
    /// When the job was accepted.
    pub created_at: Timestamp,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The trace that the enqueue was part of.
    pub trace: Option<TraceParent>,
    /// Which form the payload has.
    pub version: u16,
    /// How long, from the claim, until the job's deadline.
    pub time_left: Option<Duration>,
    /// Whether the attempt's end leaves a [follow-up](crate::Store::follow_up).
    pub followed: bool,
    /// On whose behalf it runs.
    pub tenant: Option<Tenant>,
}

/// What workers tell everyone about a kind. The newest word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// Where its jobs go unless the enqueue says otherwise.
    pub queue: QueueName,
    /// How many attempts they get unless the enqueue says otherwise.
    pub max_attempts: u32,
    /// Which form of the payload is handled; in an answer the newest that a worker has ever handled.
    pub version: u16,
    /// JSON Schemas of payloads, as JSON text, by the version they are for. A worker says that of its own version, if its
    /// payload type has one; an answer has all that were ever said.
    pub schemas: BTreeMap<u16, String>,
}

impl KindInfo {
    /// Attempts a job gets when neither its kind nor its enqueue says a number.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 20;

    /// A kind of which nothing is known: the defaults, and no schema.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            queue: QueueName::default(),
            max_attempts: Self::DEFAULT_MAX_ATTEMPTS,
            version: 1,
            schemas: BTreeMap::new(),
        }
    }
}

/// A W3C trace context (`traceparent`), checked for form.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TraceParent(Box<str>);

impl TraceParent {
    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Accepts `00-<32 hex>-<16 hex>-<2 hex>` in lower case with ids that are not all zero.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let hex = |part: &str, len| {
            part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let id = |part: &str, len| hex(part, len) && part.bytes().any(|b| b != b'0');
        let mut parts = text.split('-');
        let mut next = || parts.next().unwrap_or_default();
        let fits = next() == "00" && id(next(), 32) && id(next(), 16) && hex(next(), 2);
        if fits && parts.next().is_none() { Ok(Self(text.into())) } else { Err(InvalidTraceParent) }
    }
}

/// A `traceparent` that does not follow W3C Trace Context, version 00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid traceparent: expected 00-<32 hex>-<16 hex>-<2 hex>")]
pub struct InvalidTraceParent;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_is_checked() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.parse::<TraceParent>().unwrap().as_str(), good);
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }
}
