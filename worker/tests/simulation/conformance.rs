//! The simulated store through those cases of the conformance suite that are about what it simulates. A simulation on a
//! model that real stores do not follow would prove nothing.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use windlass_core::{Store, StoreError};
use windlass_store::{StoreOptions, VirtualClock, conformance::Fixture};

use crate::{
    store::{Line, SimStore, Work},
    tables::Tables,
};

/// Tables of its own.
#[derive(Debug, Default)]
struct Memory(Arc<Mutex<Tables>>);

/// Straight to them.
#[derive(Debug)]
struct Direct {
    tables: Arc<Mutex<Tables>>,
    clock: Option<VirtualClock>,
}

#[async_trait]
impl Line for Direct {
    async fn carry(&self, _: &(dyn Fn() -> String + Send + Sync), work: Work) -> Result<(), StoreError> {
        let mut tables = self.tables.lock().unwrap();
        // To the microsecond, as stores keep it. Two requests to a real one never fall into the same, while two of these can.
        let later = tables.now + Duration::from_micros(1);
        tables.now =
            self.clock.as_ref().map_or_else(|| VirtualClock::default().now().max(later), VirtualClock::now);
        work(&mut tables, None);
        Ok(())
    }
}

#[async_trait]
impl Fixture for Memory {
    async fn client(&self, options: StoreOptions) -> Arc<dyn Store> {
        Arc::new(SimStore::new(Direct { tables: self.0.clone(), clock: options.clock }))
    }

    async fn remove(&self) {
        // With the fixture.
    }
}

windlass_store::store_conformance! { @each Memory::default();
    a_claim_given_up_strands_nothing
    a_claim_may_come_late
    a_claim_takes_but_once
    a_finish_given_up_may_be_repeated
    a_group_is_answered_job_by_job
    a_known_history_follows_the_model
    a_lost_worker_settles_cancellations
    a_request_ends_with_its_job
    a_rescue_takes_what_is_still_held
    an_id_twice_in_a_group
    an_insert_given_up_is_all_or_nothing
    any_history_follows_the_model
    cancellations_of_many_race_everything
    cancellations_race_claims
    claim_may_be_repeated
    claim_of_nothing
    claim_takes_what_is_queued
    claims_and_outcomes_cross
    claims_are_closed
    claims_race_the_rescue
    clients_see_each_other
    concurrent_inserts
    concurrent_promotions
    concurrent_registrations
    concurrent_rescues
    confirmations_may_be_late
    due_decides_between_queued_and_scheduled
    each_job_is_claimed_once
    elections_have_one_winner
    errors_are_kept_in_order
    every_outcome
    get_answers_what_exists
    goodbye_frees_at_once
    groups_become_due_in_time
    groups_of_any_size
    groups_without_queued_jobs_vanish
    insert_may_be_repeated
    insert_then_claim
    insert_then_get
    json_is_kept_byte_for_byte
    large_groups
    leadership_passes_on
    many_are_called_off_at_once
    messages_announce_the_next_attempt
    messages_say_what_a_worker_needs
    migrating_again_changes_nothing
    one_leads
    only_lost_workers_count_as_crashes
    outcomes_after_a_cancellation_request
    outcomes_are_fenced
    outcomes_race_the_rescue
    poison_jobs_are_quarantined
    promotion_keeps_to_time_and_limit
    relays_share_the_groups
    running_jobs_are_asked_to_stop
    scheduled_jobs_are_not_announced
    schemas_are_kept_by_version
    silent_workers_lose_their_jobs
    terminal_states_stay
    the_fence_only_grows
    the_limit_holds
    the_newest_word_on_a_kind_counts
    the_rescued_are_fenced_off
    the_state_table_decides
    unknown_workers_claim_nothing
    what_is_over_stays
    what_waits_is_called_off
    what_was_called_off_is_not_promoted
    workers_are_known_while_they_live
}

windlass_store::store_conformance! { @timed Memory::default();
    deadlines_end_jobs
    expiry_goes_in_batches
    expiry_races_claims
    jobs_expire_in_every_state
    jobs_that_expired_are_not_claimed
    leadership_passes_on_after_a_set_back
    scheduled_jobs_are_due_in_time
    silence_counts_from_the_set_back
    the_outbox_goes_on_after_a_set_back
}
