#![no_main]
//! Messages, as brokers deliver them.

use libfuzzer_sys::fuzz_target;
use windlass_core::Message;

fuzz_target!(|bytes: &[u8]| {
    // Each message has one form, so what can be read is what would be written.
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
});
