//! Workers: handlers, the run loop, leases, and the maintenance that keeps every promise when something dies.
//!
//! Users get this crate through `windlass`.

mod completer;
mod context;
mod error;
mod executor;
mod handler;
mod heartbeat;
mod intake;
mod maintenance;
mod pauses;
mod session;
#[cfg(feature = "postgres")]
mod transaction;
mod worker;

pub use context::{Context, FromContext, State};
pub use error::{JobError, WorkerError};
pub use handler::{BlockingHandler, Handler};
#[cfg(feature = "postgres")]
pub use transaction::JobTransaction;
pub use worker::{Worker, WorkerOptions};
