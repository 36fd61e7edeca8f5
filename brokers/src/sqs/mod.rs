//! Amazon SQS, and what speaks its language.

mod address;
mod api;
mod intake;
mod name;
mod problem;
mod publish;
mod queues;
mod settle;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Subscription};

use address::Address;
use api::Api;
use intake::Intake;
use problem::Problem;
use queues::Queues;
use subscription::SqsSubscription;

/// How long a call waits for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long SQS keeps a received message from others, unless told again.
const VISIBILITY: Duration = Duration::from_secs(30);
/// What goes into one call.
const BATCH: usize = 10;

/// SQS in one region, under one prefix.
pub(crate) struct Sqs {
    queues: Arc<Queues>,
    sending: Semaphore,
    /// Ends every subscription.
    closing: CancellationToken,
    /// Calls under way of all subscriptions, also of those that were dropped.
    tasks: TaskTracker,
}

impl Sqs {
    /// Makes ready; calls nobody, unless the region has to be asked from the machine.
    pub(crate) async fn open(url: &str) -> Result<Self, BrokerError> {
        let api = Api::new(Address::parse(url)?).await?;
        Ok(Self {
            queues: Arc::new(Queues::new(api)),
            sending: Semaphore::new(publish::SENDING),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn check_open(&self) -> Result<(), BrokerError> {
        if self.closing.is_cancelled() { Err(BrokerError::Closed) } else { Ok(()) }
    }
}

impl fmt::Debug for Sqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqs").field("address", &self.queues.api.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for Sqs {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        if self.closing.is_cancelled() {
            return messages.iter().map(|_| Err(BrokerError::Closed)).collect();
        }
        publish::publish(&self.queues, &self.sending, messages).await
    }

    async fn subscribe(&self, lanes: &[Lane], capacity: usize) -> Result<Box<dyn Subscription>, BrokerError> {
        self.check_open()?;
        let declared = join_all(lanes.iter().map(|lane| self.queues.url(lane)));
        // An outage is no reason to refuse: the subscription takes up when SQS is back.
        for url in timeout(DEADLINE, declared).await.unwrap_or_default() {
            if let Err(problem @ Problem::Config { .. }) = url {
                return Err(problem.into());
            }
        }
        let ended = self.closing.child_token();
        let guard = ended.clone().drop_guard();
        let intake = Intake::start(Arc::clone(&self.queues), lanes, capacity, self.tasks.clone(), ended);
        Ok(Box::new(SqsSubscription::new(intake, guard)))
    }

    async fn depth(&self, lane: &Lane) -> Result<Option<u64>, BrokerError> {
        self.check_open()?;
        deadline(self.queues.depth(lane)).await.map(Some)
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        self.check_open()?;
        let deleted =
            deadline(async { Ok(join_all(lanes.iter().map(|lane| self.queues.delete(lane))).await) });
        deleted.await?.into_iter().collect::<Result<(), Problem>>().map_err(Into::into)
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        self.check_open()?;
        // A queue that there need not be: that is an answer, too.
        match self.queues.api.queue_url(&format!("{}-ping", self.queues.api.address.prefix)).await {
            Ok(_) | Err(Problem::NoQueue) => Ok(()),
            Err(problem) => Err(problem.into()),
        }
    }

    async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        // A receive cannot be taken back. What one that is cut off here brings comes again after a while.
        let _ = timeout(DEADLINE, self.tasks.wait()).await;
    }
}

/// Delays between attempts: fast at first, since most interruptions are short, with jitter so that a fleet does
/// not come back all at once.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .with_jitter()
        .build()
}

async fn deadline<T>(call: impl Future<Output = Result<T, Problem>>) -> Result<T, BrokerError> {
    match timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(BrokerError::Timeout(DEADLINE)),
    }
}
