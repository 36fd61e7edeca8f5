//! The worker on a real SQLite file and the memory broker, a topic per module.
//!
//! Each test has a store and a broker of its own, so kinds and queues are the same everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "tests")]

mod batch;
mod batch_stops;
mod cancellation;
mod delivery;
mod envelope;
mod gates;
mod lease;
mod logs;
mod metrics;
mod middleware;
mod notes;
mod objects;
mod outage;
mod outcomes;
#[cfg(feature = "webhooks")]
#[path = "../support/receiver.rs"]
mod receiver;
mod setup;
mod shutdown;
mod support;
mod time;
#[cfg(feature = "postgres")]
mod transaction;
#[cfg(feature = "webhooks")]
mod webhooks;
mod workflows;
