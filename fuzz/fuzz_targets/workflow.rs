#![no_main]
//! Bodies of `POST /v1/workflows`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| windlass_api::fuzzing::workflow(bytes));
