use std::collections::HashSet;

use uuid::Uuid;
use windlass::JobState;

use super::Case;
use crate::{
    clock::seconds_between,
    evidence::Stored,
    history::{Request, Verdict},
    jobs::{Ending, How},
};

/// Of a job, no two runs are live at the same time.
pub(super) fn one_live(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (job, runs) in &case.runs {
        let mut parts: Vec<_> =
            runs.iter().flat_map(|run| case.live(run).into_iter().map(move |part| (part, run))).collect();
        parts.sort_by_key(|(part, _)| *part);
        let mut latest: Option<((u64, u64), &crate::evidence::Run)> = None;
        for (part, run) in parts {
            match latest {
                Some(((_, until), before)) if part.0 < until && before.id != run.id => {
                    wrong.push(format!(
                        "job {job}: attempt {} in life {} began {:.3} s before attempt {} in life {} had ended",
                        run.attempt,
                        run.life,
                        seconds_between(part.0, until),
                        before.attempt,
                        before.life
                    ));
                }
                _ => {}
            }
            if latest.is_none_or(|((_, until), _)| part.1 > until) {
                latest = Some((part, run));
            }
        }
    }
    wrong
}

/// A success is that of the run which started last: whoever lost the lease has not recorded one. And that run returned a
/// value, if its handler alone decided.
pub(super) fn newest_has_outcome(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for job in &case.evidence.jobs {
        if job.state != JobState::Succeeded {
            if let Some(run) = job.run {
                wrong.push(format!("job {} is {} and has the result of run {run}", job.id, job.state));
            }
            continue;
        }
        let result = job.run.and_then(|result| case.runs_of(job.id).iter().find(|run| run.id == result));
        let Some(result) = result else {
            wrong.push(format!("job {} has the result of run {:?}, which never began", job.id, job.run));
            continue;
        };
        // What ran wholly while it was excused may have been claimed before and begun after.
        let newer =
            case.runs_of(job.id).iter().find(|run| run.start > result.start && !case.live(run).is_empty());
        if let Some(newer) = newer {
            wrong.push(format!(
                "job {} has the result of run {}; a newer one is {}",
                job.id, result.id, newer.id
            ));
        }
        let transactional = case.wish_of(job).is_some_and(|wish| wish.transactional);
        if result.how != Some(How::Returned) && !transactional {
            wrong
                .push(format!("job {} succeeded by run {}, which ended {:?}", job.id, result.id, result.how));
        }
    }
    wrong
}

/// No job has more attempts than it may have, by the store's count and by the runs.
pub(super) fn within_maximum(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for job in &case.evidence.jobs {
        let counted = job.fence.saturating_sub(job.uncounted);
        if counted > job.max_attempts {
            wrong.push(format!("job {} has had {counted} attempts of {}", job.id, job.max_attempts));
        }
        let runs = case.runs_of(job.id);
        if runs.len() > job.fence as usize {
            wrong.push(format!("job {} was started {} times and claimed {}", job.id, runs.len(), job.fence));
        }
        if let Some(run) = runs.iter().find(|run| run.attempt > job.max_attempts) {
            wrong.push(format!("job {}: attempt {} of {}", job.id, run.attempt, job.max_attempts));
        }
    }
    wrong
}

