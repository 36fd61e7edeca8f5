use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use windlass_core::{Lane, Message, OutboxGroup, Timestamp};

/// By how much the clocks of those who make jobs may be ahead of this machine's.
const AHEAD: TimeDelta = TimeDelta::minutes(1);

/// How far this process has come in its lanes. By that the relay tells a message that was lost from one that waits
/// its turn: brokers keep to the order of publishing, by and large, so whoever is older than what arrives was passed
/// over.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// When the newest job was made of which a message has arrived.
    newest: Mutex<HashMap<Lane, Timestamp>>,
}

impl Arrivals {
    pub(crate) fn note<'a>(&self, messages: impl Iterator<Item = &'a Message>) {
        let latest = Utc::now() + AHEAD;
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        for message in messages {
            // An id that a user's own transaction made up may tell any time, or none.
            let Some(made) = message.job_id.made_at().filter(|made| *made <= latest) else { continue };
            match newest.get_mut(&message.lane) {
                Some(newest) => *newest = made.max(*newest),
                None => drop(newest.insert(message.lane.clone(), made)),
            }
        }
    }

    /// Whether what arrives here was published more than `margin` after a message of this group.
    pub(crate) fn passed_over(&self, group: &OutboxGroup, margin: Duration) -> bool {
        let seconds = |time: Duration| TimeDelta::from_std(time).unwrap_or(TimeDelta::MAX);
        let Some(published) = Utc::now().checked_sub_signed(seconds(group.age)) else { return false };
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        group.messages.iter().any(|message| {
            // The later of the two: a retry is far older than its message, and clocks differ.
            let since = message.job_id.made_at().map_or(published, |made| made.max(published));
            let passed = |newest: &Timestamp| newest.signed_duration_since(since) > seconds(margin);
            newest.get(&message.lane).is_some_and(passed)
        })
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::{JobId, OutboxId, Priority};

    use super::*;

    const MARGIN: Duration = Duration::from_secs(30);

    fn lane(queue: &str) -> Lane {
        Lane { queue: queue.parse().unwrap(), priority: Priority::Normal }
    }

    /// Of a job made so many seconds ago.
    fn message(seconds: i64, queue: &str) -> Message {
        let least = JobId::least_at(Utc::now() - TimeDelta::seconds(seconds)).to_string();
        Message {
            // As it would have been made then.
            job_id: format!("{}7{}8{}", &least[..14], &least[15..19], &least[20..]).parse().unwrap(),
            attempt: 1,
            lane: lane(queue),
            kind: "test.kind".parse().unwrap(),
            trace: None,
            ordering_key: None,
        }
    }

    /// Made and published at these times, in seconds before now.
    fn group(made: i64, published: u64) -> OutboxGroup {
        let age = Duration::from_secs(published);
        OutboxGroup { id: OutboxId(1), published: true, age, messages: vec![message(made, "mail")] }
    }

    #[test]
    fn what_is_far_older_than_what_arrives_was_passed_over() {
        let arrivals = Arrivals::default();
        assert!(!arrivals.passed_over(&group(600, 600), MARGIN));
        arrivals.note([message(5_000, "mail"), message(100, "mail"), message(900, "mail")].iter());
        assert!(arrivals.passed_over(&group(600, 600), MARGIN));
        assert!(!arrivals.passed_over(&group(120, 120), MARGIN), "within the margin");
        assert!(!arrivals.passed_over(&group(50, 50), MARGIN), "its turn comes later");
    }

    #[test]
    fn a_retry_is_as_old_as_its_message() {
        let arrivals = Arrivals::default();
        arrivals.note([message(100, "mail")].iter());
        assert!(!arrivals.passed_over(&group(86_400, 60), MARGIN));
        assert!(arrivals.passed_over(&group(86_400, 200), MARGIN));
    }

    #[test]
    fn other_lanes_and_ids_without_a_time_that_can_be_tell_nothing() {
        let arrivals = Arrivals::default();
        let mut odd = message(0, "mail");
        odd.job_id = "9f2d0c1e-3b7a-4c55-8a42-0d6a1b3c5e7f".parse().unwrap();
        arrivals.note([message(0, "other"), message(-3_600, "mail"), odd].iter());
        assert!(!arrivals.passed_over(&group(600, 600), MARGIN));
    }
}
