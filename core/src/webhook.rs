//! Webhooks: who is told over HTTP that jobs are over, and what became of the telling.

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{JobId, Kind, QueueName, State, StoreError, Tenant, Timestamp, WebhookId};

/// Keeps webhooks and the log of their deliveries. Every method is one transaction, and may be repeated after a
/// [retryable](StoreError::retryable) error.
///
/// A job that a webhook wants to hear of is marked when it is accepted. Its end leaves a follow-up in the same transaction,
/// and [`Store::follow_up`](crate::Store::follow_up) makes that a delivery for each webhook: a job of kind
/// [`DELIVERY_KIND`], once for each end.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Adds a webhook. One whose id exists is left as it is. `false`: its tenant has [`MOST_WEBHOOKS`] already.
    async fn create_webhook(&self, webhook: &NewWebhook) -> Result<bool, StoreError>;

    /// All webhooks, oldest first.
    async fn all_webhooks(&self) -> Result<Vec<WebhookRecord>, StoreError>;

    /// The webhook with this id.
    async fn webhook(&self, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError>;

    /// Changes where a webhook is, and what it hears of; its tenant stays. `false`: there is no such webhook.
    async fn change_webhook(
        &self,
        id: WebhookId,
        url: &str,
        filter: &WebhookFilter,
    ) -> Result<bool, StoreError>;

    /// Switches a webhook on or off. `false`: there is no such webhook.
    async fn enable_webhook(&self, id: WebhookId, enabled: bool) -> Result<bool, StoreError>;

    /// Gives a webhook another secret; the one before it signs as well for `grace` more, and no older one does. `false`:
    /// there is no such webhook.
    async fn rotate_webhook(
        &self,
        id: WebhookId,
        secret: &StoredSecret,
        grace: Duration,
    ) -> Result<bool, StoreError>;

    /// Removes a webhook. `false`: there is no such webhook.
    async fn delete_webhook(&self, id: WebhookId) -> Result<bool, StoreError>;

    /// Makes a delivery with this id that is about no job. `false`: there is no such webhook.
    async fn test_webhook(&self, id: WebhookId, delivery: JobId) -> Result<bool, StoreError>;

    /// The delivery with this id, which is that of the job that makes it.
    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError>;

    /// Up to `limit` deliveries of a webhook with ids below `before`, newest first.
    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError>;

    /// Notes what an attempt at a delivery came to.
    async fn note_delivery(&self, id: JobId, attempt: &DeliveryAttempt) -> Result<(), StoreError>;
}

/// The kind of the jobs that make deliveries.
pub const DELIVERY_KIND: &str = "windlass.webhook";
/// The queue they wait in.
pub const DELIVERY_QUEUE: &str = "windlass.webhooks";
/// How many attempts a delivery gets: one at once, and one after each of [`DELIVERY_DELAYS`].
pub const DELIVERY_ATTEMPTS: u32 = 10;
/// How long a failed delivery waits before its next attempt.
pub const DELIVERY_DELAYS: [Duration; DELIVERY_ATTEMPTS as usize - 1] = {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    [
        Duration::from_secs(5),
        Duration::from_secs(5 * MINUTE),
        Duration::from_secs(30 * MINUTE),
        Duration::from_secs(2 * HOUR),
        Duration::from_secs(5 * HOUR),
        Duration::from_secs(10 * HOUR),
        Duration::from_secs(14 * HOUR),
        Duration::from_secs(20 * HOUR),
        Duration::from_secs(24 * HOUR),
    ]
};
/// How long deliveries stay in the log.
pub const DELIVERIES_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// The most webhooks of one tenant, or of none: every end of a job is looked at for each.
pub const MOST_WEBHOOKS: usize = 50;

/// A webhook to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Its id, chosen by the caller, so that the call may be repeated.
    pub id: WebhookId,
    /// For whom, if not for everyone.
    pub tenant: Option<Tenant>,
    /// Where it is told.
    pub url: String,
    /// What it hears of.
    pub filter: WebhookFilter,
    /// Whether it hears of anything yet.
    pub enabled: bool,
    /// What its deliveries are signed with.
    pub secret: StoredSecret,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// Its id.
    pub id: WebhookId,
    /// For whom, if not for everyone.
    pub tenant: Option<Tenant>,
    /// Where it is told.
    pub url: String,
    /// What it hears of.
    pub filter: WebhookFilter,
    /// Whether it hears of anything now.
    pub enabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// What its deliveries are signed with: the newest first, then the one before it while that is good.
    pub secrets: Vec<StoredSecret>,
    /// Until when the secret before the newest one signs as well, if it does.
    pub old_until: Option<Timestamp>,
}

/// What a webhook hears of, among its tenant's jobs. The default is the end of every job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookFilter {
    /// The events; none means all.
    pub events: Vec<WebhookEvent>,
    /// The kinds of jobs; none means all.
    pub kinds: Vec<Kind>,
    /// The queues of jobs; none means all.
    pub queues: Vec<QueueName>,
}

impl WebhookFilter {
    /// The most kinds, and the most queues, that one may name.
    pub const MOST_NAMES: usize = 100;

