use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::Case;
use crate::history::{Answer, Request, Verdict};

/// Every job in a 2xx answer is in the store, and over.
pub(super) fn none_lost(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut told = HashSet::new();
    for call in &case.evidence.calls {
        for seen in call.seen() {
            if !told.insert(seen.id) {
                continue;
            }
            match case.jobs.get(&seen.id) {
                None => wrong.push(format!(
                    "job {} was answered to {:?} and is not in the store",
                    seen.id, call.request
                )),
                Some(job) if !job.state.is_terminal() => {
                    wrong.push(format!("job {} ({}) is still {} in the end", job.id, job.tag, job.state));
                }
                Some(_) => {}
            }
        }
    }
    for call in &case.evidence.calls {
        let (Request::Get { id } | Request::Cancel { id }) = &call.request else { continue };
        if matches!(call.answer, Answer::Refused { status: 404, .. }) {
            wrong.push(format!("api-{} says that there is no job {id}, which was accepted", call.api));
        }
    }
    wrong
}

/// Every job in the store is one that a client asked for, by a request that was not refused, and there are no more of
/// them than requests.
pub(super) fn none_invented(case: &Case<'_>) -> Vec<String> {
    // How many jobs each tag may have: one for a key, one for each request without.
    let mut allowed: HashMap<&str, (bool, usize)> = HashMap::new();
    for call in &case.evidence.calls {
        if call.verdict() == Verdict::Refused {
            continue;
        }
        let keyed = !matches!(call.request, Request::Enqueue { key: None, .. });
        for wish in call.request.wishes() {
            let (any_keyed, unkeyed) = allowed.entry(&wish.tag).or_default();
            *any_keyed |= keyed;
            *unkeyed += usize::from(!keyed);
        }
    }
    let mut found: HashMap<&str, Vec<Uuid>> = HashMap::new();
    for job in &case.evidence.jobs {
        found.entry(&job.tag).or_default().push(job.id);
    }
    let mut wrong = Vec::new();
    for (tag, jobs) in found {
        let (keyed, unkeyed) = allowed.get(tag).copied().unwrap_or_default();
        let most = usize::from(keyed) + unkeyed;
        if jobs.len() > most {
            wrong.push(format!(
                "there are {} jobs for {tag:?}, and {most} requests that may have made one: {jobs:?}",
                jobs.len()
            ));
        }
    }
    wrong
}

/// Whatever was accepted under one key is the same; another request under it is refused.
pub(super) fn idempotent(case: &Case<'_>) -> Vec<String> {
    let mut first: HashMap<(u8, &str), Vec<Option<Uuid>>> = HashMap::new();
    let mut wrong = Vec::new();
    for call in &case.evidence.calls {
        let Answer::Done { jobs, .. } = &call.answer else { continue };
        // Keys are each route's own.
        let key = match &call.request {
            Request::Conflict { wish, key } => {
                wrong.push(format!("key {key:?} was used for {:?} as well, and accepted", wish.tag));
                continue;
            }
            Request::Enqueue { key: Some(key), .. } => (0, &**key),
            Request::Batch { key, .. } => (1, &**key),
            Request::Workflow { key, .. } => (2, &**key),
            _ => continue,
        };
        let jobs: Vec<Option<Uuid>> = jobs.iter().map(|job| job.as_ref().map(|job| job.id)).collect();
        let before = first.entry(key).or_insert_with(|| jobs.clone());
        // An entry that a batch refused has not taken its key.
        if before.iter().zip(&jobs).any(|pair| matches!(pair, (Some(before), Some(job)) if before != job)) {
            wrong.push(format!("key {:?} gave {before:?} and {jobs:?}", key.1));
        }
    }
    wrong
}

