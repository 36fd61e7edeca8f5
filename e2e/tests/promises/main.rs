//! The promises, kept on real servers with processes that die.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod every_broker;
mod limits;
mod load_balancer;
mod p1_accepted_is_durable;
mod p2_one_live_attempt;
mod p3_idempotent_enqueue;
mod p5_effects_with_the_outcome;
mod p6_p7_the_broker_is_disposable;
mod replicas;
mod schedules;
mod support;
mod unknown_kinds;
mod workflows;
mod wrong_broker;
