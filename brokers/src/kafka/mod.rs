//! Kafka, 2.4 and later, through librdkafka.
mod address;
mod aside;
mod health;
mod intake;
mod lanes;
mod member;
mod offsets;
mod problem;
mod publish;
mod subscription;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Subscription};

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
    closed: CancellationToken,
}

impl Kafka {
    /// Starts to connect to the brokers at `url` in the background. To be called within a Tokio runtime.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url)?);
        let health = Health::new(Arc::clone(&address));
        let lanes = Arc::new(Lanes::new(Arc::clone(&address), Arc::clone(&health)));
        let publisher = Publisher::new(Arc::clone(&address), Arc::clone(&health), Arc::clone(&lanes))?;
        let leaving = TaskTracker::new();
        // It is never waited for but after an end.
        leaving.close();
        let (publisher, intakes, closed) = (Arc::new(publisher), Mutex::default(), CancellationToken::new());
        Ok(Self { address, health, lanes, publisher, intakes, leaving, closed })
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

    async fn subscribe(&self, lanes: &[Lane], capacity: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        self.open_still()?;
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes);
        let failed = self.lanes.ensure(&lanes).await;
        let intake = Intake::new(lanes, capacity, self.leaving.clone());
        if !failed.is_empty() {
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
        subscription.joined().await?;
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
    }
}
