//! What `#[derive(Job)]` finds of a payload's JSON Schema.
#![cfg(feature = "schema")]

use schemars::JsonSchema;
use windlass::{prelude::*, schemars};

#[derive(Serialize, Deserialize, JsonSchema, Job)]
#[job(kind = "typed")]
#[serde(deny_unknown_fields)]
struct Typed {
    to: String,
    #[serde(default)]
    copies: u8,
}

#[derive(Serialize, Deserialize, Job)]
#[job(kind = "plain")]
struct Plain {
    to: String,
}

#[test]
fn a_schema_is_found_where_there_is_one() {
    let schema = Typed::schema().expect("it has one");
    assert_eq!(schema["properties"]["to"]["type"], "string");
    assert_eq!(schema["required"], serde_json::json!(["to"]), "as it is read, a default is not required");
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(Plain::schema(), None);
    // Their fields are read by nobody else.
    let _ = (Typed { to: String::new(), copies: 0 }.copies, Plain { to: String::new() }.to);
}
