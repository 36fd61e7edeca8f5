use std::collections::HashMap;

use uuid::Uuid;
use windlass::JobState;

use super::Case;
use crate::{
    clock::{Instant, seconds_between},
    history::{Answer, Seen},
};

fn state(seen: &Seen) -> Option<JobState> {
    seen.state.as_deref().and_then(|state| state.parse().ok())
}

/// Once an answer has shown a job as over, no later one, nor the store, shows it otherwise, and it is not started.
pub(super) fn over_stays_over(case: &Case<'_>) -> Vec<String> {
    // When it was first known to be over, and how.
    let mut over: HashMap<Uuid, (Instant, JobState, Option<Uuid>)> = HashMap::new();
    let seen = || case.evidence.calls.iter().flat_map(|call| call.seen().map(move |seen| (call, seen)));
    let mut wrong = Vec::new();
    for (call, seen) in seen() {
        let Some(state) = state(seen).filter(|state| state.is_terminal()) else { continue };
        let first = over.entry(seen.id).or_insert((call.received, state, seen.run));
        if (first.1, first.2) != (state, seen.run) {
            wrong.push(format!(
                "job {} was {} by {:?}, and is {state} by {:?}",
                seen.id, first.1, first.2, seen.run
            ));
        }
        first.0 = first.0.min(call.received);
    }
    for (call, seen) in seen() {
        let (Some(state), Some((known, end, _))) = (state(seen), over.get(&seen.id)) else { continue };
        if !state.is_terminal() && call.sent > *known {
            let after = seconds_between(*known, call.sent);
            wrong.push(format!(
                "job {} was {end}, and {after:.3} s later {state} (api-{})",
                seen.id, call.api
            ));
        }
    }
    for (id, (known, state, run)) in &over {
        if let Some(job) = case.jobs.get(id).filter(|job| (job.state, job.run) != (*state, *run)) {
            wrong.push(format!(
                "job {id} was {state} by {run:?}, and is {} by {:?} in the store",
                job.state, job.run
            ));
        }
        for run in case.runs_of(*id) {
            if run.start > *known && !case.live(run).is_empty() {
                let after = seconds_between(*known, run.start);
                wrong.push(format!(
                    "job {id} was {state}, and was started {after:.3} s later in life {}",
                    run.life
                ));
            }
        }
    }
    wrong
}

/// What an answer says had come to pass by then.
pub(super) fn are_true(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for call in &case.evidence.calls {
        for seen in call.seen() {
            let Some(job) = case.jobs.get(&seen.id) else { continue };
            if seen.attempt > job.fence {
                wrong.push(format!(
                    "job {} was said to be at attempt {}; it was claimed {} times",
                    job.id, seen.attempt, job.fence
                ));
            }
            if state(seen) != Some(JobState::Succeeded) {
                continue;
            }
            // The last thing a transactional run does is to commit, so the success may be seen before its end.
            let run = case.runs_of(job.id).iter().find(|run| Some(run.id) == seen.run);
            let transactional = case.wish_of(job).is_some_and(|wish| wish.transactional);
            match run {
                Some(run) if if transactional { run.start } else { run.end } <= call.received => {}
                _ => wrong.push(format!(
                    "job {} was said to have succeeded by run {:?}, which had not ended",
                    job.id, seen.run
                )),
            }
        }
        if let Answer::Done { existing: true, jobs, .. } = &call.answer {
            let key = call.request.wishes().first().and_then(|wish| wish.unique.as_ref());
            let holder = jobs.first().and_then(Option::as_ref).and_then(|seen| case.jobs.get(&seen.id));
            let held = holder.and_then(|job| case.wish_of(job)).and_then(|wish| wish.unique.as_ref());
            if key.is_none() || key != held {
                wrong.push(format!(
                    "{:?} was answered with another's job, which has key {held:?}",
                    call.request
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            broken,
            sample::{SECOND, Sample},
        },
        *,
    };
    use crate::history::Request;

    #[test]
    fn what_was_over_and_is_not_is_found() {
        let mut sample = Sample::good();
        let job = sample.evidence.jobs[0].clone();
        sample.shown(job.id, "running", 2, None);
        assert_eq!(broken(&sample.evidence, over_stays_over).len(), 1, "by a later answer");
        let mut sample = Sample::good();
        sample.shown(job.id, "cancelled", 1, None);
        assert_eq!(broken(&sample.evidence, over_stays_over).len(), 1, "by another end");
        let mut sample = Sample::good();
        sample.evidence.jobs[0].state = JobState::Dead;
        assert_eq!(broken(&sample.evidence, over_stays_over).len(), 1, "by the store");
        let mut sample = Sample::good();
        sample.run(job.id, 1, 500 * SECOND, 501 * SECOND);
        assert_eq!(broken(&sample.evidence, over_stays_over).len(), 1, "by a run");
    }

    #[test]
    fn an_answer_that_was_asked_for_before_the_end_was_known_may_be_older() {
        let mut sample = Sample::good();
        let id = sample.evidence.jobs[0].id;
        sample.shown(id, "running", 1, None);
        let known = sample.evidence.calls[1].received;
        sample.evidence.calls.last_mut().unwrap().sent = known;
        assert_eq!(broken(&sample.evidence, over_stays_over).len(), 0);
    }

    #[test]
    fn a_success_before_its_time_is_found() {
        let mut sample = Sample::good();
        let received = sample.evidence.calls[1].received;
        sample.evidence.runs[0].end = received + 1;
        assert_eq!(broken(&sample.evidence, are_true).len(), 1);
    }

    #[test]
    fn an_attempt_that_was_never_claimed_is_found() {
        let mut sample = Sample::good();
        sample.shown(sample.evidence.jobs[0].id, "running", 2, None);
        assert_eq!(broken(&sample.evidence, are_true).len(), 1);
    }

    #[test]
    fn a_holder_of_another_key_is_found() {
        let mut sample = Sample::good();
        let id = sample.evidence.jobs[0].id;
        let mut wish = sample.wish("u");
        wish.unique = Some("key".into());
        sample.accepted(Request::Enqueue { wish, key: None }, &[id]);
        if let Answer::Done { existing, .. } = &mut sample.evidence.calls.last_mut().unwrap().answer {
            *existing = true;
        }
        assert_eq!(broken(&sample.evidence, are_true).len(), 1);
    }
}
