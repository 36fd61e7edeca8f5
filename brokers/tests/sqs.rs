//! SQS through the conformance suite, on ElasticMQ, and what only SQS can get wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/sqs.rs"]
mod support;

use support::Sqs;

windlass_brokers::broker_conformance!(Sqs::new("WINDLASS_TEST_SQS_URL"));
