#![no_main]
//! The header `Idempotency-Key`.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| windlass_api::fuzzing::key(bytes));
