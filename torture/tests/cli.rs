//! What needs no servers.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn torture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_windlass-torture")).args(arguments).output().unwrap()
}

fn plan(arguments: &[&str]) -> String {
    let output = torture(&[&["plan"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_seed_is_a_schedule() {
    let seven = plan(&["--seed", "7"]);
    assert!(seven.lines().count() > 10, "{seven}");
    assert_eq!(seven, plan(&["--seed", "7"]));
    assert_ne!(seven, plan(&["--seed", "8"]));
}

#[test]
fn only_what_is_asked_for_is_done() {
    let plan = plan(&["--faults", "kill", "--time", "300s"]);
    assert!(plan.lines().count() > 0 && plan.lines().all(|line| line.contains("kill")), "{plan}");
}

#[test]
fn a_run_that_cannot_be_is_no_broken_rule() {
    assert_eq!(torture(&["run", "--rate", "0/s"]).status.code(), Some(2));
    assert_eq!(torture(&["check", "/nowhere"]).status.code(), Some(2));
}
