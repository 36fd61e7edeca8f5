//! The testing kit, used as those do who test their handlers.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod attempt;
#[cfg(feature = "webhooks")]
#[path = "../support/receiver.rs"]
mod receiver;
mod system;
#[cfg(feature = "webhooks")]
mod webhooks;
