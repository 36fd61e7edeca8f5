//! Kafka, 2.4 and later, through librdkafka.
//!
//! A lane is a topic under the lane's name, made when first used; a message's key is its job's ordering key, or else the
//! job's id. All who take from a queue are one consumer group, `windlass.<queue>`, which divides the partitions of the
//! queue's lanes among them. Since messages are acknowledged once their jobs are claimed, no job, however long, holds up its partition.
//!
//! What differs from brokers that hand out message by message:
//! - At most as many subscriptions as a lane has partitions get something of it, and what waits in a partition waits
//!   for its owner. A parked subscription leaves its groups, so that others take over.
//! - The offset below which all is settled is committed five times a second, and when a partition is given up. What
//!   was settled beyond it, or in hand, comes again when the partition moves: the claim tells the repetitions.
//! - A message that is given back is published again, and then settled.
//! - [`Broker::depth`] counts what is not committed, less what this process's own subscriptions have taken.
//! - Lanes of a queue with subscriptions are emptied by [`Broker::delete`]; others are deleted.
//!
//! # The URL
//!
//! `kafka://[user:password@]host[:9092][,host…][?name=value&…]`, everything percent-encoded where it is special. With
//! a user, the login is SASL/PLAIN without TLS unless settings say otherwise.
//!
//! | name | value |
//! |---|---|
//! | `partitions` | of topics that Windlass makes, 12 by default. Those that exist stay as they are, and may get more at any time |
//! | `replication` | of topics that Windlass makes; by default the brokers' `default.replication.factor` |
//! | any other | a [setting of librdkafka](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), such as `security.protocol`, `sasl.mechanism`, `ssl.ca.location`, `compression.type` or `session.timeout.ms`, but for those that the promises rest on, such as `acks` |
//!
//! TLS, SCRAM and OAUTHBEARER need the cargo feature `kafka-tls`, which links the system's OpenSSL: librdkafka knows no
//! other implementation, and all other parts of Windlass do without OpenSSL. SASL/PLAIN always works. Building needs a
//! compiler for C and C++ and `make`; with `kafka-tls` also the headers of OpenSSL (`libssl-dev`).
//!
//! The user needs all rights on topics and groups that begin with `windlass.`; without the right to create topics,
//! somebody else has to. Topics follow the brokers' defaults. Their `retention.ms` should be longer than a job may
//! wait; what it removes nevertheless, the store publishes again. For durability against the loss of a broker, use
//! three copies and `min.insync.replicas` = 2.

mod address;
mod aside;
mod health;
mod intake;
mod lanes;
mod login;
mod member;
mod offsets;
mod problem;
mod publish;
mod state;
mod subscription;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

use self::address::Address;
use self::health::Health;
use self::intake::Intake;
use self::lanes::Lanes;
use self::problem::Problem;
use self::publish::Publisher;
use self::subscription::KafkaSubscription;
use crate::rota::Rota;

/// How long a call waits for the brokers.
const DEADLINE: Duration = Duration::from_secs(5);

/// A Kafka cluster.
pub(crate) struct Kafka {
    address: Arc<Address>,
    health: Arc<Health>,
    lanes: Arc<Lanes>,
    publisher: Arc<Publisher>,
    /// Those that were opened here, as far as they still live.
    intakes: Mutex<Vec<Weak<Intake>>>,
    /// Subscriptions that have ended but not yet left their groups.
    leaving: TaskTracker,
    /// The library's other clients, until the last of their threads is gone.
    ending: TaskTracker,
    closed: CancellationToken,
}

impl Kafka {
    /// Starts to connect to the brokers at `url` in the background. To be called within a Tokio runtime.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url)?);
        let health = Health::new(Arc::clone(&address));
        let (leaving, ending) = (TaskTracker::new(), TaskTracker::new());
        // They are never waited for but after an end.
        leaving.close();
        ending.close();
        let lanes = Arc::new(Lanes::new(Arc::clone(&address), Arc::clone(&health), ending.clone()));
        let publisher =
            Publisher::new(Arc::clone(&address), Arc::clone(&health), Arc::clone(&lanes), ending.clone())?;
        let (publisher, intakes, closed) = (Arc::new(publisher), Mutex::default(), CancellationToken::new());
        Ok(Self { address, health, lanes, publisher, intakes, leaving, ending, closed })
    }

    fn open_still(&self) -> Result<(), Problem> {
        if self.closed.is_cancelled() { Err(Problem::Closed) } else { Ok(()) }
    }

    fn intakes(&self) -> Vec<Arc<Intake>> {
        let mut intakes = self.intakes.lock().unwrap_or_else(PoisonError::into_inner);
        intakes.retain(|intake| intake.strong_count() > 0);
        intakes.iter().filter_map(Weak::upgrade).collect()
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka").field("address", &self.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Kafka {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true, shared_lanes: false }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        match self.open_still() {
            Ok(()) => self.publisher.publish(messages).await,
            Err(problem) => messages.iter().map(|_| Err(problem.clone().into())).collect(),
        }
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.open_still()?;
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let failed = self.lanes.ensure(&lanes).await;
        let intake = Intake::new(lanes, capacity, self.leaving.clone());
        let outage = !failed.is_empty();
        if outage {
            if let Some(problem) = failed.into_values().find(Problem::is_config) {
                return Err(problem.into());
            }
            // An outage is no reason to refuse: the lanes are made when the brokers are back.
            intake.note_missing();
        }
        self.intakes.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&intake));
        let (address, health) = (Arc::clone(&self.address), Arc::clone(&self.health));
        let (lanes, publisher) = (Arc::clone(&self.lanes), Arc::clone(&self.publisher));
        let mut subscription = KafkaSubscription::start(address, health, lanes, publisher, intake, rota)?;
        if !outage {
            subscription.joined().await?;
        }
        Ok(Box::new(subscription))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        self.open_still()?;
        let intakes = self.intakes();
        let waiting = self.lanes.extents(lane).await?.into_iter().map(|extent| {
            let behind = u64::try_from(extent.end - extent.committed).unwrap_or(0);
            let given = |intake: &Arc<Intake>| intake.given_since(lane, extent.partition, extent.committed);
            behind.saturating_sub(intakes.iter().map(given).sum())
        });
        Ok(Some(waiting.sum()))
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        self.open_still()?;
        // Their groups count as in use until they have left.
        let _ = timeout(DEADLINE, self.leaving.wait()).await;
        Ok(self.lanes.delete(lanes).await?)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.open_still()?;
        Ok(self.lanes.ping().await?)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.intakes().iter().for_each(|intake| intake.end(true));
        // Whoever cannot leave in good order in time is missed by the group after a while.
        let _ = timeout(DEADLINE, self.leaving.wait()).await;
        self.lanes.close();
        self.publisher.close();
        // A process that ends meanwhile would take down what the library's threads are still using.
        let _ = timeout(DEADLINE, self.ending.wait()).await;
    }
}
