//! Who gets the places that are left under quotas.

use std::collections::{HashMap, HashSet};

use windlass_core::{JobId, NewJob};

/// What has been decided of a group's jobs.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    /// Those that take a place.
    pub counted: HashSet<JobId>,
    /// Those for which there is none.
    pub over: HashSet<JobId>,
}

/// Gives the places that tenants have `left` to their jobs, in order. Jobs accepted `before` have been counted then, or
/// not; jobs of tenants that are not in `left` have no quota.
pub(crate) fn decide<'a>(
    jobs: impl IntoIterator<Item = &'a NewJob>,
    mut left: HashMap<String, i64>,
    before: &HashSet<JobId>,
) -> Decided {
    let mut decided = Decided::default();
    for job in jobs {
        let tenant = job.gating.tenant.as_ref();
        let Some(left) = tenant.and_then(|tenant| left.get_mut(tenant.as_str())) else { continue };
        if before.contains(&job.id) || decided.counted.contains(&job.id) {
            continue;
        }
        if *left > 0 {
            *left -= 1;
            decided.counted.insert(job.id);
        } else {
            decided.over.insert(job.id);
        }
    }
    decided
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn job(tenant: Option<&str>) -> NewJob {
        let mut job = NewJob::new("test".parse().unwrap(), RawValue::from_string("1".into()).unwrap());
        job.gating.tenant = tenant.map(|tenant| tenant.parse().unwrap());
        job
    }

    #[test]
    fn places_go_in_order_and_to_each_job_once() {
        let [a, b, c] = [job(Some("acme")), job(Some("acme")), job(Some("acme"))];
        let (other, none) = (job(Some("globex")), job(None));
        let before = job(Some("acme"));
        let group = [&before, &a, &other, &a, &b, &none, &c];
        let left = HashMap::from([("acme".to_owned(), 2)]);
        let decided = decide(group, left, &HashSet::from([before.id]));
        assert_eq!(decided.counted, HashSet::from([a.id, b.id]));
        assert_eq!(decided.over, HashSet::from([c.id]));
    }

    #[test]
    fn a_quota_that_was_lowered_has_none_left() {
        let job = job(Some("acme"));
        let decided = decide([&job], HashMap::from([("acme".to_owned(), -3)]), &HashSet::new());
        assert_eq!((decided.counted.len(), decided.over.len()), (0, 1));
    }
}
