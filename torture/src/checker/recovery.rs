use std::{collections::HashSet, time::Duration};

use super::Case;
use crate::{
    clock::{nanos, seconds_between},
    evidence::Happened,
};

/// Beyond the lease, until a dead worker's jobs run elsewhere.
const BEYOND_LEASE: Duration = Duration::from_secs(2);
/// From when a server is ready until the first job runs that was enqueued since it went down.
const AFTER_SERVER: Duration = Duration::from_secs(5);

/// How long it took until the work went on after a fault.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recovery {
    pub(crate) fault: usize,
    pub(crate) what: String,
    pub(crate) kind: String,
    /// In seconds; of several jobs, the slowest. `None`: it did not go on.
    pub(crate) took: Option<f64>,
    /// How many jobs were waited for.
    pub(crate) jobs: usize,
    /// In seconds, where it happened alone.
    pub(crate) limit: Option<f64>,
}

/// All that could be measured.
pub(crate) fn recoveries(case: &Case<'_>) -> Vec<Recovery> {
    let faults = case.evidence.faults.iter().filter(|fault| fault.omitted.is_none());
    faults
        .filter_map(
            |fault| if fault.kind == "kill" { of_worker(case, fault) } else { of_server(case, fault) },
        )
        .collect()
}

pub(super) fn in_time(case: &Case<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    for recovery in recoveries(case) {
        let Some(limit) = recovery.limit else { continue };
        match recovery.took {
            Some(took) if took <= limit || case.evidence.terms.busy => {}
            Some(took) => wrong
                .push(format!("#{} {}: {took:.2} s; the limit is {limit} s", recovery.fault, recovery.what)),
            None => wrong.push(format!("#{} {}: no job ran any more", recovery.fault, recovery.what)),
        }
    }
    wrong
}

/// From the kill until each job that was running there runs elsewhere.
fn of_worker(case: &Case<'_>, fault: &Happened) -> Option<Recovery> {
    let life = case.evidence.lives.iter().find(|life| {
        life.process == fault.target && life.killed && life.from < fault.begun && life.until >= fault.begun
    })?;
    let mut took = Vec::new();
    for run in case.evidence.runs.iter().filter(|run| run.life == life.number && run.how.is_none()) {
        // Those whose attempts were used up, or which were called off, do not run again.
        let next = case.runs_of(run.job).iter().find(|next| next.start > life.until);
        took.extend(next.map(|next| seconds_between(life.until, next.start)));
    }
    let slowest = took.iter().copied().reduce(f64::max)?;
    Some(Recovery {
        fault: fault.number,
        what: fault.what.clone(),
        kind: fault.kind.clone(),
        jobs: took.len(),
        took: Some(slowest),
        limit: fault.isolated.then_some((case.evidence.terms.lease + BEYOND_LEASE).as_secs_f64()),
    })
}

/// From when the server is ready until a job runs that was enqueued since it went down.
fn of_server(case: &Case<'_>, fault: &Happened) -> Option<Recovery> {
    let ready = fault.ready?;
    let since: HashSet<&str> = case
        .evidence
        .calls
        .iter()
        .filter(|call| call.sent >= fault.begun && call.sent < ready + nanos(AFTER_SERVER))
        .flat_map(|call| call.accepted().map(|(wish, _)| &*wish.tag))
        .collect();
    let is_new = |id| case.jobs.get(id).is_some_and(|job| since.contains(&*job.tag));
    let first = case.evidence.runs.iter().find(|run| run.start >= ready && is_new(&run.job));
    Some(Recovery {
        fault: fault.number,
        what: fault.what.clone(),
        kind: fault.kind.clone(),
        took: first.map(|run| seconds_between(ready, run.start)),
        jobs: since.len(),
        limit: fault.isolated.then_some(AFTER_SERVER.as_secs_f64()),
    })
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

    fn fault(kind: &str, target: &str, begun: u64, ready: Option<u64>) -> Happened {
        Happened {
            number: 0,
            kind: kind.into(),
            what: format!("{kind} {target}"),
            target: target.into(),
            isolated: true,
            begun,
            ready,
            over: None,
            omitted: None,
        }
    }

    #[test]
    fn jobs_of_a_killed_worker_that_wait_too_long_are_found() {
        for (after, wrong) in [(10, 0), (11, 1)] {
            let mut sample = Sample::good();
            let run = sample.evidence.runs[0].clone();
            sample.evidence.lives[0].killed = true;
            sample.evidence.lives[0].until = run.end;
            sample.evidence.runs[0].how = None;
            sample.evidence.runs.truncate(1);
            let start = run.end + after * SECOND;
            sample.run(run.job, 1, start, start + 1);
            sample.evidence.faults = vec![fault("kill", "worker-0", run.start, None)];
            let case = Case::new(&sample.evidence);
            assert_eq!(recoveries(&case)[0].took, Some(after as f64));
            assert_eq!(in_time(&case).len(), wrong, "{after}");
            sample.evidence.faults[0].isolated = false;
            assert_eq!(
                broken(&sample.evidence, in_time).len(),
                0,
                "beside others, it is measured and no more"
            );
        }
    }

    #[test]
    fn a_server_after_which_jobs_run_late_or_never_is_found() {
        let sample = || {
            let mut sample = Sample::good();
            sample.evidence.faults = vec![fault("db-crash", "database", 0, Some(SECOND))];
            sample
        };
        assert_eq!(broken(&sample().evidence, in_time).len(), 0);
        let mut late = sample();
        for run in &mut late.evidence.runs {
            run.start += 6 * SECOND;
        }
        assert_eq!(broken(&late.evidence, in_time).len(), 1);
        late.evidence.terms.busy = true;
        assert_eq!(broken(&late.evidence, in_time).len(), 0, "the machine had other work");
        let mut never = sample();
        never.evidence.terms.busy = true;
        never.evidence.runs.clear();
        assert_eq!(broken(&never.evidence, in_time).len(), 1);
        let mut old = sample();
        old.evidence.calls.clear();
        assert_eq!(broken(&old.evidence, in_time).len(), 1, "jobs from before do not count");
    }
}
