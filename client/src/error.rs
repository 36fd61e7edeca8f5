use std::sync::Arc;

use windlass_core::{
    BrokerError, GraphError, InvalidKey, InvalidName, InvalidUnique, JobId, LimitKey, QueueName, StoreError,
    Tenant,
};

use crate::{EnvelopeError, NoRandomness, ObjectsError, SharedUrlError};

/// Why an operation of the client failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The store failed; perhaps for a whole group of jobs, which then share the error.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The broker failed where it was needed, which accepting a job never does.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// More jobs wait to be accepted than this process allows. Nothing was stored.
    #[error("too many jobs are waiting to be accepted; try again shortly")]
    Overloaded,
    /// The client has been closed. Nothing was stored.
    #[error("the client has been closed")]
    Closed,
    /// The idempotency key was used before for another job. Nothing was stored.
    #[error("the idempotency key was used before for a different job")]
    KeyReused,
    /// Another job has its unique key, and the rule is to refuse. Nothing was stored.
    #[error("job {0} has the same unique key")]
    NotUnique(JobId),
    /// The payload type has no valid JSON for this value.
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(#[source] serde_json::Error),
    /// The payload type names a kind or queue that breaks the naming rule.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The jobs of a workflow do not make a sound graph. Nothing was stored.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A limit, ordering key or tenant breaks the rule for keys.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// What makes the job unique breaks the rules.
    #[error("the job cannot be unique: {0}")]
    Unique(#[from] InvalidUnique),
    /// The job names a limit that nobody has defined. Nothing was stored.
    #[error("there is no limit named {:?}; define it, in a worker or over HTTP, or correct the name", .0.name())]
    UnknownLimit(LimitKey),
    /// The job names more limits than a job may have. Nothing was stored.
    #[error("a job may name at most {} limits", windlass_core::Gating::MAX_LIMITS)]
    TooManyLimits,
    /// The queue is being drained. Nothing was stored.
    #[error("the queue {0} is being drained and takes no new jobs; resume it first")]
    QueueDraining(QueueName),
    /// The tenant has as many unfinished jobs as its quota allows. Nothing was stored.
    #[error("the tenant {0} has as many unfinished jobs as its quota allows; try again once some are over")]
    OverQuota(Tenant),
    /// A payload or result cannot be sealed for the store, or what the store has cannot be opened.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The system has no random numbers, of which secrets are made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// What is to be shared in a Redis cannot be.
    #[error(transparent)]
    Shared(#[from] SharedUrlError),
    /// The operation needs another store.
    #[error("{what} needs the Postgres store; set store_url to a postgres:// URL")]
    NeedsPostgres {
        /// What was asked for.
        what: &'static str,
    },
}

impl ClientError {
    /// Whether trying again later can help without anyone's doing.
    #[must_use]
    pub fn retryable(&self) -> bool {
        match self {
            Self::Store(e) => e.retryable(),
            Self::Broker(e) => e.retryable(),
            Self::Overloaded | Self::OverQuota(_) => true,
            Self::Envelope(error) => matches!(error, EnvelopeError::Objects(ObjectsError::Unavailable(_))),
            Self::Closed
            | Self::KeyReused
            | Self::NotUnique(_)
            | Self::Payload(_)
            | Self::Name(_)
            | Self::Graph(_)
            | Self::Key(_)
            | Self::Unique(_)
            | Self::UnknownLimit(_)
            | Self::TooManyLimits
            | Self::QueueDraining(_)
            | Self::Randomness(_)
            | Self::Shared(_)
            | Self::NeedsPostgres { .. } => false,
        }
    }
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
