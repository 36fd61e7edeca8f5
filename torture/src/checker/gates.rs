use std::collections::{BTreeMap, HashMap};

use windlass::JobState;

use super::Case;
use crate::{
    clock::{Instant, seconds_between},
    evidence::Stored,
    history::{MAX_RUNNING, Verdict, Wish},
};

/// By how much the store's times of two transactions may be the other way round: one that has waited for the other bears
/// the time of its beginning.
const WAITED_MICROS: i64 = 5_000_000;

impl Case<'_> {
    /// When a job was first and last live.
    fn span(&self, job: &Stored) -> Option<(Instant, Instant)> {
        let parts = self.runs_of(job.id).iter().flat_map(|run| self.live(run));
        parts.reduce(|(start, end), part| (start.min(part.0), end.max(part.1)))
    }

    /// The jobs with something in their wishes, by that.
    fn by<'b, K: Ord>(&'b self, what: impl Fn(&'b Wish) -> Option<K>) -> BTreeMap<K, Vec<&'b Stored>> {
        let mut jobs: BTreeMap<K, Vec<&Stored>> = BTreeMap::new();
        for job in &self.evidence.jobs {
            if let Some(key) = self.wish_of(job).and_then(&what) {
                jobs.entry(key).or_default().push(job);
            }
        }
        jobs
    }
}

/// Of one key of the limit, never more runs are live than it allows.
pub(super) fn limits_held(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, jobs) in case.by(|wish| wish.limit.as_deref()) {
        let parts = jobs.iter().flat_map(|job| case.runs_of(job.id)).flat_map(|run| case.live(run));
        // Of what is at the same instant, ends come first.
        let mut changes: Vec<(Instant, i32)> =
            parts.flat_map(|(start, end)| [(start, 1), (end, -1)]).collect();
        changes.sort_unstable();
        let (mut now, mut most) = (0, 0);
        for (_, change) in changes {
            now += change;
            most = most.max(now);
        }
        if most as usize > MAX_RUNNING {
            wrong.push(format!("{most} jobs of key {key} of the limit ran at once; {MAX_RUNNING} may"));
        }
    }
    wrong
}

/// Of one ordering key, no job starts before all that were accepted before it are over.
pub(super) fn order_held(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, mut jobs) in case.by(|wish| wish.order.as_ref().map(|(key, _)| &**key)) {
        jobs.sort_by_key(|job| {
            case.wish_of(job).and_then(|wish| wish.order.as_ref()).map(|(_, place)| *place)
        });
        let mut before: Option<(Instant, &Stored)> = None;
        for job in jobs {
            let Some((start, end)) = case.span(job) else { continue };
            if let Some((until, earlier)) = before.filter(|(until, _)| start < *until) {
                let early = seconds_between(start, until);
                wrong.push(format!(
                    "key {key}: job {} ({}) started {early:.3} s before {} ({}) was over",
                    job.id, job.tag, earlier.id, earlier.tag
                ));
            }
            if before.is_none_or(|(until, _)| end > until) {
                before = Some((end, job));
            }
        }
    }
    wrong
}

/// Of one unique key, one job is unfinished at a time: by the store's times, and by when they were live.
pub(super) fn unique_held(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, mut jobs) in case.by(|wish| wish.unique.as_deref()) {
        jobs.sort_by_key(|job| job.created);
        for pair in jobs.windows(2) {
            let (first, second) = (pair[0], pair[1]);
            if first.finished.is_none_or(|finished| second.created + WAITED_MICROS < finished) {
                wrong.push(format!("key {key}: {} was made while {} was unfinished", second.id, first.id));
            }
        }
        let mut spans: Vec<_> = jobs.iter().filter_map(|job| Some((case.span(job)?, job.id))).collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            let ((_, end), first) = pair[0];
            let ((start, _), second) = pair[1];
            if start < end {
                wrong.push(format!("key {key}: {second} started before {first} was over"));
            }
        }
    }
    wrong
}

/// A job of a workflow starts only after each of its parents has succeeded.
pub(super) fn workflows_held(case: &Case<'_>) -> Vec<String> {
    let by_tag: HashMap<&str, &Stored> = case.evidence.jobs.iter().map(|job| (&*job.tag, job)).collect();
    let mut wrong = Vec::new();
    for job in &case.evidence.jobs {
        let Some(wish) = case.wish_of(job).filter(|wish| !wish.after.is_empty()) else { continue };
        let Some(start) = case.runs_of(job.id).iter().map(|run| run.start).min() else { continue };
        for tag in &wish.after {
            let parent = by_tag.get(&**tag).filter(|parent| parent.state == JobState::Succeeded);
            let done = parent.and_then(|parent| {
                let run = case.runs_of(parent.id).iter().find(|run| Some(run.id) == parent.run)?;
                // The last thing a transactional run does is to commit, so the child may start a moment before its end.
                Some(if case.wish_of(parent)?.transactional { run.start } else { run.end })
            });
            match done {
                Some(done) if start >= done => {}
                Some(done) => wrong.push(format!(
                    "job {} ({}) started {:.3} s before its parent {tag} had succeeded",
                    job.id,
                    job.tag,
                    seconds_between(start, done)
                )),
                None => wrong.push(format!(
                    "job {} ({}) was started, and its parent {tag} has not succeeded",
                    job.id, job.tag
                )),
            }
        }
    }
    wrong
}

