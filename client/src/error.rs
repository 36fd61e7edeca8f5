use std::sync::Arc;

use crate::EnvelopeError;
use windlass_core::{BrokerError, InvalidName, StoreError};

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
    /// The payload type has no valid JSON for this value.
    #[error("the payload cannot be written as JSON: {0}")]
    Payload(#[source] serde_json::Error),
    /// The payload type names a kind or queue that breaks the naming rule.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A payload or result cannot be sealed for the store, or what the store has cannot be opened.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
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
            Self::Overloaded => true,
            Self::Closed
            | Self::KeyReused
            | Self::Payload(_)
            | Self::Name(_)
            | Self::Envelope(_)
            | Self::NeedsPostgres { .. } => false,
        }
    }
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
