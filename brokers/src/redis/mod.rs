//! Redis, 7.0 and later, and what speaks its protocol: one server or a primary with replicas, not a cluster.
//!
//! A lane is a stream with the consumer group `windlass`. An acknowledged entry is deleted, so the stream holds only
//! what is waiting or in someone's hands, and needs no trimming. Redis cannot give an entry back, so a released one is
//! added anew at the end and the old one deleted, in one script: that also wakes whoever waits for messages, which
//! leaving it pending would not. What a dead consumer held is taken over by the others once it has been idle for
//! half a minute; a live consumer touches what it holds more often than that.
//!
//! **A confirmed message is as safe as the server's settings make it.** With `appendonly yes` and `appendfsync always`
//! it is on disk before the confirm. With `appendfsync everysec`, the default, a crash of the machine loses up to a
//! second of messages, one of the server alone none. Without `appendonly`, a restart loses everything since the last
//! snapshot. Jobs are never lost by this: the store publishes again. With a `maxmemory-policy` other than `noeviction`,
//! Redis may throw away lanes when memory is short. The driver warns of both once.
//!
//! The user needs `~windlass.* +@stream +@scripting +unlink +ping +select +info +client|id
//! +client|setname +client|unblock`. Without `info` there is no warning; without `client|unblock` a full
//! worker keeps messages from others for up to two seconds longer.
//!
//! The URL is `redis://user:password@host:6379/0`, or `rediss://` for TLS, its path the number of the database.
//! It takes no parameters. TLS trusts the system's certificates, or those of the file that the environment
//! variable `SSL_CERT_FILE` names.

mod address;
mod entry;
mod group;
mod intake;
mod link;
mod problem;
mod publish;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

use address::Address;
use group::Group;
use intake::Intake;
use link::Link;
use problem::Problem;

use crate::handle::Handle;

/// How long a call waits for the broker.
const DEADLINE: Duration = Duration::from_secs(5);

/// A Redis server.
pub(crate) struct Redis {
    address: Arc<Address>,
    /// For everything but the reading of subscriptions, which block a connection each.
    commands: Arc<Link>,
    /// Set by [`Broker::close`].
    closing: CancellationToken,
    /// One task for each subscription. It ends with the subscription, or by `closing`.
    intakes: TaskTracker,
}

impl Redis {
    /// Knows the broker at `url`; connects when first asked for something.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url)?);
        let commands = Arc::new(Link::new(Arc::clone(&address), "commands"));
        Ok(Self { address, commands, closing: CancellationToken::new(), intakes: TaskTracker::new() })
    }

    fn commands(&self) -> Result<&Link, Problem> {
        if self.closing.is_cancelled() { Err(Problem::Closed) } else { Ok(&self.commands) }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Redis {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        match self.commands() {
            Ok(commands) => publish::publish(commands, messages).await,
            Err(problem) => messages.iter().map(|_| Err(problem.clone().into())).collect(),
        }
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.commands()?;
        let (group, rota) = Group::new(lanes, priorities);
        match group.create(&self.commands).await.map_err(BrokerError::from) {
            // An outage is no reason to refuse: the subscription takes up when the broker is back.
            Err(error) if !error.retryable() => return Err(error),
            _ => {}
        }
        let reader = Arc::new(Link::new(Arc::clone(&self.address), "read"));
        let (handle, desk) = Handle::new(group.lanes.clone(), self.closing.clone());
        let intake = Intake::new(Arc::clone(&self.commands), reader, group, rota, capacity);
        self.intakes.spawn(intake.run(desk));
        Ok(Box::new(handle))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        Ok(Some(group::depth(self.commands()?, lane).await?))
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        let commands = self.commands()?;
        if lanes.is_empty() {
            return Ok(());
        }
        let mut unlink = redis::cmd("UNLINK");
        for lane in lanes {
            unlink.arg(lane.to_string());
        }
        Ok(commands.run(|mut redis| async move { unlink.exec_async(&mut redis).await }).await?)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let ping = |mut redis| async move { redis::cmd("PING").exec_async(&mut redis).await };
        Ok(self.commands()?.run(ping).await?)
    }

    async fn close(&self) {
        self.closing.cancel();
        self.intakes.close();
        // What cannot be given back in time is taken over by others.
        let _ = timeout(DEADLINE, self.intakes.wait()).await;
        self.commands.disconnect();
    }
}