/// A delayed job does not start before its time, counted from when it was asked for. An API counts delays by its own wall
/// clock, so what one accepted whose clock was set apart has no such time.
pub(super) fn delays_held(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut asked: HashMap<&str, Instant> = HashMap::new();
    for call in case.evidence.calls.iter().filter(|call| call.verdict() != Verdict::Refused) {
        let apart = case.evidence.faults.iter().any(|fault| {
            fault.kind == "clock"
                && fault.target == format!("api-{}", call.api)
                && call.received >= fault.begun
                && fault.over.is_none_or(|over| call.sent <= over)
        });
        for wish in call.request.wishes() {
            if apart {
                asked.insert(&wish.tag, 0);
            }
            let first = asked.entry(&wish.tag).or_insert(call.sent);
            *first = call.sent.min(*first);
        }
    }
    for job in &case.evidence.jobs {
        let delay = case.wish_of(job).and_then(|wish| wish.delay_ms);
        let start = case.runs_of(job.id).iter().map(|run| run.start).min();
        let (Some(delay), Some(start), Some(asked)) = (delay, start, asked.get(&*job.tag)) else { continue };
        let due = asked + delay * 1_000_000;
        if start < due {
            wrong.push(format!(
                "job {} ({}) started {:.3} s before its time",
                job.id,
                job.tag,
                seconds_between(start, due)
            ));
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
    use crate::{evidence::Happened, history::Request};

    /// Jobs like these, done one after the other.
    fn with(tags: &[&str], change: impl Fn(usize, &mut Wish)) -> Sample {
        let mut sample = Sample::good();
        sample.evidence.runs.clear();
        for (place, tag) in tags.iter().enumerate() {
            let mut wish = sample.wish(tag);
            change(place, &mut wish);
            sample.done(wish);
        }
        sample
    }

    #[test]
    fn more_than_the_limit_is_found() {
        let mut sample = with(&["x", "y", "z"], |_, wish| wish.limit = Some("l".into()));
        assert_eq!(broken(&sample.evidence, limits_held).len(), 0);
        for run in &mut sample.evidence.runs {
            run.end = 100 * SECOND;
        }
        assert_eq!(broken(&sample.evidence, limits_held).len(), 1);
        sample.evidence.runs[0].end = sample.evidence.runs[2].start;
        assert_eq!(broken(&sample.evidence, limits_held).len(), 0, "one leaves as another comes");
    }

    #[test]
    fn a_broken_order_is_found() {
        let mut sample = with(&["x", "y", "z"], |place, wish| wish.order = Some(("o".into(), place as u64)));
        assert_eq!(broken(&sample.evidence, order_held).len(), 0);
        sample.evidence.runs[0].end = sample.evidence.runs[1].start + 1;
        assert_eq!(broken(&sample.evidence, order_held).len(), 1);
        let mut sample = with(&["x", "y"], |place, wish| wish.order = Some(("o".into(), 5 - place as u64)));
        assert_eq!(broken(&sample.evidence, order_held).len(), 1, "the other way round");
        sample.evidence.calls.clear();
        assert_eq!(broken(&sample.evidence, order_held).len(), 0);
    }

    #[test]
    fn two_unfinished_jobs_of_a_unique_key_are_found() {
        let unique = |_: usize, wish: &mut Wish| wish.unique = Some("u".into());
        let mut sample = with(&["x", "y"], unique);
        assert_eq!(broken(&sample.evidence, unique_held).len(), 0);
        sample.evidence.runs[0].end = sample.evidence.runs[1].start + 1;
        assert_eq!(broken(&sample.evidence, unique_held).len(), 1);
        let mut sample = with(&["x", "y"], unique);
        let first = sample.evidence.jobs.len() - 2;
        sample.evidence.jobs[first].finished =
            Some(sample.evidence.jobs[first + 1].created + WAITED_MICROS + 1);
        assert_eq!(broken(&sample.evidence, unique_held).len(), 1);
    }

    #[test]
    fn a_child_that_does_not_wait_is_found() {
        let after = |place: usize, wish: &mut Wish| {
            if place == 1 {
                wish.after = vec!["x".into()];
            }
        };
        let mut sample = with(&["x", "y"], after);
        assert_eq!(broken(&sample.evidence, workflows_held).len(), 0);
        sample.evidence.runs[0].end = sample.evidence.runs[1].start + 1;
        assert_eq!(broken(&sample.evidence, workflows_held).len(), 1);
        let mut sample = with(&["x", "y"], after);
        let parent = sample.evidence.jobs.len() - 2;
        sample.evidence.jobs[parent].state = JobState::Dead;
        assert_eq!(broken(&sample.evidence, workflows_held).len(), 1);
    }

    #[test]
    fn a_job_before_its_time_is_found() {
        // It starts a second after the call.
        for (delay, wrong) in [(900, 0), (1100, 1)] {
            let sample = with(&["x"], |_, wish| wish.delay_ms = Some(delay));
            assert_eq!(broken(&sample.evidence, delays_held).len(), wrong, "{delay}");
        }
        let mut sample = with(&["x"], |_, wish| wish.delay_ms = Some(1100));
        for call in &mut sample.evidence.calls {
            if matches!(&call.request, Request::Enqueue { wish, .. } if wish.tag == "x") {
                call.sent -= SECOND;
            }
        }
        assert_eq!(broken(&sample.evidence, delays_held).len(), 0, "counted from the first request");
        let mut sample = with(&["x"], |_, wish| wish.delay_ms = Some(1100));
        let mut fault = Happened {
            number: 0,
            kind: "clock".into(),
            what: String::new(),
            target: "api-1".into(),
            isolated: false,
            begun: 0,
            ready: None,
            over: None,
            omitted: None,
        };
        sample.evidence.faults = vec![fault.clone()];
        assert_eq!(broken(&sample.evidence, delays_held).len(), 1, "another's clock");
        fault.target = "api-0".into();
        sample.evidence.faults = vec![fault];
        assert_eq!(broken(&sample.evidence, delays_held).len(), 0, "its clock was set apart");
    }
}
