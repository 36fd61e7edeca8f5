//! RabbitMQ, 3.10 and later, over AMQP 0-9-1.
//!
//! A lane is a durable quorum queue. Publishing and consuming have a connection each: a broker short of memory or
//! disk stops reading from connections that publish, and acknowledgements must still get through then.
//! `amqps://…?cacertfile=FILE` trusts the authorities whose certificates are in that PEM file beside the system's.
//! The client library's own recovery stays off: it replays consumers with stale tags and knows nothing of lanes.

mod address;
mod keeper;
mod lane;
mod link;
mod problem;
mod publish;
mod subscription;
mod tags;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

use address::Address;
use keeper::Keeper;
use subscription::RabbitSubscription;

/// How long a call waits for the broker.
const DEADLINE: Duration = Duration::from_secs(5);

/// A RabbitMQ server or cluster.
pub(crate) struct RabbitMq {
    address: Arc<Address>,
    publishing: Keeper,
    /// Started by the first subscription: a process that only publishes needs one connection.
    consuming: OnceLock<Arc<Keeper>>,
    /// Ends both keepers at [`Broker::close`]. Without it, each ends with its last user.
    closing: CancellationToken,
    /// Channels of dropped subscriptions, being closed in good order.
    leftovers: TaskTracker,
    runtime: Handle,
}

impl RabbitMq {
    /// Starts to connect to the broker at `url` in the background. To be called within a Tokio runtime.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(url)?);
        let closing = CancellationToken::new();
        let runtime = Handle::current();
        let publishing = Keeper::start(&runtime, Arc::clone(&address), "publish", closing.child_token());
        Ok(Self {
            address,
            publishing,
            consuming: OnceLock::new(),
            closing,
            leftovers: TaskTracker::new(),
            runtime,
        })
    }

    fn consuming(&self) -> &Arc<Keeper> {
        self.consuming.get_or_init(|| {
            let address = Arc::clone(&self.address);
            Arc::new(Keeper::start(&self.runtime, address, "consume", self.closing.child_token()))
        })
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("address", &self.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        match self.publishing.link().await {
            Ok(link) => publish::publish(&link, messages).await,
            Err(problem) => messages.iter().map(|_| Err(problem.clone().into())).collect(),
        }
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let keeper = Arc::clone(self.consuming());
        let (leftovers, runtime) = (self.leftovers.clone(), self.runtime.clone());
        let mut subscription =
            RabbitSubscription::new(keeper, lanes, capacity, priorities, leftovers, runtime);
        match subscription.start_taking().await {
            // An outage is no reason to refuse: the subscription takes up when the broker is back.
            Err(error) if !error.retryable() => Err(error),
            _ => Ok(Box::new(subscription)),
        }
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        let link = self.publishing.link().await?;
        deadline(lane::depth(&link, lane)).await.map(Some)
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        let link = self.publishing.link().await?;
        deadline(lane::delete(&link, lanes)).await
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let link = self.publishing.link().await?;
        deadline(async { link.channel().await.map(drop) }).await
    }

    async fn close(&self) {
        self.leftovers.close();
        // Whatever cannot be closed in good order in time is closed by the end of its connection.
        let _ = timeout(DEADLINE, self.leftovers.wait()).await;
        self.closing.cancel();
        self.publishing.ended().await;
        if let Some(consuming) = self.consuming.get() {
            consuming.ended().await;
        }
    }
}

async fn deadline<T, E: Into<BrokerError>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, BrokerError> {
    match timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(BrokerError::Timeout(DEADLINE)),
    }
}
