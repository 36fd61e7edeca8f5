//! The Windlass model: jobs, their states, retry policies, the message that travels through a broker, and the
//! two seams everything else plugs into, [`Broker`] and [`Store`].
//!
//! This crate does no I/O. Stores live in `windlass-store`, brokers in `windlass-brokers`; users depend on `windlass`.

mod broker;
mod edition;
mod filter;
mod graph;
mod id;
mod job;
mod keys;
mod lane;
mod limit;
mod message;
mod name;
mod notes;
mod operations;
mod outcome;
mod payload;
mod quotas;
mod retry;
mod schedule;
mod standing;
mod state;
mod store;
mod text;
mod timetable;
mod unique;
mod webhook;
mod workflow;

pub use broker::{Broker, BrokerError, Capabilities, Delivery, DeliveryTag, Subscription};
pub use edition::{Edition, SystemId};
pub use filter::JobFilter;
pub use graph::{After, GraphError, Needs, NewWorkflow, Step, WorkflowLimits};
pub use id::{ClaimId, InvalidId, JobId, WebhookId, WorkerId, WorkflowId};
pub use job::{
    ClaimedJob, ErrorRecord, Idempotency, InvalidTraceParent, JobRecord, KindInfo, NewJob, TraceParent,
};
pub use keys::{InvalidKeyId, KeyId, KeyRecord, Keys, LiveKey, NewKey, Scope, Scopes, UnknownScope};
pub use lane::{InvalidPriority, Lane, Priorities, Priority};
pub use limit::{Gating, InvalidKey, Limit, LimitKey, LimitName, OnFailure, OrderingKey, Rate, Tenant};
pub use message::{Message, MessageError};
pub use name::{InvalidName, JobName, Kind, QueueName, ScheduleName, WorkflowName};
pub use notes::{
    JobNotes, LogCursor, LogLevel, LogRecord, NewLine, NewProgress, Note, Progress, UnknownLevel,
};
pub use operations::{
    DeadCursor, DeadFilter, DeadPage, Found, LimitRecord, Operations, QueueRecord, Tally, WorkerRecord,
};
pub use outcome::{Finish, Outcome};
pub use payload::Job;
pub use quotas::{Quota, Quotas};
pub use retry::{RetryFn, RetryPolicy};
pub use schedule::{CronTiming, Due, InvalidSchedule, Missed, Schedule, Timing};
pub use standing::Standing;
pub use state::{Event, State, TRANSITIONS, Transition, UnknownState};
pub use store::{
    CancelOutcome, HeartbeatReply, InsertOutcome, Inserted, NewWorker, OutboxGroup, OutboxId, Rescued, Store,
    StoreError,
};
pub use timetable::{JobTemplate, ScheduleDefinition, ScheduleRecord, Timetable};
pub use unique::{InvalidUnique, KeyHolder, KeyVerdict, OnConflict, Unique};
pub use webhook::{
    DELIVERIES_KEPT, DELIVERY_ATTEMPTS, DELIVERY_DELAYS, DELIVERY_KIND, DELIVERY_QUEUE, DeliveryAttempt,
    DeliveryRecord, MOST_WEBHOOKS, NewWebhook, StoredSecret, UnknownEvent, WebhookEvent, WebhookFilter,
    WebhookRecord, Webhooks,
};
pub use workflow::{Added, WorkflowJob, WorkflowOutcome, WorkflowRecord, WorkflowStatus, Workflows};

/// An instant in UTC, as the store records it (microsecond precision).
pub type Timestamp = chrono::DateTime<chrono::Utc>;

/// A boxed cause, kept behind the typed errors of the two seams.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;
