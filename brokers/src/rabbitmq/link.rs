use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use windlass_core::Lane;

use super::DEADLINE;
use super::address::Address;
use super::problem::Problem;

/// Batches that may be under way at once, each on a channel of its own.
const PUBLISHERS: usize = 64;
/// How often to look at the connection's state, for the ends that the library announces to nobody.
const LOOK: Duration = Duration::from_secs(1);

/// One connection while it lasts. What is known only as long as the connection stands lives here, and so is
/// forgotten with it.
pub(super) struct Link {
    connection: Connection,
    /// Lanes known to exist.
    declared: Mutex<HashSet<Lane>>,
    /// Channels in confirm mode that no batch uses.
    idle: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

/// A channel lent to one batch. Unless [given back](Self::give_back), it is closed.
pub(super) struct Publisher<'a> {
    pub(super) channel: Channel,
    link: &'a Link,
    _permit: SemaphorePermit<'a>,
}

impl Link {
    pub(super) async fn open(address: &Address, purpose: &str) -> Result<Arc<Self>, Problem> {
        let name = format!("windlass {purpose} {}", std::process::id());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime =
            lapin::runtime::default_runtime().map_err(|error| Problem::Outage(error.to_string()))?;
        let connect = Connection::connect_uri_with_config(address.uri(), properties, address.tls(), runtime);
        let connection = match timeout(DEADLINE, connect).await {
            Ok(connection) => connection.map_err(|error| Problem::connecting(&error, address))?,
            Err(_) => return Err(Problem::Outage(format!("{address} did not answer within {DEADLINE:?}"))),
        };
        Ok(Arc::new(Self {
            connection,
            declared: Mutex::default(),
            idle: Mutex::default(),
            permits: Semaphore::new(PUBLISHERS),
        }))
    }

    pub(super) fn connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker, short of memory or disk, reads nothing from this connection.
    pub(super) fn blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Waits until the connection is lost, and answers why.
    pub(super) async fn lost(&self) -> String {
        let mut events = std::pin::pin!(self.connection.events_listener());
        let mut reason = None;
        loop {
            // Cancel-safe: an event is either taken or stays in the listener.
            if let Ok(Some(Event::Error(error))) = timeout(LOOK, events.next()).await {
                reason = Some(error.to_string());
            }
            if !self.connected() {
                return reason.unwrap_or_else(|| "closed by the broker".into());
            }
        }
    }

    pub(super) async fn close(&self) {
        // It is as good as closed when this fails.
        let _ = timeout(DEADLINE, self.connection.close(200, "closing".into())).await;
    }

    /// A new channel. It closes when its last clone is dropped.
    pub(super) async fn channel(&self) -> Result<Channel, Problem> {
        Ok(self.connection.create_channel().await?)
    }

    /// A channel for one batch: confirms and returned messages on it concern that batch alone.
    pub(super) async fn publisher(&self) -> Result<Publisher<'_>, Problem> {
        let permit = self.permits.acquire().await.map_err(|_| Problem::Closed)?;
        let idle = self.idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => {
                let channel = self.channel().await?;
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                channel
            }
        };
        Ok(Publisher { channel, link: self, _permit: permit })
    }

    /// Lanes known to exist on this connection's broker. The lock is never held across an await.
    pub(super) fn declared(&self) -> MutexGuard<'_, HashSet<Lane>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publisher<'_> {
    /// Keeps the channel for the next batch. Only for a batch whose every confirm has come.
    pub(super) fn give_back(self) {
        self.link.idle().push(self.channel);
    }
}
