#![no_main]
//! Bodies of `POST /v1/jobs`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| windlass_api::fuzzing::enqueue(bytes));
