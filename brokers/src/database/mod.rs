//! No broker at all: messages wait in a table of the database, Postgres or SQLite, that is there anyway.
//!
//! Whatever the database, a *parcel* is a row with messages of one lane. A subscription takes free parcels by writing
//! its name and a time on them, and removes them as their messages are acknowledged. The time is put off as long as
//! the subscription lives; parcels of a process that died are free again after it.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod subscription;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Error;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

#[cfg(feature = "postgres")]
pub(crate) use postgres::open as open_postgres;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::open as open_sqlite;
use subscription::DatabaseSubscription;

/// How long a call waits for the database.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a parcel stays with a subscription that is not heard of.
const LEASE: Duration = Duration::from_secs(30);
/// How often living subscriptions put that off, and dead ones are looked for.
const RENEWAL: Duration = Duration::from_secs(8);
/// How often an idle subscription looks by itself, should no word reach it.
const POLL: Duration = Duration::from_secs(1);

/// Messages of one lane that a subscription has taken.
#[derive(Debug)]
struct Parcel {
    id: i64,
    messages: Vec<Vec<u8>>,
}

/// What a subscription wants changed in the parcels it holds.
#[derive(Debug, Default)]
struct Changes {
    /// Settled altogether.
    gone: Vec<i64>,
    /// Settled in part: what is left.
    shrunk: HashMap<i64, Vec<Vec<u8>>>,
    /// Given back as they are.
    freed: Vec<i64>,
    /// Given back in part, by lane.
    returned: Vec<(Lane, Vec<Vec<u8>>)>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.shrunk.is_empty() && self.freed.is_empty() && self.returned.is_empty()
    }
}

/// The statements of one kind of database. Each call is one transaction.
#[async_trait]
trait Table: fmt::Debug + Send + Sync + 'static {
    /// What the kind is called in metrics.
    fn kind(&self) -> &'static str;

    /// Adds messages, all or none.
    async fn put(&self, lanes: &[(Lane, Vec<Vec<u8>>)]) -> Result<(), Error>;

    /// Takes messages for `holder`: from each lane up to as many as it says, and what the lanes before it have left of
    /// theirs.
    async fn take(&self, holder: Uuid, lanes: &[(Lane, usize)]) -> Result<Vec<(Lane, Parcel)>, Error>;

    /// Writes `changes` of `holder` down; parcels it has lost are left alone.
    async fn settle(&self, holder: Uuid, changes: &Changes) -> Result<(), Error>;

    /// Frees whatever `holder` has, except these parcels.
    async fn abandon(&self, holder: Uuid, except: &[i64]) -> Result<(), Error>;

    /// Puts the end of these holders' leases off, and frees what holders not heard of have left.
    async fn renew(&self, holders: &[Uuid]) -> Result<(), Error>;

    async fn depth(&self, lane: &Lane) -> Result<u64, Error>;

    async fn delete(&self, lanes: &[Lane]) -> Result<(), Error>;

    async fn ping(&self) -> Result<(), Error>;

    /// What to do about an error: wait, or mend a setting.
    fn classify(&self, error: Error) -> BrokerError;

    /// Calls `listeners` when other processes have put or freed something, until dropped.
    async fn listen(&self, listeners: &Listeners);

    async fn close(&self);
}

/// A database as a broker.
pub(crate) struct Database {
    shared: Arc<Shared>,
    runtime: Handle,
}

/// What subscriptions need of their broker.
#[derive(Debug)]
struct Shared {
    table: Box<dyn Table>,
    listeners: Listeners,
    closed: CancellationToken,
    tasks: TaskTracker,
    /// The task that listens and renews runs once there is a subscription.
    attending: Mutex<bool>,
}

/// Living subscriptions, and how to wake them. A lock suffices: it is never held across an await.
#[derive(Debug, Default)]
struct Listeners(Mutex<HashMap<Uuid, Listener>>);

