//! `#[job(version = …, upgrade = …)]`.
#![allow(clippy::unwrap_used, reason = "tests")]

use windlass::{JsonValue, UpgradeError, prelude::*};

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "greet", version = 3, upgrade = older)]
struct Greet {
    name: String,
}

fn older(from: u16, payload: JsonValue) -> Result<JsonValue, UpgradeError> {
    match from {
        1 | 2 => Ok([("name".to_owned(), payload)].into_iter().collect()),
        _ => Err("no such version".into()),
    }
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "plain")]
struct Plain {}

#[test]
fn the_derive_sets_version_and_upgrade() {
    assert_eq!((Greet::VERSION, Plain::VERSION), (3, 1));
    let upgraded = Greet::upgrade(1, JsonValue::String("Ada".into())).unwrap();
    let greet: Greet = serde_json::from_value(upgraded).unwrap();
    assert_eq!(greet.name, "Ada");
    assert!(Greet::upgrade(7, JsonValue::Null).is_err());
    let refused = Plain::upgrade(0, JsonValue::Null).unwrap_err().to_string();
    assert!(refused.contains("plain") && refused.contains("version 0"), "{refused}");
}