/// A job is dead only if it was discarded or has used up its attempts, cancelled only if someone called it off or a parent
/// did not succeed, and has succeeded only if it was told to.
pub(super) fn ended_for_a_reason(case: &Case<'_>) -> Vec<String> {
    let called_off: HashSet<Uuid> = case
        .evidence
        .calls
        .iter()
        .filter(|call| call.verdict() != Verdict::Refused)
        .filter_map(|call| if let Request::Cancel { id } = call.request { Some(id) } else { None })
        .collect();
    let unsuccessful: HashSet<&str> = case
        .evidence
        .jobs
        .iter()
        .filter(|job| matches!(job.state, JobState::Dead | JobState::Cancelled))
        .map(|job| &*job.tag)
        .collect();
    let has_reason = |job: &Stored| {
        let Some(wish) = case.wish_of(job) else { return true };
        match job.state {
            JobState::Dead => {
                wish.told.ending == Ending::Discard
                    || job.fence.saturating_sub(job.uncounted) >= job.max_attempts
            }
            JobState::Cancelled => {
                called_off.contains(&job.id) || wish.after.iter().any(|tag| unsuccessful.contains(&**tag))
            }
            JobState::Succeeded => {
                wish.told.ending == Ending::Succeed
                    && wish.told.failures < job.fence.saturating_sub(job.uncounted)
            }
            _ => true,
        }
    };
    let without = case.evidence.jobs.iter().filter(|job| !has_reason(job));
    without
        .map(|job| {
            let counted = job.fence.saturating_sub(job.uncounted);
            format!("job {} ({}) is {} after {counted} attempts: {:?}", job.id, job.tag, job.state, job.error)
        })
        .collect()
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

    #[test]
    fn two_live_attempts_are_found() {
        let mut sample = Sample::good();
        let run = sample.evidence.runs[0].clone();
        sample.run(run.job, 1, run.start + 1, run.end + 1);
        assert_eq!(broken(&sample.evidence, one_live).len(), 1);
    }

    #[test]
    fn one_within_another_and_one_after_both_are_told_apart() {
        let mut sample = Sample::good();
        let job = sample.evidence.jobs[0].id;
        sample.evidence.runs.clear();
        for (start, end) in [(10, 50), (20, 30), (40, 45), (50, 60)] {
            sample.run(job, 0, start, end);
        }
        assert_eq!(broken(&sample.evidence, one_live).len(), 2);
    }

    #[test]
    fn a_frozen_worker_may_overlap_only_while_it_cannot_know() {
        for (until, wrong) in [(21, 0), (23, 1)] {
            let mut sample = Sample::good();
            let job = sample.evidence.jobs[0].id;
            sample.evidence.runs.clear();
            sample.evidence.lives[0].frozen = vec![(10 * SECOND, 20 * SECOND)];
            sample.run(job, 0, 9 * SECOND, until * SECOND);
            sample.run(job, 1, 18 * SECOND, 30 * SECOND);
            assert_eq!(broken(&sample.evidence, one_live).len(), wrong, "{until}");
        }
    }

    #[test]
    fn an_outcome_of_a_lost_lease_is_found() {
        let mut sample = Sample::good();
        let first = sample.evidence.runs[0].clone();
        sample.run(first.job, 1, first.end + 1, first.end + 2);
        assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), 1);
        sample.evidence.jobs[0].run = Some(sample.evidence.runs.last().unwrap().id);
        assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), 0);
    }

    #[test]
    fn what_is_excused_neither_hides_a_lost_lease_nor_counts_as_newer() {
        for (start, wrong) in [(11, 0), (23, 1)] {
            let mut sample = Sample::good();
            let job = sample.evidence.jobs[0].id;
            sample.evidence.runs.clear();
            sample.evidence.lives[0].frozen = vec![(10 * SECOND, 20 * SECOND)];
            let result = sample.run(job, 1, 5 * SECOND, 9 * SECOND);
            sample.run(job, 0, start * SECOND, (start + 1) * SECOND);
            sample.evidence.jobs.truncate(1);
            sample.evidence.jobs[0].run = Some(result);
            assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), wrong, "{start}");
        }
        let mut sample = Sample::good();
        sample.evidence.jobs[0].run = Some(Uuid::max());
        assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), 1, "a run that never began");
    }

    #[test]
    fn a_success_of_a_run_that_failed_is_found() {
        let mut sample = Sample::good();
        sample.evidence.runs[0].how = Some(How::Failed);
        assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), 1);
    }

    #[test]
    fn a_result_without_success_is_found() {
        let mut sample = Sample::good();
        sample.evidence.jobs[0].state = JobState::Dead;
        assert_eq!(broken(&sample.evidence, newest_has_outcome).len(), 1);
    }

    #[test]
    fn attempts_beyond_the_maximum_are_found() {
        let mut sample = Sample::good();
        sample.evidence.jobs[0].fence = 21;
        assert_eq!(broken(&sample.evidence, within_maximum).len(), 1);
        sample.evidence.jobs[0].uncounted = 1;
        assert_eq!(broken(&sample.evidence, within_maximum).len(), 0);
        let run = sample.evidence.runs[0].clone();
        sample.evidence.jobs[0].fence = 0;
        assert_eq!(broken(&sample.evidence, within_maximum).len(), 1, "never claimed");
        sample.evidence.jobs[0].fence = 9;
        sample.evidence.runs[0].attempt = 21;
        assert_eq!(broken(&sample.evidence, within_maximum).len(), 1);
        assert_eq!(run.attempt, 1);
    }

    #[test]
    fn ends_without_a_reason_are_found() {
        for state in [JobState::Dead, JobState::Cancelled] {
            let mut sample = Sample::good();
            sample.evidence.jobs[0].state = state;
            assert_eq!(broken(&sample.evidence, ended_for_a_reason).len(), 1, "{state}");
        }
        let mut sample = Sample::good();
        let (dead, id) = (sample.wish("hopeless"), sample.job("hopeless"));
        sample.accepted(Request::Enqueue { wish: dead, key: None }, &[id]);
        let job = sample.evidence.jobs.last_mut().unwrap();
        (job.state, job.fence) = (JobState::Dead, 20);
        assert_eq!(broken(&sample.evidence, ended_for_a_reason).len(), 0);
        let mut sample = Sample::good();
        let id = sample.job("failing");
        let mut wish = sample.wish("failing");
        wish.told.failures = 1;
        sample.accepted(Request::Enqueue { wish, key: None }, &[id]);
        sample.evidence.jobs.last_mut().unwrap().state = JobState::Succeeded;
        assert_eq!(broken(&sample.evidence, ended_for_a_reason).len(), 1, "a success that was not told");
    }
}
