//! What the stores have in common about searching jobs.

use uuid::Uuid;
use windlass_core::{Found, JobFilter, JobId, State};

/// How many jobs one call looks at.
pub(crate) const LOOK: usize = 10_000;

/// How many bytes of results one call finds at most, beyond those of its last job.
const RESULTS: usize = 8 * 1024 * 1024;

/// The least and the greatest id that a search is to look at. `None`: there can be none.
pub(crate) fn range(filter: &JobFilter, before: Option<JobId>) -> Option<(Uuid, Uuid)> {
    let (least, below) = filter.ids();
    let least = least.map_or(Uuid::nil(), JobId::as_uuid);
    let below = before.into_iter().chain(below).min();
    let greatest = match below {
        None => Uuid::max(),
        Some(below) => Uuid::from_u128(below.as_uuid().as_u128().checked_sub(1)?),
    };
    (least <= greatest).then_some((least, greatest))
}

/// The side tables that have every job in one of these states, and jobs in others too. `None` where a state has none.
pub(crate) fn side_tables(states: &[State]) -> Option<Vec<&'static str>> {
    let mut tables = Vec::new();
    for state in states {
        tables.push(match state {
            State::Dead => "dead",
            State::Scheduled | State::Retrying => "due",
            State::Running => "claims",
            State::Queued | State::Waiting | State::Succeeded | State::Cancelled => return None,
        });
    }
    tables.sort_unstable();
    tables.dedup();
    (!tables.is_empty()).then_some(tables)
}

/// Those of the fitting jobs, given with the size of their results, that one call answers; `next` is where it goes on if
/// that is not all of them.
pub(crate) fn page(fitting: &[(JobId, usize)], limit: usize) -> Found {
    let (mut ids, mut size) = (Vec::new(), 0);
    for (id, result) in fitting {
        if ids.len() == limit || size > RESULTS {
            let next = ids.last().copied();
            return Found { ids, next };
        }
        ids.push(*id);
        size += result;
    }
    Found { ids, next: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> JobId {
        Uuid::from_u128(number).into()
    }

    #[test]
    fn ranges_are_inclusive() {
        let any = JobFilter::default();
        assert_eq!(range(&any, None), Some((Uuid::nil(), Uuid::max())));
        assert_eq!(range(&any, Some(id(7))), Some((Uuid::nil(), Uuid::from_u128(6))));
        assert_eq!(range(&any, Some(id(0))), None);
        let time = windlass_core::Timestamp::from_timestamp_millis(5).unwrap_or_default();
        let since = JobFilter { created_after: Some(time), ..any.clone() };
        assert_eq!(range(&since, Some(id(7))), None);
        let until = JobFilter { created_before: Some(time), ..any };
        assert_eq!(range(&until, Some(id(7))), Some((Uuid::nil(), Uuid::from_u128(6))));
        assert_eq!(range(&until, None), Some((Uuid::nil(), Uuid::from_u128((5 << 80) - 1))));
    }

    #[test]
    fn a_page_ends_at_its_limit_and_at_large_results() {
        let small = [(id(3), 1), (id(2), 1), (id(1), 1)];
        assert_eq!(page(&small, 3), Found { ids: vec![id(3), id(2), id(1)], next: None });
        assert_eq!(page(&small, 2), Found { ids: vec![id(3), id(2)], next: Some(id(2)) });
        let large = [(id(3), RESULTS + 1), (id(2), 1)];
        assert_eq!(page(&large, 2), Found { ids: vec![id(3)], next: Some(id(3)) });
    }

    #[test]
    fn side_tables_are_used_where_they_have_all() {
        assert_eq!(side_tables(&[]), None);
        assert_eq!(side_tables(&[State::Dead, State::Queued]), None);
        assert_eq!(side_tables(&[State::Retrying, State::Dead, State::Scheduled]), Some(vec!["dead", "due"]));
    }
}
