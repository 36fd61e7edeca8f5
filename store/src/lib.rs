//! The stores: Postgres for production, SQLite for one machine. Both keep to the contract of
//! [`windlass_core::Store`], which the conformance suite checks.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod admission;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod dead;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod find;
#[cfg(feature = "conformance")]
mod intercepted;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod keys;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod kinds;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod leader;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod quotas;
mod retention;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod schedules;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod template;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod timers;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod unique;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod webhooks;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod workflow;

use std::{fmt, sync::Arc, time::Duration};

pub use clock::VirtualClock;
#[cfg(feature = "conformance")]
pub use intercepted::{Call, Intercept, Intercepted};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, PostgresTransaction};
pub use retention::{Keep, Retention};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
use windlass_core::{Store, StoreError};

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The Postgres schema that holds the tables: lower-case letters, digits and `_`.
    pub schema: String,
    /// The most connections to open.
    pub connections: u32,
    /// How long one call may take.
    pub deadline: Duration,
    /// A clock to go by instead of the database's own: for tests.
    pub clock: Option<VirtualClock>,
    /// How long jobs are kept after their end.
    pub retention: Retention,
    /// The URLs of streaming replicas of a Postgres store, for reads that may be a little behind.
    pub replicas: Vec<String>,
    /// How far behind: a replica that is further is not read from.
    pub replica_max_lag: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            schema: "windlass".into(),
            connections: 10,
            deadline: Duration::from_secs(10),
            clock: None,
            retention: Retention::default(),
            replicas: Vec::new(),
            replica_max_lag: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URLs, which hold passwords.
        f.debug_struct("StoreOptions").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// Opens the store that `url` names, by its scheme: `postgres://`, `postgresql://` or `sqlite:`. A Postgres server
/// need not be reachable yet.
///
/// # Errors
/// [`StoreError::Config`] for a URL or option that can never work, or a driver that was not compiled in.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "postgres" | "postgresql" => {
            #[cfg(feature = "postgres")]
            return Ok(Arc::new(PostgresStore::open(url, options)?));
            #[cfg(not(feature = "postgres"))]
            Err(missing("postgres"))
        }
        "sqlite" => {
            if !options.replicas.is_empty() {
                return Err(StoreError::Config {
                    problem: "store_replica_urls names replicas, but store_url is an SQLite file".into(),
                    remedy: "leave store_replica_urls out, or keep jobs in Postgres".into(),
                });
            }
            #[cfg(feature = "sqlite")]
            return Ok(Arc::new(SqliteStore::open(url, options).await?));
            #[cfg(not(feature = "sqlite"))]
            Err(missing("sqlite"))
        }
        // The rest may be a secret that ended up in the wrong place.
        _ => Err(StoreError::Config {
            problem: "store_url has no known scheme".into(),
            remedy: "write postgres://user:password@host/database or sqlite:path/to/file.db".into(),
        }),
    }
}

#[cfg(not(all(feature = "postgres", feature = "sqlite")))]
fn missing(feature: &str) -> StoreError {
    StoreError::Config {
        problem: format!("store_url begins with {feature}:, but this program was built without that store"),
        remedy: format!("build it with the cargo feature `{feature}`"),
    }
}
