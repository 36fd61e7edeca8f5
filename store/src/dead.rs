//! What the stores have in common about dead jobs.

use windlass_core::{DeadCursor, DeadFilter, JobFilter, JobId, State, Timestamp};

/// What the filter wants of a dead job itself.
pub(crate) fn filter(filter: &DeadFilter) -> JobFilter {
    JobFilter {
        queue: filter.queue.clone(),
        kind: filter.kind.clone(),
        states: vec![State::Dead],
        labels: filter.label.iter().cloned().collect(),
        tenant: filter.tenant.clone(),
        ..JobFilter::default()
    }
}

/// The first `limit` of the jobs looked at that fit, and where to go on: behind the last one that was looked at, unless
/// there are no `more` behind it.
pub(crate) fn page(
    scanned: &[(JobId, Timestamp)],
    more: bool,
    fits: impl Fn(&JobId) -> bool,
    limit: usize,
) -> (Vec<JobId>, Option<DeadCursor>) {
    let mut ids = Vec::new();
    let mut last = None;
    for (at, (id, died)) in scanned.iter().enumerate() {
        if ids.len() == limit {
            return (ids, last);
        }
        last = (more || at + 1 < scanned.len()).then_some(DeadCursor { at: *died, id: *id });
        if fits(id) {
            ids.push(*id);
        }
    }
    (ids, last)
}