/// The job that an answer names is made of what was asked for.
pub(super) fn as_asked(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for call in &case.evidence.calls {
        for (wish, seen) in call.accepted() {
            if let Some(job) = case.jobs.get(&seen.id) {
                let asked = (&*wish.tag, wish.kind(), wish.max_attempts);
                let stored = (&*job.tag, &*job.kind, job.max_attempts);
                // The first answer under the key named the holder of the unique key, and so does a replay, which does not tell
                // that it is another's.
                let holder = matches!(call.answer, Answer::Done { replayed: true, .. })
                    && wish.unique.is_some()
                    && case.wish_of(job).is_some_and(|held| held.unique == wish.unique);
                if asked != stored && !holder {
                    wrong.push(format!("job {}: asked for {asked:?}, stored is {stored:?}", seen.id));
                }
            }
            let shown =
                (seen.kind.as_deref().unwrap_or(wish.kind()), seen.max_attempts.unwrap_or(wish.max_attempts));
            if shown != (wish.kind(), wish.max_attempts) {
                wrong.push(format!("job {}: the answer to {:?} shows {shown:?}", seen.id, wish.tag));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use windlass::JobState;

    use super::{
        super::{broken, sample::Sample},
        *,
    };
    use crate::history::Wish;

    #[test]
    fn a_lost_job_is_found() {
        let mut sample = Sample::good();
        sample.evidence.jobs.remove(0);
        assert_eq!(broken(&sample.evidence, none_lost).len(), 1);
    }

    #[test]
    fn a_job_that_never_ends_is_found() {
        let mut sample = Sample::good();
        sample.evidence.jobs[0].state = JobState::Queued;
        assert_eq!(broken(&sample.evidence, none_lost).len(), 1);
    }

    #[test]
    fn a_job_that_an_api_does_not_know_is_found() {
        let mut sample = Sample::good();
        let id = sample.evidence.jobs[0].id;
        sample.refused(Request::Get { id }, 404, "");
        assert_eq!(broken(&sample.evidence, none_lost).len(), 1);
    }

    #[test]
    fn a_job_nobody_asked_for_is_found() {
        let mut sample = Sample::good();
        sample.job("nobody's");
        assert_eq!(broken(&sample.evidence, none_invented).len(), 1);
    }

    #[test]
    fn a_job_of_a_refused_request_is_found_and_one_of_an_unknown_is_not() {
        for (status, problem, wrong) in [
            (422, "", 1),
            (503, "too many; nothing was stored", 1),
            (503, "the store does not answer", 0),
            (409, "", 1),
        ] {
            let mut sample = Sample::good();
            let wish = sample.wish("refused");
            sample.refused(Request::Enqueue { wish, key: Some("r".into()) }, status, problem);
            sample.job("refused");
            assert_eq!(broken(&sample.evidence, none_invented).len(), wrong, "{status} {problem}");
        }
    }

    #[test]
    fn two_jobs_under_one_key_are_found() {
        let mut sample = Sample::good();
        let id = sample.job("a");
        assert_eq!(broken(&sample.evidence, none_invented).len(), 1);
        let wish = sample.wish("a");
        sample.accepted(Request::Enqueue { wish, key: Some("ka".into()) }, &[id]);
        assert_eq!(broken(&sample.evidence, idempotent).len(), 1);
    }

    #[test]
    fn another_request_accepted_under_a_key_is_found() {
        let mut sample = Sample::good();
        let (wish, id) = (sample.wish("other"), sample.evidence.jobs[0].id);
        sample.refused(Request::Conflict { wish: wish.clone(), key: "ka".into() }, 422, "");
        assert_eq!(broken(&sample.evidence, idempotent).len(), 0);
        sample.accepted(Request::Conflict { wish, key: "ka".into() }, &[id]);
        assert_eq!(broken(&sample.evidence, idempotent).len(), 1);
    }

    #[test]
    fn a_replay_may_name_the_holder_of_the_unique_key_and_nobody_else() {
        for (held, wrong) in [("u", 0), ("v", 1)] {
            let mut sample = Sample::good();
            let wish = |sample: &Sample, tag: &str, key: &str| {
                let unique = Some(key.to_owned());
                Wish { unique, ..sample.wish(tag) }
            };
            let id = sample.done(wish(&sample, "holder", held));
            let wish = wish(&sample, "new", "u");
            sample.accepted(Request::Enqueue { wish, key: Some("n".into()) }, &[id]);
            if let Answer::Done { replayed, .. } = &mut sample.evidence.calls.last_mut().unwrap().answer {
                *replayed = true;
            }
            assert_eq!(broken(&sample.evidence, as_asked).len(), wrong, "{held}");
        }
    }

    #[test]
    fn an_answer_with_anothers_job_is_found() {
        let mut sample = Sample::good();
        let (wish, id) = (sample.wish("new"), sample.evidence.jobs[0].id);
        sample.accepted(Request::Enqueue { wish, key: Some("n".into()) }, &[id]);
        assert_eq!(broken(&sample.evidence, as_asked).len(), 1);
    }
}
