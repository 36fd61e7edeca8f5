//! Kafka killed, wiped and restarted under a running process, each time a server of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/server.rs"]
mod server;

use server::OwnServer;

windlass_brokers::broker_outage_conformance!(OwnServer::start("kafka", &[]).await);
