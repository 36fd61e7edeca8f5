use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt, pending};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use windlass_core::{BrokerError, Delivery, DeliveryTag, Lane, QueueName, Subscription};

use super::address::Address;
use super::health::Health;
use super::intake::Intake;
use super::lanes::Lanes;
use super::member::Membership;
use super::problem::Problem;
use super::publish::Publisher;
use crate::rota::Rota;

/// How long [`KafkaSubscription::joined`] waits: an idle group takes a member in within milliseconds.
const JOIN: Duration = Duration::from_secs(2);
/// The pause before each attempt to make lanes that are missing, and each look after consumers that were cut off.
const PAUSE: Duration = Duration::from_millis(500);
/// How long consumers may take to find the brokers that others have found: they try to connect once a second.
const FIND: Duration = Duration::from_secs(5);

/// A consumer for each queue among the lanes.
pub(super) struct KafkaSubscription {
    address: Arc<Address>,
    health: Arc<Health>,
    lanes: Arc<Lanes>,
    publisher: Arc<Publisher>,
    intake: Arc<Intake>,
    rota: Rota,
    members: Vec<Membership>,
    parked: bool,
    /// Makes missing lanes; kept here, so that a dropped `receive` does not undo what was done.
    mending: Option<BoxFuture<'static, Result<(), Problem>>>,
    /// Looks after consumers that were cut off; kept as well. Answers whether they must be replaced.
    watching: Option<BoxFuture<'static, bool>>,
}

impl KafkaSubscription {
    /// Begins to join the groups of the intake's lanes, which `rota` is over.
    pub(super) fn start(
        address: Arc<Address>,
        health: Arc<Health>,
        lanes: Arc<Lanes>,
        publisher: Arc<Publisher>,
        intake: Arc<Intake>,
        rota: Rota,
    ) -> Result<Self, Problem> {
        let mut subscription = Self {
            address,
            health,
            lanes,
            publisher,
            intake,
            rota,
            members: Vec::new(),
            parked: false,
            mending: None,
            watching: None,
        };
        subscription.join(&HashSet::new())?;
        Ok(subscription)
    }

    /// Joins with new consumers, in the place of those there are. They read the topics in `anew` from their start,
    /// whatever is committed.
    fn join(&mut self, anew: &HashSet<String>) -> Result<(), Problem> {
        self.members.clear();
        let mut queues: BTreeMap<&QueueName, Vec<Lane>> = BTreeMap::new();
        for lane in &self.intake.lanes {
            queues.entry(&lane.queue).or_default().push(lane.clone());
        }
        for (queue, lanes) in queues {
            let (address, health, intake) = (&self.address, &self.health, &self.intake);
            self.members.push(Membership::start(address, health, intake, queue, &lanes, anew)?);
        }
        Ok(())
    }

    /// Waits a little until the groups have given out their partitions, so that the first messages come in order.
    /// An error says that this cannot be.
    pub(super) async fn joined(&mut self) -> Result<(), Problem> {
        let joined = async {
            loop {
                if let Some(problem) = self.intake.config_problem() {
                    return Err(problem);
                }
                if self.intake.assignments() >= self.members.len() {
                    return Ok(());
                }
                self.intake.wake.notified().await;
            }
        };
        timeout(JOIN, joined).await.unwrap_or(Ok(()))
    }

    fn mend(&mut self) {
        let (lanes, intake) = (Arc::clone(&self.lanes), Arc::clone(&self.intake));
        let mend = async move {
            sleep(PAUSE).await;
            for (lane, made) in lanes.make(&intake.lanes).await {
                match made {
                    // By us, or by another who found out sooner.
                    Ok(made) => {
                        let gone = intake.take_gone(&lane);
                        if made || gone {
                            intake.note_anew(&lane.to_string());
                        }
                    }
                    Err(problem) => {
                        intake.note_missing();
                        return Err(problem);
                    }
                }
            }
            Ok(())
        };
        self.mending = Some(mend.boxed());
    }

