use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{JobId, JobRecord, Kind, QueueName, State, Tenant, Timestamp};

/// Which jobs: those that fit all that is given; the default fits every job.
///
/// Jobs are ordered by their ids, and so are lists of them. An id holds the time at which it was made, in milliseconds,
/// by the clock of the process that accepted the job; that is what `created_after` and `created_before` look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobFilter {
    /// Of this queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueName>,
    /// Of this kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// In one of these states; none means any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<State>,
    /// With all of these labels, by name and value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Made at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_after: Option<Timestamp>,
    /// Made before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Timestamp>,
}

impl JobFilter {
    /// Whether the job is one of those meant.
    #[must_use]
    pub fn fits(&self, job: &JobRecord) -> bool {
        let (least, below) = self.ids();
        least.is_none_or(|least| job.id >= least)
            && below.is_none_or(|below| job.id < below)
            && self.queue.as_ref().is_none_or(|queue| *queue == job.queue)
            && self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            && (self.states.is_empty() || self.states.contains(&job.state))
            && (self.tenant.is_none() || self.tenant == job.gating.tenant)
            && self.labels.iter().all(|(name, value)| job.labels.get(name) == Some(value))
    }

    /// The ids among which the jobs are, as far as the times limit them: the least, and the one that all are below.
    #[must_use]
    pub fn ids(&self) -> (Option<JobId>, Option<JobId>) {
        (self.created_after.map(JobId::least_at), self.created_before.map(JobId::least_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_timestamp_micros(micros).unwrap()
    }

    #[test]
    fn ids_follow_the_time_in_them() {
        let id = JobId::new();
        let millis = i64::from_str_radix(&id.as_uuid().simple().to_string()[..12], 16).unwrap();
        assert!(JobId::least_at(at(millis * 1000 + 999)) <= id, "milliseconds are all that an id has");
        assert!(JobId::least_at(at((millis + 1) * 1000)) > id);
        assert_eq!(JobId::least_at(at(-1)), uuid::Uuid::nil().into());
        assert!(JobId::least_at(Timestamp::MAX_UTC) > id);
    }

    #[test]
    fn no_times_no_bounds() {
        assert_eq!(JobFilter::default().ids(), (None, None));
    }
}
