//! Who gets a unique key: decided here for both stores, which bring what they know and carry out what follows.

use std::collections::{BTreeMap, HashMap, HashSet};

use windlass_core::{InsertOutcome, JobId, KeyHolder, KeyVerdict, NewJob, Timestamp, Unique};

/// A key as stores keep it.
pub(crate) type Key = [u8; 32];

/// How soon housekeeping looks at a key again whose end is not known.
const LOOK_AGAIN: chrono::TimeDelta = chrono::TimeDelta::hours(1);

/// The keys of these jobs, where they have one and are not answered otherwise already.
pub(crate) fn keys(jobs: &[NewJob], answers: &[Option<InsertOutcome>]) -> Vec<Option<Key>> {
    let open = jobs.iter().zip(answers);
    open.map(|(job, answer)| match (&job.unique, answer) {
        (Some(unique), None) => Some(unique.key_of(job)),
        _ => None,
    })
    .collect()
}

/// What the store knows, and nobody else can change meanwhile.
pub(crate) struct Known {
    pub(crate) now: Timestamp,
    /// The last holder of each key, which is one of this group's jobs where the key is new.
    pub(crate) holders: HashMap<Key, KeyHolder>,
    /// Those of this group's jobs that exist already, from an earlier call whose answer was lost.
    pub(crate) existing: HashSet<JobId>,
}

/// What the store has to write, apart from the jobs that are still unanswered.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) takes: BTreeMap<Key, Take>,
    pub(crate) replacements: BTreeMap<JobId, Replacement>,
    /// Idempotency keys whose requests got another job than they brought.
    pub(crate) moved: Vec<(String, JobId)>,
    /// Those of refused jobs.
    pub(crate) freed: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Take {
    pub(crate) job: JobId,
    pub(crate) until: Option<Timestamp>,
    pub(crate) check_at: Timestamp,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Replacement {
    pub(crate) payload: String,
    pub(crate) version: u16,
    /// The new time, for a job that waits for its time.
    pub(crate) run_at: Option<Timestamp>,
}

/// Answers the jobs whose keys others have, job by job, so that of several with one key in this group the first gets it.
pub(crate) fn resolve(
    jobs: &mut [NewJob],
    answers: &mut [Option<InsertOutcome>],
    keys: &[Option<Key>],
    mut known: Known,
) -> Changes {
    let mut changes = Changes::default();
    let now = known.now;
    let places: HashMap<JobId, usize> = jobs.iter().enumerate().map(|(at, job)| (job.id, at)).collect();
    for at in 0..jobs.len() {
        let (Some(key), Some(unique)) = (keys[at], jobs[at].unique.clone()) else { continue };
        let id = jobs[at].id;
        if known.existing.contains(&id) {
            continue;
        }
        let holder = known.holders.get(&key).filter(|holder| holder.id != id);
        let verdict = holder.map_or(KeyVerdict::Take, |holder| unique.judge(holder, now));
        let outcome = match (verdict, holder) {
            (KeyVerdict::Take, _) | (_, None) => {
                if let Some(start) = unique.start(now, now) {
                    jobs[at].run_at = Some(start);
                }
                let until = unique.until(now);
                let check_at = until.unwrap_or(now + LOOK_AGAIN);
                changes.takes.insert(key, Take { job: id, until, check_at });
                let state = Some(jobs[at].first_state(now));
                let holder = KeyHolder { id, state, claimed: false, until, created_at: now };
                known.holders.insert(key, holder);
                continue;
            }
            (KeyVerdict::Held, Some(holder)) => InsertOutcome::Held(holder.id),
            (KeyVerdict::Refuse, Some(holder)) => InsertOutcome::Refused(holder.id),
            (KeyVerdict::Replace, Some(holder)) => {
                let holder = holder.clone();
                replace(jobs, at, &unique, &holder, &places, now, &mut changes);
                InsertOutcome::Replaced(holder.id)
            }
        };
        answers[at] = Some(outcome);
        settle_idempotency(jobs, answers, at, outcome, &mut changes);
    }
    changes
}

/// Gives the payload of the job at `at`, and perhaps its time, to the holder of its key.
fn replace(
    jobs: &mut [NewJob],
    at: usize,
    unique: &Unique,
    holder: &KeyHolder,
    places: &HashMap<JobId, usize>,
    now: Timestamp,
    changes: &mut Changes,
) {
    let (payload, version) = (jobs[at].payload.clone(), jobs[at].version);
    let own_time = || jobs[at].run_at.unwrap_or(now);
    let run_at =
        unique.replaces_time().then(|| unique.start(holder.created_at, now).unwrap_or_else(own_time));
    match places.get(&holder.id).and_then(|place| jobs.get_mut(*place)) {
        Some(first) => {
            first.payload = payload;
            first.version = version;
            first.run_at = run_at.or(first.run_at);
        }
        None => {
            let replacement = Replacement { payload: payload.get().to_owned(), version, run_at };
            changes.replacements.insert(holder.id, replacement);
        }
    }
}

/// An idempotency key stands for what its request was answered with, also when that is another job.
fn settle_idempotency(
    jobs: &[NewJob],
    answers: &mut [Option<InsertOutcome>],
    at: usize,
    outcome: InsertOutcome,
    changes: &mut Changes,
) {
    let Some(idempotency) = &jobs[at].idempotency else { return };
    let repeated = match outcome {
        InsertOutcome::Held(holder) | InsertOutcome::Replaced(holder) => {
            changes.moved.push((idempotency.key.clone(), holder));
            InsertOutcome::Existing(holder)
        }
        outcome => {
            changes.freed.push(idempotency.key.clone());
            outcome
        }
    };
    for answer in answers.iter_mut().filter(|answer| **answer == Some(InsertOutcome::Existing(jobs[at].id))) {
        *answer = Some(repeated);
    }
}

#[cfg(test)]
#[path = "unique_tests.rs"]
mod tests;