#[derive(Debug)]
struct Listener {
    lanes: Vec<Lane>,
    wake: Arc<Notify>,
}

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those to whom a lane with this name matters.
    fn wake(&self, lane: &str) {
        for listener in self.lock().values() {
            if listener.lanes.iter().any(|known| known.to_string() == lane) {
                listener.wake.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        self.lock().values().for_each(|listener| listener.wake.notify_one());
    }

    fn holders(&self) -> Vec<Uuid> {
        self.lock().keys().copied().collect()
    }
}

impl Database {
    /// To be called within a Tokio runtime.
    fn new(table: impl Table) -> Self {
        let shared = Shared {
            table: Box::new(table),
            listeners: Listeners::default(),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
            attending: Mutex::new(false),
        };
        Self { shared: Arc::new(shared), runtime: Handle::current() }
    }

    fn open(&self) -> Result<&Shared, BrokerError> {
        if self.shared.closed.is_cancelled() { Err(BrokerError::Closed) } else { Ok(&self.shared) }
    }

    fn attend(&self) {
        let mut attending = self.shared.attending.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *attending, true) {
            // It must not keep the broker alive: it ends with it.
            let (shared, closed) = (Arc::downgrade(&self.shared), self.shared.closed.clone());
            let task = async move {
                let Some(shared) = shared.upgrade() else { return };
                tokio::join!(shared.table.listen(&shared.listeners), shared.renew_leases());
            };
            self.runtime.spawn(async move { closed.run_until_cancelled(task).await });
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl Shared {
    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, BrokerError> {
        match timeout(DEADLINE, call).await {
            Ok(answer) => answer.map_err(|error| self.table.classify(error)),
            Err(_) => Err(BrokerError::Timeout(DEADLINE)),
        }
    }

    async fn renew_leases(&self) {
        let mut ticks = interval(RENEWAL);
        loop {
            ticks.tick().await;
            if let Err(error) = self.table.renew(&self.listeners.holders()).await {
                tracing::debug!(%error, "leases on messages not renewed; they may come again");
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.table.fmt(f)
    }
}

#[async_trait]
impl Broker for Database {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        let mut lanes: HashMap<&Lane, Vec<Vec<u8>>> = HashMap::new();
        for message in messages {
            lanes.entry(&message.lane).or_default().push(message.encode());
        }
        let lanes: Vec<_> = lanes.into_iter().map(|(lane, bytes)| (lane.clone(), bytes)).collect();
        let put = async {
            let shared = self.open()?;
            shared.call(shared.table.put(&lanes)).await?;
            lanes.iter().for_each(|(lane, _)| shared.listeners.wake(&lane.to_string()));
            Ok(())
        };
        let answer: Result<(), BrokerError> = if lanes.is_empty() { Ok(()) } else { put.await };
        messages.iter().map(|_| answer.as_ref().map_err(again).copied()).collect()
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let shared = self.open()?;
        match shared.call(shared.table.ping()).await {
            // An outage is no reason to refuse: the subscription takes up when the database is back.
            Err(error) if !error.retryable() => return Err(error),
            _ => {}
        }
        self.attend();
        let runtime = self.runtime.clone();
        Ok(Box::new(DatabaseSubscription::new(
            Arc::clone(&self.shared),
            runtime,
            lanes,
            capacity,
            priorities,
        )))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        let shared = self.open()?;
        shared.call(shared.table.depth(lane)).await.map(Some)
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        let shared = self.open()?;
        shared.call(shared.table.delete(lanes)).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let shared = self.open()?;
        shared.call(shared.table.ping()).await
    }

    async fn close(&self) {
        let shared = &self.shared;
        shared.closed.cancel();
        let give_back = async {
            for holder in shared.listeners.holders() {
                // Otherwise their leases run out.
                let _ = shared.table.abandon(holder, &[]).await;
            }
            shared.tasks.close();
            shared.tasks.wait().await;
            shared.table.close().await;
        };
        let _ = timeout(DEADLINE, give_back).await;
    }
}

/// The same error for another message of the batch.
fn again(error: &BrokerError) -> BrokerError {
    match error {
        BrokerError::Unavailable(source) => BrokerError::Unavailable(source.to_string().into()),
        BrokerError::Timeout(after) => BrokerError::Timeout(*after),
        BrokerError::Refused(why) => BrokerError::Refused(why.clone()),
        BrokerError::Config { problem, remedy } => {
            BrokerError::Config { problem: problem.clone(), remedy: remedy.clone() }
        }
        BrokerError::Closed => BrokerError::Closed,
    }
}
