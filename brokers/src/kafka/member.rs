use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::groups::GroupInfo;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use windlass_core::{Lane, QueueName};

use super::address::Address;
use super::health::{Health, log};
use super::intake::Intake;
use super::problem::Problem;

/// How often the thread looks whether it shall end. Most ends wake it.
const TICK: Duration = Duration::from_millis(100);
/// How long leaving in good order may take: as long as the group's patience with a member that does not.
const LEAVE: Duration = Duration::from_secs(10);
const LISTING: Duration = Duration::from_secs(1);
/// How long a broker may take to answer a consumer that is asked whether it reaches any.
const ANSWER: Duration = Duration::from_secs(1);

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
}

/// What the library calls back.
pub(super) struct Member {
    health: Arc<Health>,
    intake: Arc<Intake>,
    consumer: OnceLock<Weak<BaseConsumer<Member>>>,
    /// Topics to be read from their start.
    anew: HashSet<String>,
    /// Their partitions that have been begun. Locked by the consumer's own thread alone.
    begun: Mutex<HashSet<(String, i32)>>,
}

impl Membership {
    /// Joins the group of `queue` to take from `lanes`.
    pub(super) fn start(
        address: &Address,
        health: &Arc<Health>,
        intake: &Arc<Intake>,
        queue: &QueueName,
        lanes: &[Lane],
        anew: &HashSet<String>,
    ) -> Result<Self, Problem> {
        let member = Member {
            health: Arc::clone(health),
            intake: Arc::clone(intake),
            consumer: OnceLock::new(),
            anew: anew.clone(),
            begun: Mutex::default(),
        };
        let config = address.consumer(queue);
        let setting = |name| config.get(name).unwrap_or_default().to_owned();
        let (group, client) = (setting("group.id"), setting("client.id"));
        let made = config.create_with_context(member);
        let consumer: Arc<BaseConsumer<Member>> = Arc::new(made.map_err(|error| Problem::making(&error))?);
        let weak = Arc::downgrade(&consumer);
        // It is set here alone.
        let _ = consumer.context().consumer.set(Weak::clone(&weak));
        let topics: Vec<String> = lanes.iter().map(Lane::to_string).collect();
        let over = Arc::<AtomicBool>::default();
        let poller = Poller {
            consumer: Some(consumer),
            weak: Weak::clone(&weak),
            intake: Arc::clone(intake),
            group,
            client,
            over: Arc::clone(&over),
        };
        intake.join(Weak::clone(&weak));
        let membership = Self { consumer: weak, topics, over };
        membership.take_up();
        // Should there be no thread, the poller is dropped, and has left.
        let started = thread::Builder::new().name("windlass kafka".into()).spawn(move || poller.run());
        started.map_err(|error| Problem::Outage(format!("no thread for a consumer: {error}")))?;
        Ok(membership)
    }

    pub(super) fn take_up(&self) {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if let Some(consumer) = self.consumer.upgrade()
            && let Err(error) = consumer.subscribe(&topics)
        {
            // Happens when the consumer is closing.
            tracing::warn!(%error, "cannot subscribe");
        }
    }

    /// What tells whether the consumer reaches a broker, by a call that blocks.
    pub(super) fn reach(&self) -> impl FnOnce() -> bool + Clone + Send + use<> {
        let consumer = Weak::clone(&self.consumer);
        // A topic that need not exist, as for a ping.
        move || {
            consumer
                .upgrade()
                .is_none_or(|consumer| consumer.fetch_metadata(Some("windlass"), ANSWER).is_ok())
        }
    }

    /// Leaves the group, so that others get its partitions.
    pub(super) fn park(&self) {
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
        if let Some(topic) = made_anew(text) {
            self.intake.note_anew(topic);
        }
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => self.intake.note_gone(reason),
            Some(Code::AllBrokersDown) => {
                self.intake.report(self.health.explain(Problem::Outage(reason.into())));
                self.intake.note_cut_off();
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
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let Some(this) = self.consumer.get() else { return };
        let done = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.intake.assign(this, partitions);
            self.read_from_start(partitions).and_then(|()| consumer.incremental_assign(partitions))
        } else {
            self.intake.revoke(this, partitions, consumer.assignment_lost());
            consumer.incremental_unassign(partitions)
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a rebalance has failed; the next follows");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.intake.committed(offsets),
            // Nothing lost: what was settled is committed with the next, or comes again.
            Err(error) => tracing::debug!(%error, "a commit has failed"),
        }
    }
}

