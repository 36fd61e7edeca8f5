use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn key(unique: &Unique, payload: &str) -> [u8; 32] {
    unique.key_of(&job("mail", payload))
}

fn job(kind: &str, payload: &str) -> NewJob {
    NewJob::new(kind.parse().unwrap(), raw(payload))
}

#[test]
fn tenants_have_keys_of_their_own() {
    let unique = Unique::by_key("k").unwrap();
    let of = |tenant: Option<&str>| {
        let mut job = job("mail", "1");
        job.gating.tenant = tenant.map(|tenant| tenant.parse().unwrap());
        unique.key_of(&job)
    };
    assert_ne!(of(None), of(Some("a")));
    assert_ne!(of(Some("a")), of(Some("b")));
    assert_eq!(of(Some("a")), of(Some("a")));
}

#[test]
fn fields_decide_and_their_form_does_not() {
    let unique = Unique::by_fields(["/a", "/b/0"]).unwrap();
    let one = key(&unique, r#"{"a": {"x": 1, "y": [2]}, "b": ["q"], "c": 1}"#);
    assert_eq!(one, key(&unique, r#"{"c":2,"b":["q",7],"a":{"y":[2],"x":1}}"#));
    for other in [
        r#"{"a": {"x": 1, "y": [2]}, "b": ["r"]}"#,
        r#"{"a": {"x": 1}, "b": ["q"]}"#,
        r#"{"a": {"x": 1, "y": 2}, "b": ["q"]}"#,
        r#"{"b": ["q"]}"#,
        "1",
    ] {
        assert_ne!(one, key(&unique, other), "{other}");
    }
    assert_eq!(
        key(&unique, r#"{"a": null, "b": []}"#),
        key(&unique, "{}"),
        "what is not there counts as null"
    );
    assert_ne!(one, unique.key_of(&job("other", r#"{"a": {"x": 1, "y": [2]}, "b": ["q"]}"#)));
    let swapped = Unique::by_fields(["/a", "/b"]).unwrap();
    assert_ne!(key(&swapped, r#"{"a": "1", "b": null}"#), key(&swapped, r#"{"a": null, "b": "1"}"#));
}

#[test]
fn uses_of_one_key_are_kept_apart() {
    let minute = Duration::from_secs(60);
    let uses = [Unique::by_key("k"), Unique::debounce("k", minute), Unique::throttle("k", minute)];
    let keys: std::collections::BTreeSet<_> = uses.iter().map(|u| key(u.as_ref().unwrap(), "1")).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(
        key(&Unique::by_key("k").unwrap(), "1"),
        key(&Unique::by_key("k").unwrap().within(minute), "2")
    );
}

#[test]
fn what_cannot_work_is_refused() {
    let none: [&str; 0] = [];
    assert_eq!(Unique::by_fields(none), Err(InvalidUnique::Fields));
    assert_eq!(Unique::by_fields(vec!["/a"; 17]), Err(InvalidUnique::Fields));
    assert_eq!(Unique::by_fields(["a"]), Err(InvalidUnique::Pointer));
    for key in [String::new(), "k".repeat(256)] {
        assert_eq!(Unique::by_key(key.clone()), Err(InvalidUnique::Key));
        assert_eq!(Unique::throttle(key, Duration::ZERO), Err(InvalidUnique::Key));
    }
}

#[test]
fn a_debounced_start_moves_up_to_the_longest_wait() {
    let minutes = |n: i64| Timestamp::UNIX_EPOCH + chrono::TimeDelta::minutes(n);
    let unique = Unique::debounce("k", Duration::from_secs(120)).unwrap();
    assert_eq!(unique.start(minutes(0), minutes(9)), Some(minutes(11)));
    let unique = unique.max_wait(Duration::from_secs(600));
    assert_eq!(unique.start(minutes(0), minutes(7)), Some(minutes(9)));
    assert_eq!(unique.start(minutes(0), minutes(9)), Some(minutes(10)));
    assert_eq!(
        Unique::debounce("k", Duration::MAX).unwrap().start(minutes(0), minutes(0)).map(|t| t > minutes(9)),
        Some(true)
    );
}

fn holders() -> impl Strategy<Value = KeyHolder> {
    let state = prop::option::of(prop::sample::select(State::ALL.to_vec()));
    (state, any::<bool>(), prop::option::of(-5i64..5)).prop_map(|(state, claimed, until)| KeyHolder {
        id: JobId::new(),
        state,
        claimed,
        until: until.map(|s| Timestamp::UNIX_EPOCH + chrono::TimeDelta::seconds(s)),
        created_at: Timestamp::UNIX_EPOCH,
    })
}

proptest! {
    /// The rules in other words: who is over holds nothing unless its period lasts, and what has been claimed is never changed.
    #[test]
    fn verdicts(
        holder in holders(),
        on in prop::sample::select(vec![OnConflict::Existing, OnConflict::Replace, OnConflict::ReplaceAll, OnConflict::Refuse]),
    ) {
        let now = Timestamp::UNIX_EPOCH;
        let verdict = Unique::by_key("k").unwrap().on_conflict(on).judge(&holder, now);
        let over = holder.state.is_none_or(State::is_terminal);
        match holder.until {
            Some(until) => prop_assert_eq!(verdict == KeyVerdict::Take, until <= now),
            None => prop_assert_eq!(verdict == KeyVerdict::Take, over),
        }
        if verdict == KeyVerdict::Replace {
            prop_assert!(!over && !holder.claimed);
        }
        if verdict == KeyVerdict::Refuse {
            prop_assert_eq!(on, OnConflict::Refuse);
        }
    }
}
