//! SQS through the conformance suite, on moto: a second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/sqs.rs"]
mod support;

use support::Sqs;

windlass_brokers::broker_conformance!(Sqs::new("WINDLASS_TEST_MOTO_URL"));
