//! What every store must do, as tests. [`store_conformance!`](crate::store_conformance) makes one test of each
//! function here, against the real thing that a [`Fixture`] connects to.
//!
//! Each test has a database or schema of its own, which is removed afterwards, also when the test fails. Time passes
//! by spans of zero: a lease of zero has run out at once, a retry after zero is due at once. Tests of longer spans have a
//! [virtual clock](crate::VirtualClock).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]
#![allow(clippy::missing_panics_doc, reason = "that is how tests fail")]

mod accept;
mod cancel;
mod claim;
mod dead;
mod find;
mod finish;
mod gates;
mod gates_model;
mod hostile;
mod idempotency;
mod keys;
mod leader;
mod life;
mod model;
mod notes;
mod outbox;
mod queues;
mod quotas;
mod retention;
mod schedule;
mod schedules;
mod set_back;
mod standing;
mod support;
mod table;
mod tenants;
mod time;
mod unique;
mod webhooks;
mod workers;
mod workflows;

use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::Store;

use crate::StoreOptions;

pub use accept::*;
pub use cancel::*;
pub use claim::*;
pub use dead::*;
pub use find::*;
pub use finish::*;
pub use gates::*;
pub use gates_model::*;
pub use hostile::*;
pub use idempotency::*;
pub use keys::*;
pub use leader::*;
pub use life::*;
pub use model::*;
pub use notes::*;
pub use outbox::*;
pub use queues::*;
pub use quotas::*;
pub use retention::*;
pub use schedule::*;
pub use schedules::*;
pub use set_back::*;
pub use standing::*;
pub use support::{Case, Timed};
pub use table::*;
pub use tenants::*;
pub use time::*;
pub use unique::*;
pub use webhooks::*;
pub use workers::*;
pub use workflows::*;

/// How the suite gets at the store under test. Each value stands for a database or schema of its own, empty at first.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// A client, as another process would have, with these options as far as they are not about the place. Nothing has
    /// been migrated before the first.
    async fn client(&self, options: StoreOptions) -> Arc<dyn Store>;

    /// Removes everything.
    async fn remove(&self);
}

