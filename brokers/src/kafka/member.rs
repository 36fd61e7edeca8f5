use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use windlass_core::{Lane, QueueName};

use super::address::Address;
use super::health::{Health, log};
use super::intake::Intake;
use super::problem::Problem;

/// How often the thread looks whether it shall end. Most ends wake it.
const TICK: Duration = Duration::from_millis(100);
/// For how long the last commit is tried while the group is being rearranged.
const LAST_COMMIT: Duration = Duration::from_secs(2);

/// How the library says that a topic was deleted and made anew, which it deals with badly itself: it goes on from the
/// offset it has reached in the old topic, and takes the leaders of the new one for outdated. No event tells of it.
const MADE_ANEW: &str = "changed id from";
/// The id of a topic not yet known, in that line.
const NO_ID: &str = "from AAAAAAAAAAAAAAAAAAAAAA ";

/// A consumer in the group of one queue, with the thread that polls it. Dropping it leaves the group.
///
/// The thread polls whatever the worker does, so that the group never takes a full worker for a dead one. It gets
/// rebalances and errors only: messages wait in the queues of their partitions until [`Intake::take`].
pub(super) struct Membership {
    /// The thread owns it.
    consumer: Weak<BaseConsumer<Member>>,
    topics: Vec<String>,
    /// Tells the thread to end.
    over: Arc<AtomicBool>,
    parked: Arc<AtomicBool>,
}

/// What the library calls back.
pub(super) struct Member {
    health: Arc<Health>,
    intake: Arc<Intake>,
    consumer: OnceLock<Weak<BaseConsumer<Member>>>,
}

impl Membership {
    /// Joins the group of `queue` to take from `lanes`.
    pub(super) fn start(
        address: &Address,
        health: &Arc<Health>,
        intake: &Arc<Intake>,
        queue: &QueueName,
        lanes: &[Lane],
    ) -> Result<Self, Problem> {
        let (health, taking) = (Arc::clone(health), Arc::clone(intake));
        let member = Member { health, intake: taking, consumer: OnceLock::new() };
        let made = address.consumer(queue).create_with_context(member);
        let consumer: Arc<BaseConsumer<Member>> = Arc::new(made.map_err(|error| Problem::making(&error))?);
        let weak = Arc::downgrade(&consumer);
        // It is set here alone.
        let _ = consumer.context().consumer.set(Weak::clone(&weak));
        let topics: Vec<String> = lanes.iter().map(Lane::to_string).collect();
        let topic = topics.first().cloned().unwrap_or_default();
        let (over, parked) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let poller = Poller {
            consumer: Some(consumer),
            weak: Weak::clone(&weak),
            intake: Arc::clone(intake),
            topic,
            over: Arc::clone(&over),
            parked: Arc::clone(&parked),
        };
        intake.join(Weak::clone(&weak));
        let membership = Self { consumer: weak, topics, over, parked };
        membership.take_up();
        // Should there be no thread, the poller is dropped, and has left.
        let started = thread::Builder::new().name("windlass kafka".into()).spawn(move || poller.run());
        started.map_err(|error| Problem::Outage(format!("no thread for a consumer: {error}")))?;
        Ok(membership)
    }

    pub(super) fn take_up(&self) {
        self.parked.store(false, Ordering::Relaxed);
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if let Some(consumer) = self.consumer.upgrade()
            && let Err(error) = consumer.subscribe(&topics)
        {
            // Happens when the consumer is closing.
            tracing::warn!(%error, "cannot subscribe");
        }
    }

    /// Leaves the group, so that others get its partitions.
    pub(super) fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        if let Some(consumer) = self.consumer.upgrade() {
            consumer.unsubscribe();
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(consumer) = self.consumer.upgrade() {
            nudge(&consumer);
        }
    }
}

/// Wakes the thread that polls `consumer`, by the answer to a commit.
pub(super) fn nudge(consumer: &BaseConsumer<Member>) {
    // It may well have nothing to commit.
    let _ = consumer.commit_consumer_state(CommitMode::Async);
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if text.contains(MADE_ANEW) && !text.contains(NO_ID) {
            self.intake.note_outdated(text);
        }
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => self.intake.note_missing(reason),
            Some(Code::AllBrokersDown) => {
                self.intake.report(self.health.explain(Problem::Outage(reason.into())));
            }
            _ => {
                // A connection lost is none of the subscription's business while others stand.
                if let Some(problem) = self.health.note(&error, reason).filter(Problem::is_config) {
                    self.intake.report(problem);
                }
            }
        }
    }
}

impl ConsumerContext for Member {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Some(this) = self.consumer.get() else { return };
        match rebalance {
            Rebalance::Assign(partitions) => self.intake.assign(this, partitions),
            Rebalance::Revoke(partitions) => self.intake.revoke(this, partitions, consumer.assignment_lost()),
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance has failed; the next follows"),
        }
    }
}

struct Poller {
    consumer: Option<Arc<BaseConsumer<Member>>>,
    weak: Weak<BaseConsumer<Member>>,
    intake: Arc<Intake>,
    topic: String,
    over: Arc<AtomicBool>,
    parked: Arc<AtomicBool>,
}

impl Poller {
    fn run(self) {
        let Some(consumer) = &self.consumer else { return };
        while !self.intake.ended() && !self.over.load(Ordering::Relaxed) {
            // What the context notes of errors and rebalances is all there is to do about them.
            if let Some(Ok(stray)) = consumer.poll(TICK) {
                // Fetched before its partition got a queue of its own, which the library says may happen.
                let _ = consumer.seek(
                    stray.topic(),
                    stray.partition(),
                    Offset::Offset(stray.offset()),
                    Duration::ZERO,
                );
            }
        }
        self.settle(consumer);
    }

    /// Sees to it that leaving the group takes nothing back and is not forgotten.
    fn settle(&self, consumer: &BaseConsumer<Member>) {
        let until = Instant::now() + LAST_COMMIT;
        let left = || until.saturating_duration_since(Instant::now());
        if self.parked.load(Ordering::Relaxed) {
            // It is leaving by itself, and the library forgets to tell the group if it is closed midway.
            while self.intake.has_partitions_of(&self.weak) && !left().is_zero() {
                consumer.poll(TICK / 4);
            }
            // Answered after the commit before the leave, on the same connection.
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, 0);
            let _ = consumer.committed_offsets(list, left());
        }
        while let Err(KafkaError::ConsumerCommit(Code::RebalanceInProgress | Code::IllegalGeneration)) =
            consumer.commit_consumer_state(CommitMode::Sync)
            && !left().is_zero()
        {
            consumer.poll(TICK / 4);
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if thread::panicking() {
            // The subscription must not wait for ever.
            self.intake.end(true);
        }
        self.intake.clear(&self.weak);
        // Leaves the group.
        self.consumer = None;
        self.intake.left(&self.weak);
    }
}
