use std::time::Duration;

use proptest::prelude::*;
use serde_json::value::RawValue;
use windlass_core::{OnConflict, State};

use super::*;

/// What a group wants: for each job a key and a rule.
fn group() -> impl Strategy<Value = Vec<(u8, OnConflict)>> {
    let rules = [OnConflict::Existing, OnConflict::Replace, OnConflict::ReplaceAll, OnConflict::Refuse];
    prop::collection::vec((0u8..3, prop::sample::select(rules.to_vec())), 1..12)
}

fn job(key: u8, on: OnConflict, payload: usize) -> NewJob {
    let payload = RawValue::from_string(payload.to_string()).unwrap();
    let mut job = NewJob::new("test.kind".parse().unwrap(), payload);
    job.unique = Some(Box::new(Unique::by_key(key.to_string()).unwrap().on_conflict(on)));
    job
}

proptest! {
    /// A group is answered as if its jobs came one by one, each in a group of its own, to a store that knows one job per key.
    #[test]
    fn a_group_is_as_good_as_its_jobs_one_by_one(
        wanted in group(), held in prop::collection::vec(prop::option::of(any::<bool>()), 3),
    ) {
        let now = Timestamp::UNIX_EPOCH;
        let mut jobs: Vec<NewJob> =
            wanted.iter().enumerate().map(|(at, (key, on))| job(*key, *on, at)).collect();
        let mut answers = vec![None; jobs.len()];
        let keys = keys(&jobs, &answers);
        let mut holders = HashMap::new();
        // The model: who has each key, whether that has been claimed, and its payload if this group has set it.
        let mut model: HashMap<u8, (JobId, bool, Option<usize>)> = HashMap::new();
        for (key, claimed) in (0u8..).zip(&held) {
            let Some(claimed) = *claimed else { continue };
            let id = JobId::new();
            let hash = Unique::by_key(key.to_string()).unwrap().key_of(&jobs[0]);
            let state = Some(if claimed { State::Running } else { State::Queued });
            holders.insert(hash, KeyHolder { id, state, claimed, until: None, created_at: now });
            model.insert(key, (id, claimed, None));
        }
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        let known = Known { now, holders, existing: HashSet::new() };
        let changes = resolve(&mut jobs, &mut answers, &keys, known);

        for (at, (key, on)) in wanted.iter().enumerate() {
            let expected = match model.get_mut(key) {
                None => {
                    model.insert(*key, (ids[at], false, Some(at)));
                    None
                }
                Some((holder, ..)) if *on == OnConflict::Refuse => Some(InsertOutcome::Refused(*holder)),
                Some((holder, true, _)) => Some(InsertOutcome::Held(*holder)),
                Some((holder, ..)) if *on == OnConflict::Existing => Some(InsertOutcome::Held(*holder)),
                Some((holder, false, payload)) => {
                    *payload = Some(at);
                    Some(InsertOutcome::Replaced(*holder))
                }
            };
            prop_assert_eq!(answers[at], expected, "job {}", at);
        }
        for (id, _, payload) in model.values() {
            let payload = payload.map(|at| at.to_string());
            match jobs.iter().position(|job| job.id == *id) {
                Some(at) => {
                    prop_assert_eq!(Some(jobs[at].payload.get().to_owned()), payload);
                    prop_assert!(changes.takes.values().any(|take| take.job == *id));
                }
                None => prop_assert_eq!(changes.replacements.get(id).map(|r| r.payload.clone()), payload),
            }
        }
        prop_assert!(changes.takes.values().all(|take| ids.contains(&take.job)));
    }
}

#[test]
fn an_earlier_call_is_not_answered_anew() {
    let mut jobs = vec![job(1, OnConflict::Refuse, 1)];
    let mut answers = vec![None];
    let keys = keys(&jobs, &answers);
    let now = Timestamp::UNIX_EPOCH;
    let other = KeyHolder {
        id: JobId::new(),
        state: Some(State::Queued),
        claimed: false,
        until: None,
        created_at: now,
    };
    let holders = HashMap::from([(keys[0].unwrap(), other)]);
    let known = Known { now, holders, existing: HashSet::from([jobs[0].id]) };
    assert_eq!(resolve(&mut jobs, &mut answers, &keys, known), Changes::default());
    assert_eq!(answers, [None]);
}

#[test]
fn a_debounced_group_is_one_job_with_the_last_payload_and_time() {
    let now = Timestamp::UNIX_EPOCH;
    let debounced = |delay| {
        let unique = Unique::debounce("k", Duration::from_secs(delay)).unwrap();
        NewJob {
            unique: Some(Box::new(unique)),
            ..job(1, OnConflict::Existing, usize::try_from(delay).unwrap())
        }
    };
    let mut jobs = vec![debounced(10), debounced(5)];
    let mut answers = vec![None, None];
    let keys = keys(&jobs, &answers);
    let known = Known { now, holders: HashMap::new(), existing: HashSet::new() };
    resolve(&mut jobs, &mut answers, &keys, known);
    assert_eq!(answers, [None, Some(InsertOutcome::Replaced(jobs[0].id))]);
    assert_eq!(jobs[0].run_at, Some(now + chrono::TimeDelta::seconds(5)));
    assert_eq!(jobs[0].payload.get(), "5");
}
