#![no_main]
//! Cursors of lists.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| windlass_api::fuzzing::cursor(text));
