//! What instances share in a Redis, beside the store. It need not be there: without it, everything is as true, and takes
//! longer or is counted by each for itself.

#[cfg(feature = "redis")]
mod connection;
#[cfg(feature = "redis")]
mod entry;
#[cfg_attr(not(feature = "redis"), path = "not_built.rs")]
mod reads;

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use windlass_core::SystemId;

#[cfg(feature = "redis")]
pub use self::connection::SharedRedis;
pub(crate) use self::reads::Sharing;

/// A Redis in which instances keep jobs that are over, for reads by all of them. While it does not answer, the store does.
#[derive(Clone)]
pub struct SharedReads(Arc<reads::Place>);

impl SharedReads {
    /// At a `redis://` or `rediss://` URL, which it connects to when there is something to read. A job is kept there for `keep`
    /// at most.
    ///
    /// # Errors
    /// A URL that can never work, or a build that cannot speak with Redis.
    pub fn open(url: &str, keep: Duration) -> Result<Self, SharedUrlError> {
        reads::Place::open(url, keep).map(|place| Self(Arc::new(place)))
    }
}

impl fmt::Debug for SharedReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL, which may hold a password.
        f.write_str("SharedReads")
    }
}

/// Whether the Redis at a `shared_url` can be reached within `patience`, and how long that took.
///
/// # Errors
/// What is in the way, for people, without the password.
pub async fn reach_shared(url: &str, patience: Duration) -> Result<Duration, String> {
    #[cfg(feature = "redis")]
    return match SharedRedis::open(url, "") {
        Ok(redis) => redis.reach(patience).await,
        Err(error) => Err(error.to_string()),
    };
    #[cfg(not(feature = "redis"))]
    {
        let _ = (url, patience);
        Err(SharedUrlError::NotBuilt.to_string())
    }
}

/// A `shared_url` that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SharedUrlError {
    /// It is no URL of a Redis server.
    #[error(
        "shared_url is not a valid Redis URL; write it as redis://user:password@host:6379/0 (rediss:// for TLS), with \
         special characters in user and password percent-encoded"
    )]
    Url,
    /// It asks for TLS without a check of the certificate.
    #[error(
        "shared_url asks for TLS without a check of the certificate; remove `#insecure`, and name a file with the \
         server's authority in the environment variable SSL_CERT_FILE"
    )]
    Insecure,
    /// This build cannot speak with Redis.
    #[error("shared_url needs the cargo feature `redis`, which this build does not have; build with it")]
    NotBuilt,
}

/// What begins the names of everything that a system keeps in a Redis, so that several can share one. It gives nothing away
/// of the system's secret.
#[must_use]
pub fn namespace(system: &SystemId) -> String {
    let digest = Sha256::new().chain_update("windlass namespace\0").chain_update(system.expose()).finalize();
    let digits: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("windlass:{digits}")
}
