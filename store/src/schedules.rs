//! What firing a schedule comes to, for both stores.

use std::fmt::Display;

use windlass_core::{InsertOutcome, NewJob, Schedule, ScheduleName, ScheduleRecord, Timestamp};

/// When a schedule fires next that is put in place of `old`, or enabled or disabled.
pub(crate) fn first_tick(
    schedule: &Schedule,
    old: Option<&ScheduleRecord>,
    enabled: Option<bool>,
    now: Timestamp,
) -> Option<Timestamp> {
    match old {
        // It goes on as before.
        Some(old)
            if old.definition.schedule.timing() == schedule.timing()
                && (old.enabled || enabled != Some(true)) =>
        {
            old.next_at
        }
        // Never a tick again that it has fired for, should the clock have been set back.
        old => schedule.next_after(old.and_then(|old| old.last_at).map_or(now, |last| last.max(now))),
    }
}

/// What one schedule has to make now.
pub(crate) struct Fired {
    pub(crate) name: ScheduleName,
    pub(crate) jobs: Vec<NewJob>,
    pub(crate) next_at: Option<Timestamp>,
    pub(crate) last_at: Option<Timestamp>,
}

/// What became of the jobs of ticks, where an operator has to know. A queue that is being drained is wanted so.
pub(crate) fn tell(jobs: &[NewJob], outcomes: &[InsertOutcome]) {
    for (job, outcome) in jobs.iter().zip(outcomes) {
        if let InsertOutcome::UnknownLimit(at) = outcome {
            let limit = job.gating.limits.get(*at).map_or("", |limit| limit.name());
            let kind = job.kind.as_str();
            tracing::error!(
                kind,
                limit,
                "a schedule's job was not made: define its limit, or put it without"
            );
        }
    }
}

/// `None` for a schedule that this release cannot read: it is left to one that can.
pub(crate) fn fire(record: Result<ScheduleRecord, impl Display>, now: Timestamp) -> Option<Fired> {
    let ScheduleRecord { definition, next_at, .. } = match record {
        Ok(record) => record,
        Err(error) => {
            tracing::error!(%error, "a schedule cannot be read; it is left to another release");
            return None;
        }
    };
    let due = definition.schedule.due(next_at?, now);
    Some(Fired {
        jobs: due.ticks.iter().map(|tick| definition.job_of(*tick)).collect(),
        last_at: due.ticks.last().copied(),
        next_at: due.next,
        name: definition.name,
    })
}
