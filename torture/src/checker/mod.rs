//! What must be true of a run, by all that it left. One function for each rule; each answers with what breaks it.

mod accepted;
mod answers;
mod attempts;
mod effects;
mod gates;
mod recovery;
#[cfg(test)]
mod sample;

use std::collections::HashMap;

use uuid::Uuid;

pub(crate) use recovery::{Recovery, recoveries};

use crate::{
    clock::{Instant, nanos},
    evidence::{Evidence, Run, Stored},
    history::Wish,
};

/// How long a process that was frozen may take to notice, once it goes on, that its lease is lost.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// A rule, broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
}

type Rule = fn(&Case<'_>) -> Vec<String>;

/// All rules, in the order in which they are told.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("no accepted job is lost", accepted::none_lost),
    ("no job without a request", accepted::none_invented),
    ("idempotency keys", accepted::idempotent),
    ("an answer's job is the one asked for", accepted::as_asked),
    ("one live attempt", attempts::one_live),
    ("only the newest attempt has an outcome", attempts::newest_has_outcome),
    ("attempts within the maximum", attempts::within_maximum),
    ("jobs are dead or cancelled for a reason", attempts::ended_for_a_reason),
    ("transactional effects exactly once", effects::transactional_once),
    ("other effects at least once", effects::at_least_once),
    ("effects only under a started attempt", effects::under_an_attempt),
    ("limits per key", gates::limits_held),
    ("order per key", gates::order_held),
    ("unique while unfinished", gates::unique_held),
    ("workflows in order", gates::workflows_held),
    ("delays", gates::delays_held),
    ("what is over stays so", answers::over_stays_over),
    ("every answer is true", answers::are_true),
    ("recovery in time", recovery::in_time),
];

/// The evidence, with what several rules look up.
pub(crate) struct Case<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) jobs: HashMap<Uuid, &'a Stored>,
    pub(crate) runs: HashMap<Uuid, Vec<&'a Run>>,
    pub(crate) wishes: HashMap<&'a str, &'a Wish>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(evidence: &'a Evidence) -> Self {
        Self {
            evidence,
            jobs: evidence.jobs_by_id(),
            runs: evidence.runs_by_job(),
            wishes: evidence.wishes(),
        }
    }

    fn runs_of(&self, job: Uuid) -> &[&'a Run] {
        self.runs.get(&job).map_or(&[], Vec::as_slice)
    }

    fn wish_of(&self, job: &Stored) -> Option<&'a Wish> {
        self.wishes.get(&*job.tag).copied()
    }

    /// The parts of a run in which it counts as live. A frozen process cannot notice that its lease is lost, so from its
    /// freezing until shortly after its thawing, another attempt may have begun beside it.
    fn live(&self, run: &Run) -> Vec<(Instant, Instant)> {
        let mut parts = Vec::new();
        let mut from = run.start;
        for (frozen, thawed) in self.evidence.life(run.life).map_or(&[][..], |life| &life.frozen) {
            let noticed = thawed.saturating_add(nanos(GRACE));
            if noticed <= from || *frozen >= run.end {
                continue;
            }
            if *frozen > from {
                parts.push((from, *frozen));
            }
            from = noticed;
        }
        if from < run.end {
            parts.push((from, run.end));
        }
        parts
    }
}

/// All that breaks a rule.
pub(crate) fn check(evidence: &Evidence) -> Vec<Violation> {
    let case = Case::new(evidence);
    let mut violations = Vec::new();
    for (rule, holds) in RULES {
        violations.extend(holds(&case).into_iter().map(|what| Violation { rule, what }));
    }
    violations
}

/// The violations of one rule, for its tests.
#[cfg(test)]
fn broken(evidence: &Evidence, rule: Rule) -> Vec<String> {
    rule(&Case::new(evidence))
}

#[cfg(test)]
mod tests {
    use super::{sample::Sample, *};

    #[test]
    fn a_good_run_breaks_no_rule() {
        assert_eq!(check(&Sample::good().evidence), []);
    }

    #[test]
    fn a_frozen_process_is_excused_from_its_freezing_until_shortly_after() {
        let mut sample = Sample::good();
        let seconds = nanos(std::time::Duration::from_secs(1));
        let run = sample.evidence.runs[0].clone();
        sample.evidence.lives[0].frozen = vec![(10 * seconds, 20 * seconds), (30 * seconds, 31 * seconds)];
        let run = Run { start: 5 * seconds, end: 40 * seconds, ..run };
        let case = Case::new(&sample.evidence);
        let parts = [(5, 10), (22, 30), (33, 40)].map(|(from, to)| (from * seconds, to * seconds));
        assert_eq!(case.live(&run), parts);
        let short = Run { start: 11 * seconds, end: 21 * seconds, ..run };
        assert_eq!(case.live(&short), []);
    }
}
