//! Enqueue jobs from Rust, and the parts that everything which enqueues has in common: grouped accept, publishing
//! after the commit, and the relay for what that fast path could not publish.
//!
//! Users get this crate through `windlass`.

mod arrivals;
mod client;
mod enqueue;
mod envelope;
mod error;
mod feed;
mod fleet;
mod group;
mod keys;
mod kinds;
mod objects;
mod operate;
mod origin;
mod outside;
mod publish;
mod queue_feed;
mod reads;
mod relay;
mod request_rate;
mod schedule;
mod settings;
mod shared;
mod webhooks;
mod workflow;

pub use client::{Accepted, Client, ClientOptions};
pub use enqueue::Enqueue;
pub use envelope::{EncryptionKey, Envelope, EnvelopeError, InvalidKey, Part};
pub use error::ClientError;
pub use feed::JobWatch;
pub use keys::{ApiKey, InvalidApiKey, NoRandomness};
pub use objects::{Objects, ObjectsError};
pub use operate::JobPage;
pub use origin::Origin;
pub use outside::{Allowed, InvalidAllowed, Outside, Refused};
pub use queue_feed::{QueueNews, QueueWatch};
pub use request_rate::{Excess, InvalidRate, Network, ProxyHeader, RequestRate};
pub use settings::{
    ApiAuth, JwtAlgorithm, LogFormat, QueueRetention, SecretUrl, Settings, SettingsError, UnknownKinds,
};
#[cfg(feature = "redis")]
pub use shared::SharedRedis;
pub use shared::{SharedReads, SharedUrlError, namespace, reach_shared};
pub use webhooks::{InvalidWebhookSecret, WebhookSecret};
pub use workflow::Workflow;
