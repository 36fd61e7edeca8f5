//! What `#[derive(Job)]` makes of its attribute.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{error::Error, time::Duration};

use windlass::{OnConflict, Unique, prelude::*};

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "plain")]
struct Plain {}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "linear", queue = "mail", max_attempts = 8, timeout = "30s", retry = linear("10s"), retry_cap = "25s", result_ttl = "1h")]
struct Linear {}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "fixed", retry = fixed("1m"))]
struct Fixed {}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "exponential", retry = exponential("2s"))]
struct Exponential {}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "based", retry_base = "2s", retry_cap = "3s")]
struct Based {}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "custom", retry = RetryPolicy::custom(seven_times).cap(Duration::from_secs(20)))]
struct Custom {}

fn seven_times(attempt: u32, _: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
    (attempt < 7).then(|| Duration::from_secs(u64::from(attempt) * 10))
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "synced", unique(fields(customer, "/place/region"), within = "1h", on_conflict = "replace"))]
struct Synced {
    customer: u32,
    place: Place,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct Place {
    region: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "renamed", unique(fields("/customerId", r#type), on_conflict = "refuse"))]
struct Renamed {
    #[serde(rename = "customerId")]
    customer: u32,
    r#type: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "whole", unique)]
enum Whole {
    One,
}

#[test]
fn unique_becomes_a_rule() {
    let place = Place { region: "n".into() };
    let synced = Synced { customer: 1, place, note: String::new() };
    let rule = Unique::by_fields(["/customer", "/place/region"]).unwrap();
    let rule = rule.within(Duration::from_secs(3600)).on_conflict(OnConflict::Replace);
    assert_eq!(synced.unique().unwrap(), Some(rule));
    let rule = Unique::by_fields(["/customerId", "/type"]).unwrap().on_conflict(OnConflict::Refuse);
    assert_eq!(Renamed { customer: 1, r#type: "t".into() }.unique().unwrap(), Some(rule));
    assert_eq!(Whole::One.unique().unwrap(), Some(Unique::by_fields([""]).unwrap()));
    assert_eq!(Plain {}.unique().unwrap(), None);
}

/// The longest waits after the first and the third failure, in seconds.
fn waits<J: Job>() -> [Option<u64>; 2] {
    let error = std::io::Error::other("refused");
    [1, 3].map(|attempt| J::RETRY.ceiling(attempt, &error).map(|wait| wait.as_secs()))
}

#[test]
fn what_is_left_out_is_the_default() {
    assert_eq!(
        (Plain::KIND, Plain::QUEUE, Plain::MAX_ATTEMPTS, Plain::TIMEOUT),
        ("plain", "default", 20, None)
    );
    assert_eq!(waits::<Plain>(), [Some(5), Some(20)]);
}

#[test]
fn keys_become_constants() {
    assert_eq!((Linear::QUEUE, Linear::MAX_ATTEMPTS), ("mail", 8));
    assert_eq!(Linear::TIMEOUT, Some(Duration::from_secs(30)));
    assert_eq!((Linear::RESULT_TTL, Plain::RESULT_TTL), (Some(Duration::from_secs(3600)), None));
}

#[test]
fn every_retry_policy_can_be_named() {
    assert_eq!(waits::<Linear>(), [Some(10), Some(25)]);
    assert_eq!(waits::<Fixed>(), [Some(60), Some(60)]);
    assert_eq!(waits::<Exponential>(), [Some(2), Some(8)]);
    assert_eq!(waits::<Based>(), [Some(2), Some(3)]);
    assert_eq!(waits::<Custom>(), [Some(10), Some(20)]);
    assert!(Custom::RETRY.ceiling(7, &std::io::Error::other("refused")).is_none());
}
