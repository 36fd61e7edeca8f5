//! Workers: handlers, the run loop, leases, and the maintenance that keeps every promise when something dies.
//!
//! Users get this crate through `windlass`.

mod batch;
mod completer;
mod context;
mod error;
mod executor;
mod gate;
mod gathering;
mod handler;
mod handling;
mod heartbeat;
mod intake;
mod maintenance;
mod meters;
pub mod middleware;
mod notes;
mod pauses;
mod run;
mod schedule;
mod session;
mod span;
mod strays;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "postgres")]
mod transaction;
#[cfg(feature = "webhooks")]
mod webhooks;
mod worker;
mod workflow;

pub use batch::{Batch, BatchHandler, BatchJob, BatchOptions};
pub use context::{Context, FromContext, State};
pub use error::{Decision, JobError, WorkerError};
pub use handler::{BlockingHandler, Handler};
pub use handling::Handling;
pub use middleware::HandlerLayer;
#[cfg(feature = "postgres")]
pub use transaction::JobTransaction;
#[cfg(feature = "webhooks")]
pub use webhooks::{NoSender, WebhookSender};
pub use windlass_core::LogLevel;
pub use worker::{Worker, WorkerOptions, stop_by_signal};
pub use workflow::Parent;