/// Makes one test of each behaviour, run against the [`Fixture`] that the expression gives.
///
/// ```ignore
/// windlass_store::store_conformance!(MyFixture::new());
/// ```
#[macro_export]
macro_rules! store_conformance {
    ($fixture:expr) => {
        $crate::store_conformance! { @each $fixture;
            a_claim_given_up_strands_nothing
            a_claim_may_come_late
            a_claim_takes_but_once
            a_conflict_may_be_refused
            a_deleted_job_holds_no_place
            a_draining_queue_takes_no_jobs
            a_fair_queue_gives_each_tenant_its_turn
            a_finish_given_up_may_be_repeated
            a_flood_of_one_key_delays_no_other
            a_group_is_answered_job_by_job
            a_group_with_a_key_twice
            a_key_is_held_while_unfinished
            a_key_twice_in_a_group
            a_known_history_follows_the_model
            a_known_history_keeps_the_gates
            a_limit_is_for_each_key
            a_limit_on_a_busy_queue_holds
            a_lost_worker_settles_cancellations
            a_paused_queue_starts_nothing
            a_place_is_for_a_job
            a_queue_is_limited_as_a_whole
            a_quota_holds_against_many
            a_quota_is_for_one_tenant
            a_quota_is_set_and_removed
            a_refusal_takes_nothing
            a_repeated_insert_is_not_refused
            a_request_ends_with_its_job
            a_rescue_takes_what_is_still_held
            a_retry_counts_again
            a_search_is_bounded
            a_turn_is_kept_at_other_gates
            a_unique_insert_given_up_is_all_or_nothing
            a_unique_insert_may_be_repeated
            a_workflow_is_counted_job_by_job
            an_expired_key_is_free
            an_id_twice_in_a_group
            an_insert_given_up_is_all_or_nothing
            an_ordering_key_is_kept
            any_history_follows_the_model
            any_history_keeps_the_gates
            cancellations_race_claims
            changed_limits_hold_at_once
            checkpoints_are_fenced
            checkpoints_race_the_rescue
            claim_may_be_repeated
            claim_of_nothing
            claim_takes_what_is_queued
            claims_and_outcomes_cross
            claims_are_closed
            claims_race_the_rescue
            clients_see_each_other
            clients_share_one_order
            concurrent_definitions
            concurrent_inserts
            concurrent_promotions
            concurrent_registrations
            concurrent_requests_make_one_job
            concurrent_rescues
            concurrent_unique_inserts_make_one_job
            confirmations_may_be_late
            crossing_gates_do_not_deadlock
            crossing_groups_do_not_deadlock
            crossing_unique_groups_do_not_deadlock
            deleted_jobs_are_gone
            deliveries_count_for_no_quota
            due_decides_between_queued_and_scheduled
            each_job_is_claimed_once
            editions_are_of_a_system_and_its_revision
            elections_have_one_winner
            errors_are_kept_in_order
            every_outcome
            every_way_out_makes_room
            extreme_numbers
            extreme_times
            failures_can_be_passed
            fields_make_a_key
            get_answers_what_exists
            goodbye_frees_at_once
            groups_become_due_in_time
            groups_of_any_size
            groups_without_queued_jobs_vanish
            housekeeping_may_be_repeated
            ids_of_any_kind
            insert_may_be_repeated
            insert_then_claim
            insert_then_get
            jobs_are_found_by_filter
            json_is_kept_byte_for_byte
            keys_are_bytes
            keys_of_jobs_that_wait
            large_groups
            large_results_make_short_pages
            large_texts
            late_notes_of_older_attempts_are_dropped
            leadership_passes_on
            limits_hold_whatever_happens
            lists_keep_their_order
            many_are_called_off_at_once
            many_unknown_ids
            messages_announce_the_next_attempt
            messages_say_what_a_worker_needs
            migrating_again_changes_nothing
            notes_go_with_their_job
            nul_spoils_nothing
            one_leads
            only_lost_workers_count_as_crashes
            operators_move_the_revision
            other_request_is_refused
            outcomes_after_a_cancellation_request
            outcomes_are_fenced
            outcomes_race_the_rescue
            poison_jobs_are_quarantined
            promotion_keeps_to_time_and_limit
            relays_share_the_groups
            replacements_race_claims
            retried_jobs_begin_anew
            retries_race_everything
            retries_race_with_places
            running_jobs_are_asked_to_stop
            same_request_same_job
            scheduled_jobs_are_not_announced
            schemas_are_kept_by_version
            silent_workers_lose_their_jobs
            standing_is_a_part_of_the_record
            tenants_have_keys_of_their_own
            tenants_have_turns_of_their_own
            terminal_states_stay
            texts_are_data
            the_fence_only_grows
            the_fleet_is_seen
            the_limit_holds
            the_newest_word_on_a_kind_counts
            the_rescued_are_fenced_off
            the_same_call_again
            the_state_table_decides
            unique_and_idempotency_keys_together
            unknown_limits_are_refused
            unknown_workers_claim_nothing
            what_is_over_stays
            what_waits_is_called_off
            what_was_called_off_is_not_promoted
            workers_are_known_while_they_live
        }
        $crate::store_conformance! { @each $fixture;
            a_chain_runs_in_order
            a_diamond
            a_follow_up_given_up_may_be_repeated
            a_parent_may_take_several_attempts
            a_refused_job_refuses_its_workflow
            a_retry_may_overtake_the_follow_up
            a_workflow_given_up_is_all_or_nothing
            an_end_counts_once
            any_workflow_ends_right
            cancellations_go_through_the_graph
            children_pass_their_gates
            cancellations_race_completions
            failures_go_through_the_graph
            fan_out_and_fan_in
            follow_ups_race_each_other
            jobs_add_to_their_workflow
            jobs_of_workflows_are_listed
            large_batches_end
            needs_finished_takes_any_end
            quarantined_parents_count_as_dead
            retried_workflows_pass_their_gates
            the_last_job_adds_more
            workflows_are_called_off
            workflows_are_retried_from_the_failed_part
            workflows_have_keys
            workflows_have_tenants
        }
        $crate::store_conformance! { @each $fixture;
            a_draining_queue_takes_no_deliveries
            a_tenant_hears_of_its_own_jobs
            a_webhook_hears_of_what_it_names
            deliveries_are_noted_once
            deliveries_race_each_other
            every_way_out_is_told
            retried_jobs_are_told_again
            webhooks_are_changed
            webhooks_are_few
            without_webhooks_nothing_is_noted
        }
        $crate::store_conformance! { @timed $fixture;
            a_key_is_held_for_a_period
            a_leap_costs_leases_and_records_nothing_twice
            a_paused_queue_is_not_announced
            a_rate_that_was_slow_is_forgotten
            a_replacement_may_move_the_time
            a_tick_makes_its_job
            api_keys_are_good_until_their_end
            api_keys_are_rotated
            children_keep_to_their_times
            concurrent_schedulers_share_the_ticks
            dead_jobs_are_listed_newest_first
            deadlines_end_jobs
            debounced_jobs_start_after_the_last
            definitions_are_replaced
            each_tick_fires_once
            every_end_gives_the_place_back
            expiry_goes_in_batches
            expiry_races_claims
            housekeeping_leaves_keys_in_use
            jitter_delays_the_start
            jobs_expire_in_every_state
            jobs_that_expired_are_not_claimed
            leadership_passes_on_after_a_set_back
            log_lines_are_read_in_order
            missed_ticks_follow_the_policy
            progress_is_shown_and_stays
            rates_follow_the_clock
            rates_go_on_after_a_set_back
            results_are_forgotten_in_time
            scheduled_jobs_are_due_in_time
            scheduled_jobs_come_to_their_gates_when_due
            schedules_follow_the_clocks_of_their_zone
            secrets_of_webhooks_are_rotated
            silence_counts_from_the_set_back
            the_log_of_deliveries_is_kept
            the_outbox_goes_on_after_a_set_back
            ticks_fire_once_on_any_clock
            times_of_jobs_hold_on_any_clock
            unique_templates_do_not_overlap
            what_has_been_kept_for_long_enough_goes
            what_has_expired_can_be_retried
        }
    };
    (@timed $fixture:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fixture = $fixture;
                $crate::conformance::Timed::run(&fixture, $crate::conformance::$name).await;
            }
        )*
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
