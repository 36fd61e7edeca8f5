//! Background jobs over any broker: the crate that users depend on.
//!
//! A payload type, its handler, and a worker that runs it:
//!
//! ```no_run
//! use windlass::prelude::*;
//!
//! #[derive(Serialize, Deserialize, Job)]
//! #[job(kind = "greet", queue = "greetings", max_attempts = 8, timeout = "30s")]
//! struct Greet {
//!     name: String,
//! }
//!
//! struct Greeting(String);
//!
//! async fn greet(job: Greet, ctx: Context, greeting: State<Greeting>) -> Result<String, JobError> {
//!     if job.name.is_empty() {
//!         return Err(JobError::discard("nobody to greet"));
//!     }
//!     Ok(format!("{}, {}! (attempt {})", greeting.0, job.name, ctx.attempt()))
//! }
//!
//! #[tokio::main]
//! async fn main() -> windlass::Result<()> {
//!     Worker::from_env().await?.state(Greeting("Hello".into())).handle(greet).run().await
//! }
//! ```
//!
//! Elsewhere, jobs are enqueued over HTTP, or from Rust by [`Client::enqueue`] and, in a Postgres transaction of
//! your own, `Client::enqueue_in`.
//!
//! Cargo features: `sqlite` (default) and `postgres` for stores, which are brokers as well; `rabbitmq`, `kafka` (`kafka-tls`
//! for TLS), `sqs`, `pubsub`, `redis` and `nats` for brokers; `s3` for large payloads in buckets; `schema` for JSON Schemas of
//! payloads that derive `schemars::JsonSchema`; `webhooks` for workers that deliver them; `testing` for tests of handlers and of whole workers; `opentelemetry` for attempts
//! that are part of the trace their job was enqueued in. [`Settings`] lists the configuration.

mod logging;
#[cfg(feature = "metrics")]
mod metrics;
#[doc(hidden)]
pub mod schema;

pub use logging::{LoggingError, init_logging};
#[cfg(feature = "metrics")]
pub use metrics::{Metrics, MetricsError, init_metrics};
/// A payload on its way from an older version to a newer, in `Job::upgrade`.
pub use serde_json::Value as JsonValue;
pub use windlass_client::{
    Accepted, Allowed, ApiAuth, ApiKey, Client, ClientError, ClientOptions, EncryptionKey, Enqueue, Envelope,
    Excess, InvalidRate, JobPage, JobWatch, JwtAlgorithm, LogFormat, Network, Objects, ObjectsError, Origin,
    Outside, ProxyHeader, QueueNews, QueueRetention, QueueWatch, RequestRate, SecretUrl, Settings,
    SettingsError, SharedReads, SharedUrlError, UnknownKinds, WebhookSecret, Workflow,
};
pub use windlass_core::{
    CancelOutcome, DeadCursor, DeadFilter, DeadPage, ErrorRecord, Found, Gating, GraphError, InsertOutcome,
    InvalidKey, InvalidUnique, Job, JobFilter, JobId, JobName, JobRecord, Kind, KindInfo, Limit, LimitKey,
    LimitName, LimitRecord, LogCursor, LogRecord, Missed, NewJob, OnConflict, OnFailure, Operations,
    OrderingKey, Priorities, Priority, Progress, QueueName, QueueRecord, Rate, RetryFn, RetryPolicy,
    Schedule, Source as UpgradeError, Standing, State as JobState, Tenant, Timestamp, TraceParent, Unique,
    WebhookEvent, WebhookFilter, WebhookId, WorkflowId, WorkflowJob, WorkflowLimits, WorkflowName,
    WorkflowRecord, WorkflowStatus,
};
pub use windlass_derive::Job;
#[cfg(feature = "postgres")]
pub use windlass_worker::JobTransaction;
#[cfg(feature = "testing")]
pub use windlass_worker::testing;
pub use windlass_worker::{
    Batch, BatchHandler, BatchJob, BatchOptions, BlockingHandler, Context, Decision, FromContext, Handler,
    HandlerLayer, Handling, JobError, LogLevel, Parent, State, Worker, WorkerError, WorkerOptions,
    middleware, stop_by_signal,
};
#[cfg(feature = "webhooks")]
pub use windlass_worker::{NoSender, WebhookSender};

/// For `#[derive(schemars::JsonSchema)]` on payload types, whose schemas workers then publish.
#[cfg(feature = "schema")]
pub use schemars;

/// What [`Worker::run`] returns; also of use for a `main` that does nothing else.
pub type Result<T, E = WorkerError> = std::result::Result<T, E>;

/// The seams and the drivers behind them, for tools and tests that go below [`Client`] and `Worker`.
pub mod driver {
    pub use windlass_brokers::open as open_broker;
    pub use windlass_client::reach_shared;
    pub use windlass_core::{
        Broker, BrokerError, Capabilities, ClaimId, ClaimedJob, Delivery, DeliveryTag, Finish, KeyId,
        KeyRecord, Keys, Lane, Message, NewKey, NewWorker, Outcome, Scope, Scopes, Store, StoreError,
        Subscription, WorkerId,
    };
    pub use windlass_store::{StoreOptions, VirtualClock, open as open_store};
}

/// Everything a file with handlers needs.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};
    pub use windlass_client::Client;
    pub use windlass_core::{Job, RetryPolicy};
    pub use windlass_derive::Job;
    pub use windlass_worker::{Batch, BatchOptions, Context, Handling, JobError, State, Worker};
}
