//! Rates that all instances count together, in Redis. It need not be there: an instance without it counts by itself.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, Script,
    aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};

use super::{
    SharedRatesError,
    gcra::{Gcra, Verdict},
    table::Key,
};

/// How long Redis is left alone once it has failed.
const RETRY: Duration = Duration::from_secs(1);

/// A connection to Redis, made when it is needed.
pub(super) struct Shared {
    client: Client,
    /// Without the login.
    address: String,
    take: Script,
    /// How long a request waits.
    patience: Duration,
    state: Mutex<State>,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    /// Whether the last attempt failed. Said when it begins and when it ends.
    down: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    failed_at: Option<Instant>,
}

impl Shared {
    pub(super) fn open(url: &str, patience: Duration) -> Result<Self, SharedRatesError> {
        // What the library says may quote the URL, password and all.
        let invalid = |_: RedisError| SharedRatesError::Url;
        let info = url.parse::<ConnectionInfo>().map_err(invalid)?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(SharedRatesError::Insecure),
            ConnectionAddr::TcpTls { .. } => {
                // The library takes the process's choice, and panics where there is none.
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            _ => {}
        }
        let address = format!("{}/{}", info.addr(), info.redis_settings().db());
        Ok(Self {
            client: Client::open(info).map_err(invalid)?,
            address,
            take: Script::new(include_str!("take.lua")),
            patience,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            down: AtomicBool::new(false),
        })
    }

    /// Counts a request. `None`: Redis does not answer.
    pub(super) async fn take(&self, limit: &str, key: Key, gcra: &Gcra) -> Option<Verdict> {
        // Redis tells the time in microseconds. Rounded up, so that there are never more than the rate allows.
        let interval = gcra.interval.div_ceil(1000);
        let gcra = Gcra { interval: interval * 1000, ..*gcra };
        let digits = u128::from_be_bytes(key);
        let mut call = self.take.key(format!("windlass:rate:{limit}:{digits:032x}"));
        call.arg(interval).arg(interval.saturating_mul(gcra.capacity));
        let mut connection = self.connection().await?;
        match timeout(self.patience, call.invoke_async::<u64>(&mut connection)).await {
            Ok(Ok(ahead)) => {
                if self.down.swap(false, Ordering::Relaxed) {
                    tracing::info!(
                        redis = self.address,
                        "Redis answers again: all instances count rates together"
                    );
                }
                Some(gcra.decide(ahead.saturating_mul(1000), 0).0)
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed(&"no answer in time"),
        }
    }

    /// The connection that stands, or a new one. Only the first requests of all wait for that, so as to be counted there.
    async fn connection(&self) -> Option<MultiplexedConnection> {
        if let Some(connection) = self.state().connection.clone() {
            return Some(connection);
        }
        let _connecting = match self.down.load(Ordering::Relaxed) {
            true => self.connecting.try_lock().ok()?,
            false => self.connecting.lock().await,
        };
        {
            let state = self.state();
            if state.connection.is_some() {
                return state.connection.clone();
            }
            if state.failed_at.is_some_and(|at| at.elapsed() < RETRY) {
                return None;
            }
        }
        // One deadline for all of it, set around the whole.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        match timeout(self.patience, self.client.get_multiplexed_async_connection_with_config(&config)).await
        {
            Ok(Ok(connection)) => {
                self.state().connection = Some(connection.clone());
                Some(connection)
            }
            Ok(Err(error)) => self.failed(&error),
            Err(_) => self.failed(&"no answer in time"),
        }
    }

    fn failed<T>(&self, error: &dyn fmt::Display) -> Option<T> {
        *self.state() = State { connection: None, failed_at: Some(Instant::now()) };
        if !self.down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                redis = self.address, %error,
                "Redis does not answer: each instance counts rates by itself until it does; check shared_url"
            );
        }
        None
    }

    /// The lock is never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
