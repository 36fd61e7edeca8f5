use std::fmt::Display;

use windlass_core::Message;

/// Reads a message of `lane`. None for bytes that are none, or one of another format version: the log and the metric
/// have been told, and the driver is to drop it. No redelivery makes it readable; if it was a job's, the store publishes
/// it again, in the format of whoever does so.
pub(crate) fn read(broker: &'static str, lane: &dyn Display, bytes: &[u8]) -> Option<Message> {
    Message::decode(bytes)
        .inspect_err(|error| {
            let size = bytes.len();
            tracing::warn!(broker, %lane, size, %error, "dropped a message that cannot be read");
            metrics::counter!("windlass_messages_set_aside_total", "broker" => broker).increment(1);
        })
        .ok()
}
