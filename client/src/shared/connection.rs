use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};

use super::SharedUrlError;

/// How long Redis is left alone once it has failed.
const RETRY: Duration = Duration::from_secs(1);
/// How long connecting may take where nobody waits for it.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to the Redis of `shared_url`, made when it is needed. One that fails is left alone for a second.
pub struct SharedRedis {
    client: Client,
    /// Without the login.
    address: String,
    /// What is done as long as it does not answer, for people.
    without: &'static str,
    state: Mutex<State>,
    /// Held while connecting.
    connecting: tokio::sync::Mutex<()>,
    /// Whether a connection is being made that nobody waits for.
    in_background: AtomicBool,
    /// Whether the last attempt failed. Said when it begins and when it ends.
    down: AtomicBool,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    failed_at: Option<Instant>,
}

impl SharedRedis {
    /// For a `redis://` or `rediss://` URL. `without` completes, for the log, "Redis does not answer: …".
    ///
    /// # Errors
    /// A URL that can never work.
    pub fn open(url: &str, without: &'static str) -> Result<Self, SharedUrlError> {
        // What the library says may quote the URL, password and all.
        let invalid = |_: RedisError| SharedUrlError::Url;
        let info = url.parse::<ConnectionInfo>().map_err(invalid)?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => return Err(SharedUrlError::Insecure),
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
            without,
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            in_background: AtomicBool::new(false),
            down: AtomicBool::new(false),
        })
    }

    /// The connection that stands, or a new one. Only the first callers of all wait for that, up to `patience` each.
    pub async fn connection(&self, patience: Duration) -> Option<MultiplexedConnection> {
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
            if state.left_alone() {
                return None;
            }
        }
        match self.connect(patience).await {
            Ok(connection) => {
                self.state().connection = Some(connection.clone());
                Some(connection)
            }
            Err(error) => self.failed(&error),
        }
    }

    /// How long it takes to be let in; or what is in the way, for people.
    pub(super) async fn reach(&self, patience: Duration) -> Result<Duration, String> {
        let begun = Instant::now();
        self.connect(patience).await.map(|_| begun.elapsed())
    }

    async fn connect(&self, patience: Duration) -> Result<MultiplexedConnection, String> {
        // One deadline for all of it, set around the whole.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        match timeout(patience, self.client.get_multiplexed_async_connection_with_config(&config)).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// The connection that stands, at once. Where there is none, one is being made from now on.
    pub fn standing(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        {
            let state = self.state();
            if state.connection.is_some() || state.left_alone() {
                return state.connection.clone();
            }
        }
        if !self.in_background.swap(true, Ordering::Relaxed) {
            let this = self.clone();
            tokio::spawn(async move {
                this.connection(CONNECT).await;
                this.in_background.store(false, Ordering::Relaxed);
            });
        }
        None
    }

    /// What Redis answers within `patience`; `None` if it does not.
    pub async fn answer<T>(
        &self,
        patience: Duration,
        asking: impl Future<Output = RedisResult<T>>,
    ) -> Option<T> {
        match timeout(patience, asking).await {
            Ok(Ok(answer)) => {
                if self.down.swap(false, Ordering::Relaxed) {
                    tracing::info!(redis = self.address, "Redis answers again (setting shared_url)");
                }
                Some(answer)
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
                "Redis does not answer: {}; check shared_url", self.without
            );
        }
        None
    }

    /// The lock is never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn left_alone(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < RETRY)
    }
}

impl fmt::Debug for SharedRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRedis").field("address", &self.address).finish_non_exhaustive()
    }
}
