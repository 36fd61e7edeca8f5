//! The Windlass model: jobs, their states, retry policies, the message that travels through a broker, and the
//! two seams everything else plugs into, [`Broker`] and [`Store`].
//!
//! This crate does no I/O. Stores live in `windlass-store`, brokers in `windlass-brokers`; users depend on `windlass`.

mod broker;
mod id;
mod job;
mod lane;
mod limit;
mod message;
mod name;
mod operations;
mod outcome;
mod payload;
mod retry;
mod state;
mod store;

pub use broker::{Broker, BrokerError, Capabilities, Delivery, DeliveryTag, Subscription};
pub use id::{ClaimId, InvalidId, JobId, WorkerId};
pub use job::{
    ClaimedJob, ErrorRecord, Idempotency, InvalidTraceParent, JobRecord, KindInfo, NewJob, TraceParent,
};
pub use lane::{InvalidPriority, Lane, Priority};
pub use limit::{Gating, InvalidKey, Limit, LimitKey, LimitName, OnFailure, OrderingKey, Rate, Tenant};
pub use message::{Message, MessageError};
pub use name::{InvalidName, Kind, QueueName};
pub use operations::{LimitRecord, Operations, QueueRecord};
pub use outcome::{Finish, Outcome};
pub use payload::Job;
pub use retry::RetryPolicy;
pub use state::{Event, State, TRANSITIONS, Transition, UnknownState};
pub use store::{
    CancelOutcome, HeartbeatReply, InsertOutcome, Inserted, NewWorker, OutboxGroup, OutboxId, Rescued, Store,
    StoreError,
};

/// An instant in UTC, as the store records it (microsecond precision).
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// A boxed cause, kept behind the typed errors of the two seams.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;
