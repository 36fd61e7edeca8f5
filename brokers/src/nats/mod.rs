//! NATS, 2.9 and later, with JetStream.
//!
//! All lanes are subjects of one stream, `windlass`, with work-queue retention: an acknowledged message is deleted. A
//! lane that is subscribed to has a durable pull consumer, shared by all workers. The driver creates both. A stream of
//! that name that is there already is used as it is when it fits, so `nats stream edit windlass --replicas 3`
//! makes lanes survive the loss of a server. A queue's dots are written as `=`, since they mean something in NATS.
//!
//! A worker that holds a message says so every ten seconds; what nobody has spoken for in half a minute is
//! delivered again, so messages in the hands of a process that died wait that long. A released message is published
//! anew and the old one acknowledged: to NATS, a message given back is still someone's, and would not count as waiting.
//!
//! **A confirmed message has been written, and not yet forced to disk**: a crash of the server loses none, one of the
//! machine what was confirmed within `sync_interval` (two minutes; NATS 2.10 and later know `sync_interval: always`).
//! Replicas on other machines guard against that, too. Jobs are never lost by this: the store publishes again.
//!
//! The user needs to publish to `windlass.>`, `$JS.API.STREAM.*.windlass`, `$JS.API.CONSUMER.>` and `$JS.ACK.windlass.>`,
//! and to subscribe to `_INBOX.>`.
//!
//! The URL is `nats://user:password@host:4222`, `nats://token@host:4222`, or either with `tls://`. It takes no
//! parameters. Other servers of the cluster are found through the first. TLS trusts the system's certificates, or
//! those of the file that the environment variable `SSL_CERT_FILE` names.

mod address;
mod api;
mod intake;
mod lane;
mod link;
mod problem;
mod publish;
mod pulls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

use crate::handle::Handle;
use address::Address;
use intake::Intake;
use link::Link;
use problem::Problem;

/// How long a call waits for the broker.
const DEADLINE: Duration = Duration::from_secs(5);

/// A NATS server or cluster.
pub(crate) struct Nats {
    address: Arc<Address>,
    link: Arc<Link>,
    /// Set by [`Broker::close`].
    closing: CancellationToken,
    /// One task for each subscription. It ends with the subscription, or by `closing`.
    intakes: TaskTracker,
}

impl Nats {
    /// Knows the broker at `url`; connects when first asked for something.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url)?);
        let link = Arc::new(Link::new(Arc::clone(&address)));
        Ok(Self { address, link, closing: CancellationToken::new(), intakes: TaskTracker::new() })
    }

    fn link(&self) -> Result<&Link, Problem> {
        if self.closing.is_cancelled() { Err(Problem::Closed) } else { Ok(&self.link) }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("address", &self.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Nats {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        let answers = match self.link() {
            Ok(link) => publish::publish(link, messages).await,
            Err(problem) => messages.iter().map(|_| Err(problem.clone())).collect(),
        };
        answers.into_iter().map(|answer| answer.map_err(BrokerError::from)).collect()
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.link()?;
        let mut intake = Intake::new(Arc::clone(&self.link), lanes, capacity, priorities);
        match intake.create_lanes().await.map_err(BrokerError::from) {
            // An outage is no reason to refuse: the subscription takes up when the broker is back.
            Err(error) if !error.retryable() => return Err(error),
            _ => {}
        }
        let (handle, desk) = Handle::new(intake.lanes().to_vec(), self.closing.clone());
        self.intakes.spawn(intake.run(desk));
        Ok(Box::new(handle))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        Ok(Some(lane::depth(self.link()?, lane).await?))
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        let link = self.link()?;
        try_join_all(lanes.iter().map(|lane| lane::delete(link, lane))).await?;
        Ok(())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Ok(lane::ping(self.link()?).await?)
    }

    async fn close(&self) {
        self.closing.cancel();
        self.intakes.close();
        // What cannot be given back in time is delivered again after a while.
        let _ = timeout(DEADLINE, self.intakes.wait()).await;
        self.link.close().await;
    }
}