    /// Whether jobs of this kind in this queue may be told.
    #[must_use]
    pub fn hears_of(&self, kind: &str, queue: &str) -> bool {
        // A delivery's own end would make another delivery.
        kind != DELIVERY_KIND
            && (self.kinds.is_empty() || self.kinds.iter().any(|other| other.as_str() == kind))
            && (self.queues.is_empty() || self.queues.iter().any(|other| other.as_str() == queue))
    }

    /// Whether this event is told.
    #[must_use]
    pub fn wants(&self, event: WebhookEvent) -> bool {
        self.events.is_empty() || self.events.contains(&event)
    }
}

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum WebhookEvent {
    /// A job has succeeded.
    #[serde(rename = "job.succeeded")]
    Succeeded,
    /// A job is dead.
    #[serde(rename = "job.dead")]
    Dead,
    /// A job has been cancelled.
    #[serde(rename = "job.cancelled")]
    Cancelled,
    /// Someone tries the webhook.
    #[serde(rename = "webhook.test")]
    Test,
}

impl WebhookEvent {
    /// Those about jobs, which a webhook may choose from.
    pub const OF_JOBS: [Self; 3] = [Self::Succeeded, Self::Dead, Self::Cancelled];

    /// The event that a job in this state is over; `None` while it is not.
    #[must_use]
    pub const fn of(state: State) -> Option<Self> {
        match state {
            State::Succeeded => Some(Self::Succeeded),
            State::Dead => Some(Self::Dead),
            State::Cancelled => Some(Self::Cancelled),
            _ => None,
        }
    }

    /// The state in which a job then is, if it is about one.
    #[must_use]
    pub const fn state(self) -> Option<State> {
        match self {
            Self::Succeeded => Some(State::Succeeded),
            Self::Dead => Some(State::Dead),
            Self::Cancelled => Some(State::Cancelled),
            Self::Test => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "job.succeeded",
            Self::Dead => "job.dead",
            Self::Cancelled => "job.cancelled",
            Self::Test => "webhook.test",
        }
    }
}

impl fmt::Display for WebhookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WebhookEvent {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        let all = Self::OF_JOBS.into_iter().chain([Self::Test]);
        all.into_iter().find(|event| event.as_str() == text).ok_or_else(|| UnknownEvent(text.to_owned()))
    }
}

/// A text that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no event; use job.succeeded, job.dead or job.cancelled")]
pub struct UnknownEvent(String);

/// A secret as the store keeps it, which may be encrypted: JSON text. It never shows in `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret(Box<str>);

impl StoredSecret {
    /// Of this text.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text, for the store and for whoever signs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A delivery, and what its attempts have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Its id, which is that of the job that makes it.
    pub id: JobId,
    /// Whom it is for.
    pub webhook: WebhookId,
    /// What it tells.
    pub event: WebhookEvent,
    /// The job it is about; `None` for a test.
    pub job: Option<JobId>,
    /// When that job was over, or the test was asked for.
    pub at: Timestamp,
    /// What the newest attempt came to, if there has been one.
    pub last: Option<DeliveryAttempt>,
    /// When that was, by the store's clock.
    pub attempted_at: Option<Timestamp>,
    /// Where the job that makes it stands; `None` when that is no longer kept.
    pub state: Option<State>,
    /// When that job is due again, while it waits for its next attempt.
    pub next_at: Option<Timestamp>,
}

/// What an attempt at a delivery came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// Which attempt it was, counted from 1.
    pub attempt: u32,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// Why that was no delivery; `None` if it was one.
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_hear_what_they_name() {
        let all = WebhookFilter::default();
        assert!(all.hears_of("email.send", "mail") && all.wants(WebhookEvent::Dead));
        assert!(!all.hears_of(DELIVERY_KIND, DELIVERY_QUEUE), "or it would never end");
        let some = WebhookFilter {
            events: vec![WebhookEvent::Dead],
            kinds: vec!["email.send".parse().unwrap()],
            queues: vec!["mail".parse().unwrap(), "bulk".parse().unwrap()],
        };
        assert!(some.hears_of("email.send", "bulk") && some.wants(WebhookEvent::Dead));
        assert!(!some.hears_of("email.send", "default"));
        assert!(!some.hears_of("email", "bulk"));
        assert!(!some.wants(WebhookEvent::Succeeded));
    }

    #[test]
    fn events_are_read_as_they_are_written() {
        for event in WebhookEvent::OF_JOBS.into_iter().chain([WebhookEvent::Test]) {
            assert_eq!(event.as_str().parse(), Ok(event));
            assert_eq!(serde_json::to_value(event).unwrap(), event.as_str());
        }
        assert!("job.started".parse::<WebhookEvent>().unwrap_err().to_string().contains("job.started"));
        for state in State::ALL {
            assert_eq!(WebhookEvent::of(state).is_some(), state.is_terminal());
            assert_eq!(WebhookEvent::of(state).and_then(WebhookEvent::state).unwrap_or(state), state);
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", StoredSecret::new("whsec_hunter2")), "***");
    }

    #[test]
    fn delays_fit_the_attempts() {
        let all: Duration = DELIVERY_DELAYS.iter().sum();
        assert!(all < DELIVERIES_KEPT, "a delivery may outlast its log");
        let delays = DELIVERY_DELAYS;
        assert!(delays.is_sorted());
    }
}