    /// Sees to it that consumers which have lost all brokers find them again. They cannot once the library knows of no
    /// broker any more, for which one answer of a broker that has just started is enough: it names none at all
    /// (librdkafka's issue 5301). Nothing tells of that, so what decides is whether the brokers answer others.
    fn watch(&mut self) {
        let lanes = Arc::clone(&self.lanes);
        let reach = self.members.iter().map(Membership::reach).collect::<Vec<_>>();
        let watch = async move {
            let mut since = None;
            loop {
                sleep(PAUSE).await;
                if lanes.ping().await.is_err() {
                    since = None;
                    continue;
                }
                let asked = reach.clone();
                let reached = spawn_blocking(move || asked.into_iter().all(|reach| reach()));
                if reached.await.unwrap_or(true) {
                    return false;
                }
                if since.get_or_insert_with(Instant::now).elapsed() >= FIND {
                    return true;
                }
            }
        };
        self.watching = Some(watch.boxed());
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn receive(&mut self, max: usize) -> Result<Vec<Delivery>, BrokerError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        if std::mem::take(&mut self.parked) {
            self.members.iter().for_each(Membership::take_up);
        }
        loop {
            // Cancel-safe: what is taken is answered at once.
            let deliveries = self.intake.take(max, &mut self.rota)?;
            if !deliveries.is_empty() {
                return Ok(deliveries);
            }
            if self.mending.is_none() && self.intake.take_missing() {
                self.mend();
            }
            if self.watching.is_none() && self.intake.take_cut_off() {
                self.watch();
            }
            let anew = if self.mending.is_none() { self.intake.take_anew() } else { HashSet::new() };
            if !anew.is_empty() {
                tracing::info!(topics = ?anew, "lanes were made anew; joining anew");
                self.join(&anew)?;
            }
            let mending = async {
                match &mut self.mending {
                    Some(mending) => mending.await,
                    None => pending().await,
                }
            };
            let watching = async {
                match &mut self.watching {
                    Some(watching) => watching.await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // A wake-up between the look and this wait is kept by the Notify.
                () = self.intake.wake.notified() => {}
                lost = watching => {
                    self.watching = None;
                    if lost {
                        tracing::warn!(broker = %self.address, "consumers do not find the brokers, which answer others; joining anew");
                        self.join(&HashSet::new())?;
                    }
                }
                mended = mending => {
                    self.mending = None;
                    mended?;
                    // They look for topics that were missing once in a while only.
                    let anew = self.intake.take_anew();
                    if !anew.is_empty() || self.intake.lacks_a_lane() {
                        self.join(&anew)?;
                    }
                }
            }
        }
    }

    async fn ack(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        self.intake.settle(tags.iter().copied());
        Ok(())
    }

    async fn release(&mut self, tags: &[DeliveryTag]) -> Result<(), BrokerError> {
        // Kafka cannot give one message back: it is published anew, and the old one is settled.
        let (tags, messages): (Vec<_>, Vec<_>) = self.intake.messages(tags).into_iter().unzip();
        if messages.is_empty() || self.intake.ended() {
            return Ok(());
        }
        let mut failed = None;
        let answers = self.publisher.publish(&messages).await;
        let done = tags.into_iter().zip(answers).filter_map(|(tag, answer)| match answer {
            Ok(()) => Some(tag),
            Err(error) => {
                failed = Some(error);
                None
            }
        });
        let done: Vec<DeliveryTag> = done.collect();
        self.intake.settle(done);
        failed.map_or(Ok(()), Err)
    }

    async fn park(&mut self) -> Result<(), BrokerError> {
        // The only way to let others have what waits in its partitions.
        self.members.iter().for_each(Membership::park);
        self.parked = true;
        Ok(())
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        self.intake.end(false);
    }
}

impl fmt::Debug for KafkaSubscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSubscription").field("lanes", &self.intake.lanes).finish_non_exhaustive()
    }
}
