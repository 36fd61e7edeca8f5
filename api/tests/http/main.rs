//! The API over a real SQLite store and the memory broker; where sockets matter, through a real listener.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod any_bytes;
mod auth;
mod batch;
mod browsers;
mod bulk;
mod cancel;
mod cbor;
mod client;
mod coding;
mod connections;
mod dead;
mod enqueue;
mod faults;
mod fleet;
#[cfg(feature = "grpc")]
mod grpc;
mod idempotency;
mod jwt;
mod limits;
mod listing;
mod metrics;
mod notes;
mod objects;
mod openapi;
mod overload;
mod poll;
mod queue_events;
mod quotas;
mod rates;
#[cfg(feature = "redis")]
mod rates_shared;
#[cfg(feature = "redis")]
mod reads_shared;
mod schedules;
mod schemas;
mod sight;
mod smuggling;
mod support;
mod tls;
mod trouble;
mod unique;
mod waiting;
mod webhooks;
mod workflows;
mod wrong_input;
