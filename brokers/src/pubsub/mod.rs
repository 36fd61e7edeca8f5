//! Google Cloud Pub/Sub, and its emulators.
//!
//! `pubsub://project-id` is the service, with the [application default credentials] of the process. Parameters:
//!
//! | parameter | meaning |
//! |---|---|
//! | `endpoint` | where it is instead of `pubsub.googleapis.com`: `host:port` or `http://host:port` for an emulator, which needs no login; `https://host` for the service under another name, as that of one region. An emulator may also be named by the variable `PUBSUB_EMULATOR_HOST`. |
//! | `prefix` | put before the names of all topics and subscriptions, as in `prefix=staging-` |
//!
//! The account needs the role Pub/Sub Editor. A lane is a topic and a subscription to it, both called
//! `windlass.<queue>.<priority>`, made when they are first needed: unlike most brokers, Pub/Sub keeps nothing for a
//! topic that has no subscription. It cannot say how many messages wait in a lane.
//!
//! Messages are taken by unary pulls, which wait at the server, and not by streams. A pull never brings more than
//! was asked for, so the capacity holds on any server (emulators ignore the flow control of streams), and its
//! answer always arrives, so that what it brings too late can be given back at once; what a stream had sent when it
//! was closed stays with nobody until its deadline. Nor does Google's own client for Rust fit: it only has streams,
//! and acknowledges on a timer without telling how that went.
//!
//! Publishing, pulling and acknowledging take a call each for a group of up to 1000 messages. Google charges the
//! first two by volume, at least 1 kB a call: about 300 bytes for a job in a large group, 2 kB for a lone one. What a
//! killed worker held comes again after half a minute.
//!
//! [application default credentials]: https://cloud.google.com/docs/authentication/application-default-credentials

mod address;
mod client;
mod intake;
mod lanes;
mod login;
mod problem;
mod publish;
mod state;
mod subscription;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{join_all, try_join_all};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, Subscription};

use address::Address;
use client::Client;
use intake::{Intake, Tasks};
use lanes::Lanes;
use subscription::PubSubSubscription;

/// How long a call waits for Pub/Sub.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long [`Broker::close`] waits for pulls under way.
const LAST_PULLS: Duration = Duration::from_millis(500);
/// Seconds until a message that its holder does not speak for any more comes again.
const LEASE: i32 = 30;

/// Pub/Sub in one project.
pub(crate) struct PubSub {
    lanes: Arc<Lanes>,
    /// The subscriptions that live, to be ended by [`Broker::close`].
    intakes: Mutex<Vec<Weak<Intake>>>,
    closing: CancellationToken,
    /// These see to it that messages are given back.
    tasks: Tasks,
}

impl PubSub {
    /// Connects when the first call is made. To be called within a Tokio runtime.
    pub(crate) fn open(url: &str) -> Result<Self, BrokerError> {
        let emulator = std::env::var("PUBSUB_EMULATOR_HOST").ok();
        let client = Arc::new(Client::new(Address::parse(url, emulator.as_deref())?)?);
        Ok(Self {
            lanes: Arc::new(Lanes::new(client)),
            intakes: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: Tasks {
                runtime: Handle::current(),
                pulls: TaskTracker::new(),
                others: TaskTracker::new(),
            },
        })
    }

    fn client(&self) -> Result<&Client, BrokerError> {
        if self.closing.is_cancelled() { Err(BrokerError::Closed) } else { Ok(&self.lanes.client) }
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PubSub").field("address", &self.lanes.client.address).finish_non_exhaustive()
    }
}

#[async_trait]
impl Broker for PubSub {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: true, depth: false, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        if self.client().is_err() {
            return messages.iter().map(|_| Err(BrokerError::Closed)).collect();
        }
        publish::publish(&self.lanes, messages).await
    }

    async fn subscribe(
        &self,
        lanes: &[Lane],
        capacity: usize,
        priorities: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        self.client()?;
        let places = join_all(lanes.iter().map(|lane| self.lanes.place(lane)));
        for place in timeout(DEADLINE, places).await.unwrap_or_default() {
            match place {
                // An outage is no reason to refuse: the subscription takes up when it is over.
                Err(problem) if !problem.retryable() => return Err(problem.into()),
                _ => {}
            }
        }
        let (over, tasks) = (self.closing.child_token(), self.tasks.clone());
        let subscription = PubSubSubscription::start(&self.lanes, lanes, capacity, priorities, over, tasks);
        let mut intakes = self.intakes.lock().unwrap_or_else(PoisonError::into_inner);
        intakes.retain(|intake| intake.strong_count() > 0);
        intakes.push(subscription.intake());
        // Closed in the meantime: whoever is second sees what the first did.
        self.client()?;
        Ok(Box::new(subscription))
    }

    async fn depth(&self, _: &Lane) -> Result<Option<u64>, BrokerError> {
        // Only Cloud Monitoring can tell, minutes later.
        self.client().map(|_| None)
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), BrokerError> {
        self.client()?;
        try_join_all(lanes.iter().map(|lane| self.lanes.delete(lane))).await?;
        Ok(())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        let client = self.client()?;
        let asked = client.list_topics(client.address.project()).await;
        asked.map_err(|problem| problem.no_project(&client.address).into())
    }

    async fn close(&self) {
        self.closing.cancel();
        let intakes = std::mem::take(&mut *self.intakes.lock().unwrap_or_else(PoisonError::into_inner));
        for intake in intakes.iter().filter_map(Weak::upgrade) {
            intake.end();
        }
        // Where there is traffic, pulls end at once. Those that do not have nothing to give back, most likely.
        self.tasks.pulls.close();
        let _ = timeout(LAST_PULLS, self.tasks.pulls.wait()).await;
        self.tasks.others.close();
        // What cannot be given back in time comes again after its lease.
        let _ = timeout(DEADLINE, self.tasks.others.wait()).await;
    }
}
