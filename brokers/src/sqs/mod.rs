//! Amazon SQS, and servers that speak its language.
//!
//! `sqs://region`, with any of these parameters:
//!
//! | parameter | meaning | default |
//! |---|---|---|
//! | `prefix` | what the names of the queues begin with: 1 to 20 letters, digits, `-` and `_` | `windlass` |
//! | `fifo` | `true`: FIFO queues | `false` |
//! | `wait` | how many seconds a receive waits for a message, 1 to 20 | `20` |
//! | `endpoint` | another server than AWS's, such as `http://localhost:9324` for ElasticMQ | |
//!
//! Without a region, `sqs:` takes it from where AWS's own tools do. Credentials always come from there: variables,
//! profile, web identity, container or machine role. An endpoint with `http:` is taken for an emulator: it is asked
//! with the credentials of variables or profile, and where there are none, with made-up ones.
//!
//! **Queues.** The lane of queue `mail` at priority 1 is `windlass-mail-1`. It is created when first needed, keeps
//! messages for 14 days, and has the tag `windlass:lane`. One that exists is used as it is, so that an operator may
//! create queues beforehand, encrypt them, and withhold the right to create any; it must only neither delay messages
//! nor move them elsewhere after a few receives. Rights: `sqs:` `GetQueueUrl`, `GetQueueAttributes`, `SendMessage`,
//! `ReceiveMessage`, `DeleteMessage`, `ChangeMessageVisibility`, and as wanted `CreateQueue` with `TagQueue`, and
//! `DeleteQueue`. AWS refuses to create a queue within 60 seconds of the deletion of one of that name; what is published
//! to the lane fails meanwhile, retryably.
//!
//! **FIFO.** Nothing in Windlass needs the order. Each job is a message group of its own, so that none waits for
//! another, and each publishing of it has a deduplication id of its own, so that what was lost can be published again.
//!
//! **Receiving.** Received messages are kept from others for 30 seconds, and for as much again for as long as the
//! subscription holds them. A worker that is killed leaves them to others after that time. A receive that waits cannot
//! be taken back: when the subscription is parked, dropped or closed, the driver waits for its end, and releases at once
//! what it brings. [`Broker::close`] waits for that, too, but not longer than 5 seconds; a message that comes in the
//! moment when the connection is cut after those is held back for 30 seconds.
//!
//! [`Broker::depth`] is what SQS calls approximate, and can be a minute late.
//!
//! **Costs.** SQS is paid by the call. Ten messages go into a call for sending, receiving and acknowledging, so under
//! load a job costs 0.3 calls (the test `ten_jobs_cost_three_calls` counts 306 for 1,000 jobs), and alone it costs 3.
//! With nothing to do, a worker makes 3 calls a minute for each of its lanes, 20 times as many with `wait=1`. Less usual
//! things cost a call for ten messages: giving back, and holding on to them, each 10 to 20 seconds.

mod address;
mod api;
mod intake;
mod name;
mod problem;
mod publish;
mod queues;
mod settle;
mod state;
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
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

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
        Capabilities { persistent: true, depth: true, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        if self.closing.is_cancelled() {
            return messages.iter().map(|_| Err(BrokerError::Closed)).collect();
        }
        publish::publish(&self.queues, &self.sending, messages).await
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.check_open()?;
        let declared = join_all(lanes.iter().map(|lane| self.queues.open(lane)));
        // An outage is no reason to refuse: the subscription takes up when SQS is back.
        for queue in timeout(DEADLINE, declared).await.unwrap_or_default() {
            if let Err(problem @ Problem::Config { .. }) = queue {
                return Err(problem.into());
            }
        }
        let ended = self.closing.child_token();
        let guard = ended.clone().drop_guard();
        let (queues, tasks) = (Arc::clone(&self.queues), self.tasks.clone());
        let intake = Intake::start(queues, lanes, capacity, priorities, tasks, ended);
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
