//! What every driver must do, as tests. [`broker_conformance!`](crate::broker_conformance) makes one test of each
//! function here, against the real thing that a [`Fixture`] connects to.
//!
//! Each test uses lanes of its own, under a name never used before, and deletes them, also when it fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]
#![allow(clippy::missing_panics_doc, reason = "that is how tests fail")]

mod capacity;
mod counters;
mod delivery;
mod lanes;
mod life;
mod park;
mod publish;
mod server;
mod support;
mod unreadable;

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::{Broker, Lane};

pub use capacity::{
    holds_no_more_than_asked_for, lanes_are_shared_as_declared, several_lanes_share_the_capacity,
};
pub use delivery::{
    acknowledged_is_gone, consumers_join_and_leave, dropping_gives_back, receive_can_be_dropped,
    release_gives_back, stale_tags_are_ignored, urgent_comes_first,
};
pub use lanes::{
    an_urgent_message_overtakes, delete_empties, deleted_under_a_subscription, depth_counts_what_waits,
    lanes_have_their_shares, strict_lanes_wait_for_each_other,
};
pub use life::{close_gives_back, closed_says_so, ping_answers};
pub use park::{
    park_gives_back_what_was_not_handed_out, park_keeps_what_was_handed_out, park_twice_and_resume,
};
pub use publish::{
    empty_batch, large_batch, lone_message_wakes_a_waiting_receive, many_publishers, round_trip,
    several_lanes_in_one_batch, subscribing_creates_the_lane,
};
pub use server::{Order, Server, a_wiped_broker_gets_its_lanes_back, confirmed_messages_survive_a_kill};
pub use support::{Case, distinct, messages, until, within};
pub use unreadable::unreadable_messages_are_set_aside;

/// How the suite gets at the broker under test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A new client of the broker. All clients of all fixtures see the same lanes.
    async fn client(&self) -> Arc<dyn Broker>;

    /// Puts bytes into a lane past the driver. `false` if this broker carries no bytes, so that none could be wrong.
    async fn publish_raw(&self, lane: &Lane, bytes: &[u8]) -> bool;
}

/// Makes one test of each behaviour, run against the [`Fixture`] that the expression gives.
///
/// ```ignore
/// windlass_brokers::broker_conformance!(MyFixture::new());
/// ```
#[macro_export]
macro_rules! broker_conformance {
    ($fixture:expr) => {
        $crate::broker_conformance! { @each $fixture;
            acknowledged_is_gone
            an_urgent_message_overtakes
            close_gives_back
            closed_says_so
            consumers_join_and_leave
            delete_empties
            deleted_under_a_subscription
            depth_counts_what_waits
            dropping_gives_back
            empty_batch
            holds_no_more_than_asked_for
            lanes_are_shared_as_declared
            lanes_have_their_shares
            large_batch
            lone_message_wakes_a_waiting_receive
            many_publishers
            park_gives_back_what_was_not_handed_out
            park_keeps_what_was_handed_out
            park_twice_and_resume
            ping_answers
            receive_can_be_dropped
            release_gives_back
            round_trip
            several_lanes_in_one_batch
            several_lanes_share_the_capacity
            stale_tags_are_ignored
            strict_lanes_wait_for_each_other
            subscribing_creates_the_lane
            unreadable_messages_are_set_aside
            urgent_comes_first
        }
    };
    (@each $fixture:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $fixture;
                $crate::conformance::Case::run(&fixture, $crate::conformance::$name).await;
            }
        )*
    };
}
