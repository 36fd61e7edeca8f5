use std::{collections::BTreeSet, path::Path};

use super::{document::document, operations::operations};

const FILE: &str = "openapi.json";

#[test]
fn the_file_is_what_the_code_says() {
    let written = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = there.lines().zip(written.lines()).position(|(there, written)| there != written);
    assert!(
        there == written,
        "{FILE} is not what the code says from line {} on; write it anew:\n\
         WRITE_OPENAPI=1 cargo test -p windlass-api --lib openapi",
        differs.map_or(0, |at| at + 1)
    );
}

#[test]
fn every_route_is_described_and_nothing_else_is() {
    let named = |method: &axum::http::Method, path: &str| format!("{method} {path}");
    let routes: BTreeSet<String> =
        crate::routes().iter().map(|route| named(&route.method, route.path)).collect();
    let described: BTreeSet<String> =
        operations().iter().map(|operation| named(&operation.method, operation.path)).collect();
    assert_eq!(described, routes);
}
