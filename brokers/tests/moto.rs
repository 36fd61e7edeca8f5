//! SQS through the conformance suite, on moto: a second opinion.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

#[path = "support/server.rs"]
mod server;
#[path = "support/sqs.rs"]
mod support;

use server::OwnServer;
use support::Sqs;
use windlass_brokers::conformance::{Server, messages, within};
use windlass_core::{BrokerError, Lane, Priorities, Priority};

support::broker_conformance_in_small!(Sqs::new("WINDLASS_TEST_MOTO_URL"));

mod fifo {
    use super::support::{Sqs, broker_conformance_in_small};

    broker_conformance_in_small!(Sqs::new("WINDLASS_TEST_MOTO_URL").fifo());
}

/// Moto that looks at credentials knows none of those that there are on a developer's machine.
#[tokio::test]
async fn unknown_credentials_are_for_the_operator() {
    let server = OwnServer::start("moto", &[("INITIAL_NO_AUTH_ACTION_COUNT", "0")]).await.forgetful();
    let broker = server.client().await;
    let lane = Lane { queue: "nobody".parse().unwrap(), priority: Priority::Normal };
    let publish = within("publish", broker.publish(&messages(&lane, 1))).await.remove(0);
    let subscribe = within("subscribe", broker.subscribe(&[lane], 1, Priorities::Weighted)).await.map(drop);
    for result in [within("ping", broker.ping()).await, publish, subscribe] {
        let error = result.unwrap_err();
        assert!(matches!(error, BrokerError::Config { .. }), "{error:?}");
        assert!(
            error.to_string().contains("broker_url") && error.to_string().contains("credentials"),
            "{error}"
        );
    }
}
