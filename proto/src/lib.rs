//! The Windlass API over gRPC: messages, clients and services, generated from `api/proto`.
//!
//! Messages that stand for bodies of the HTTP API can be written as its JSON, or read from it.

mod json;

use std::fmt;

pub use crate::json::iso_8601;

/// Without the secret.
impl fmt::Debug for v1::WebhookWithSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WebhookWithSecret");
        shown.field("webhook", &self.webhook).field("secret", &"whsec_***").finish()
    }
}

/// The package `windlass.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    elided_lifetimes_in_paths,
    clippy::all,
    reason = "it is generated, and what the file says of it is here as well"
)]
pub mod v1 {
    tonic::include_proto!("windlass.v1");

    /// The file and what it imports, encoded, as reflection tells it.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("windlass");
}

#[cfg(test)]
mod tests {
    use super::v1::WebhookWithSecret;

    #[test]
    fn secrets_are_not_shown() {
        let told = WebhookWithSecret { webhook: None, secret: "whsec_hunter2".into() };
        for shown in [format!("{told:?}"), format!("{told:#?}")] {
            assert!(shown.contains("whsec_***") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
