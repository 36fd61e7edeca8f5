//! SQS through the conformance suite, on moto: a second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/sqs.rs"]
mod support;

use support::Sqs;

support::broker_conformance_in_small!(Sqs::new("WINDLASS_TEST_MOTO_URL"));

mod fifo {
    use super::support::{Sqs, broker_conformance_in_small};

    broker_conformance_in_small!(Sqs::new("WINDLASS_TEST_MOTO_URL").fifo());
}
