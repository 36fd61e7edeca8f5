#![doc = include_str!("../README.md")]

mod logging;

pub use logging::{LoggingError, init_logging};
pub use windlass_client::{
    Accepted, Client, ClientError, ClientOptions, Enqueue, LogFormat, SecretUrl, Settings, SettingsError,
    UnknownKinds,
};
pub use windlass_core::{
    CancelOutcome, ErrorRecord, InsertOutcome, Job, JobId, JobRecord, Kind, KindInfo, NewJob, Priority, QueueName,
    RetryPolicy, State as JobState, Timestamp, TraceParent,
};
pub use windlass_derive::Job;
#[cfg(feature = "postgres")]
pub use windlass_worker::JobTransaction;
pub use windlass_worker::{
    BlockingHandler, Context, FromContext, Handler, JobError, State, Worker, WorkerError, WorkerOptions,
};

/// What [`Worker::run`] returns; also of use for a `main` that does nothing else.
pub type Result<T, E = WorkerError> = std::result::Result<T, E>;

/// The seams and the drivers behind them, for tools and tests that go below [`Client`] and `Worker`.
pub mod driver {
    pub use windlass_brokers::open as open_broker;
    pub use windlass_core::{
        Broker, BrokerError, Capabilities, ClaimId, ClaimedJob, Delivery, DeliveryTag, Finish, Lane, Message,
        NewWorker, Outcome, Store, StoreError, Subscription, WorkerId,
    };
    pub use windlass_store::{StoreOptions, open as open_store};
}

/// Everything a file with handlers needs.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};
    pub use windlass_client::Client;
    pub use windlass_core::Job;
    pub use windlass_derive::Job;
    pub use windlass_worker::{Context, JobError, State, Worker};
}
