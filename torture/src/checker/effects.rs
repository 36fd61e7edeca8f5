use std::collections::{HashMap, HashSet};

use uuid::Uuid;
use windlass::JobState;

use super::Case;

/// A transactional job that succeeded has paid once, under the run that it succeeded by; any other has not.
pub(super) fn transactional_once(case: &Case<'_>) -> Vec<String> {
    let mut paid: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for payment in &case.evidence.payments {
        paid.entry(payment.job).or_default().push(payment.run);
    }
    let mut wrong = Vec::new();
    for job in &case.evidence.jobs {
        let paid = paid.remove(&job.id).unwrap_or_default();
        let transactional = case.wish_of(job).is_some_and(|wish| wish.transactional);
        let right = match (transactional && job.state == JobState::Succeeded, job.run) {
            (true, Some(run)) => paid == [run],
            (true, None) => false,
            (false, _) => paid.is_empty(),
        };
        if !right {
            wrong.push(format!(
                "job {} ({}) is {} by run {:?} and has paid under {paid:?}",
                job.id, job.tag, job.state, job.run
            ));
        }
    }
    for (job, runs) in paid {
        wrong.push(format!("job {job} is not in the store and has paid under {runs:?}"));
    }
    wrong
}

/// The run by which a job succeeded has left its effect.
pub(super) fn at_least_once(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for job in case.evidence.jobs.iter().filter(|job| job.state == JobState::Succeeded) {
        if case.wish_of(job).is_none_or(|wish| wish.transactional) {
            continue;
        }
        let left = case.runs_of(job.id).iter().any(|run| Some(run.id) == job.run && !run.effects.is_empty());
        if !left {
            wrong.push(format!(
                "job {} ({}) succeeded by run {:?}, which left no effect",
                job.id, job.tag, job.run
            ));
        }
    }
    wrong
}

/// Every effect is within a run, every run that of a job in the store, and each run is one.
pub(super) fn under_an_attempt(case: &Case<'_>) -> Vec<String> {
    let mut wrong = case.evidence.strays.clone();
    let mut ids = HashSet::new();
    for run in &case.evidence.runs {
        if !ids.insert(run.id) {
            wrong.push(format!("run {} is there twice", run.id));
        }
        if !case.jobs.contains_key(&run.job) {
            wrong.push(format!("life {} ran job {}, which is not in the store", run.life, run.job));
        }
        if let Some(at) = run.effects.iter().find(|at| **at < run.start || **at > run.end) {
            wrong.push(format!("run {} of job {} left an effect at {at}, outside of it", run.id, run.job));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{
        super::{broken, sample::Sample},
        *,
    };
    use crate::evidence::Payment;

    #[test]
    fn what_was_paid_twice_not_at_all_or_by_another_run_is_found() {
        let good = Sample::good();
        let payment = good.evidence.payments[0];
        let other = Payment { run: Uuid::max(), ..payment };
        for payments in [vec![payment, payment], vec![], vec![other], vec![payment, other]] {
            let mut sample = Sample::good();
            sample.evidence.payments = payments;
            assert_eq!(broken(&sample.evidence, transactional_once).len(), 1);
        }
    }

    #[test]
    fn payments_of_what_did_not_succeed_or_is_unknown_are_found() {
        let mut sample = Sample::good();
        let payment = sample.evidence.payments[0];
        sample.evidence.jobs.iter_mut().find(|job| job.id == payment.job).unwrap().state = JobState::Dead;
        assert_eq!(broken(&sample.evidence, transactional_once).len(), 1);
        let mut sample = Sample::good();
        sample.evidence.payments.push(Payment { job: Uuid::max(), run: Uuid::max() });
        assert_eq!(broken(&sample.evidence, transactional_once).len(), 1);
    }

    #[test]
    fn a_success_without_effect_is_found() {
        let mut sample = Sample::good();
        sample.evidence.runs[0].effects.clear();
        assert_eq!(broken(&sample.evidence, at_least_once).len(), 1);
    }

    #[test]
    fn effects_outside_of_attempts_are_found() {
        let mut sample = Sample::good();
        let end = sample.evidence.runs[0].end;
        sample.evidence.runs[0].effects.push(end + 1);
        assert_eq!(broken(&sample.evidence, under_an_attempt).len(), 1);
        let mut sample = Sample::good();
        sample.evidence.strays.push("an effect of nobody".into());
        sample.run(Uuid::max(), 0, 1, 2);
        assert_eq!(broken(&sample.evidence, under_an_attempt).len(), 2);
        let mut sample = Sample::good();
        let again = sample.evidence.runs[0].clone();
        sample.evidence.runs.push(again);
        assert_eq!(broken(&sample.evidence, under_an_attempt).len(), 1);
    }
}
