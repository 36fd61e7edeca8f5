//! The testing kit, used as those do who test their handlers.
#![allow(clippy::unwrap_used, reason = "tests")]

mod attempt;
mod system;