impl Member {
    /// Has those of `partitions` that are of topics made anew read from their start, the first time.
    fn read_from_start(&self, partitions: &mut TopicPartitionList) -> KafkaResult<()> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, partition) in partitions.to_topic_map().into_keys() {
            if self.anew.contains(&topic) && begun.insert((topic.clone(), partition)) {
                partitions.set_partition_offset(&topic, partition, Offset::Beginning)?;
            }
        }
        Ok(())
    }
}

/// The topic that was deleted and made anew, if a line of the library says so: as of a topic with another id than the
/// one it knew. No event tells of it, and the library deals with it badly: it goes on from the offset it has reached
/// in the old topic, and takes the leaders of the new one for outdated.
fn made_anew(line: &str) -> Option<&str> {
    let (topic, ids) = line.split_once("Topic ")?.1.split_once(" changed id from ")?;
    // The id of a topic not known before.
    (!ids.starts_with("AAAAAAAAAAAAAAAAAAAAAA ")).then_some(topic)
}

struct Poller {
    consumer: Option<Arc<BaseConsumer<Member>>>,
    weak: Weak<BaseConsumer<Member>>,
    intake: Arc<Intake>,
    group: String,
    /// By which the group knows this consumer.
    client: String,
    over: Arc<AtomicBool>,
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
        self.leave(consumer);
    }

    /// Leaves the group, and commits on the way, before the library is told to close: it closes at once, and tells
    /// the group nothing, when a rebalance is under way. The others would wait for this member until its session
    /// has run out.
    fn leave(&self, consumer: &BaseConsumer<Member>) {
        let until = Instant::now() + LEAVE;
        consumer.unsubscribe();
        // That takes effect once the rebalance is through, for which events of ours may be needed.
        while self.is_member(consumer) && Instant::now() < until {
            consumer.poll(TICK / 10);
        }
    }

    /// As far as the group knows. Without an answer there is no use in waiting.
    fn is_member(&self, consumer: &BaseConsumer<Member>) -> bool {
        let listed = || {
            let groups = consumer.fetch_group_list(Some(&self.group), LISTING).ok()?;
            let members = groups
                .groups()
                .iter()
                .filter(|group| group.name() == self.group)
                .flat_map(GroupInfo::members);
            Some(members.into_iter().any(|member| member.client_id() == self.client))
        };
        self.intake.has_partitions_of(&self.weak) || listed().unwrap_or(false)
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        if thread::panicking() {
            // The subscription must not wait for ever.
            self.intake.end(true);
        }
        // The queues of its partitions, which must go before it does.
        self.intake.clear(&self.weak);
        if let Some(consumer) = self.consumer.take() {
            end(consumer);
        }
        self.intake.left(&self.weak);
    }
}

/// Ends `consumer`, on this thread. Others hold it for the moment of a call that does not wait for this thread, and
/// whoever found himself the last to would end it: a worker's thread, and while this one says that it has left.
fn end(mut consumer: Arc<BaseConsumer<Member>>) {
    loop {
        match Arc::try_unwrap(consumer) {
            Ok(last) => return drop(last),
            Err(shared) => consumer = shared,
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_about_topics_made_anew_are_known() {
        let line = |from| {
            format!("[thrd:main]: Topic windlass.a.1 changed id from {from} to C1zLj0KoTL6Lj9tyRG69kg")
        };
        assert_eq!(made_anew(&line("Y77RrG+sTxuRs8wCN81Bkg")), Some("windlass.a.1"));
        assert_eq!(made_anew(&line("AAAAAAAAAAAAAAAAAAAAAA")), None);
        assert_eq!(made_anew("[thrd:main]: Topic windlass.a.1 [0] Leader 1 Epoch 0"), None);
    }
}
