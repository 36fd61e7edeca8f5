use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;
use windlass_core::{Delivery, DeliveryTag, Lane, Message};

use super::member::{Member, nudge};
use super::offsets::Offsets;
use super::problem::Problem;
use super::state::{End, Partition, State};
use crate::rota::Rota;

/// How long a partition that others shall have waits for what is in hand to be settled: claims take milliseconds,
/// and what is settled in time does not come again elsewhere.
const GRACE: Duration = Duration::from_millis(100);

/// How long to wait for the offsets of partitions that come back.
const RESUME: Duration = Duration::from_secs(1);

/// What a subscription shares with the threads of its consumers, which learn of rebalances within the library's
/// calls: hence a lock, held for moves within memory only.
pub(super) struct Intake {
    /// Most urgent first.
    pub(super) lanes: Vec<Lane>,
    capacity: usize,
    state: Mutex<State>,
    /// What to report. Apart from the state, since the library tells of errors while it is asked for messages.
    problem: Mutex<Option<Problem>>,
    /// A topic is not there.
    missing: AtomicBool,
    /// Lanes of which it was said that theirs is not. Apart from the state as well.
    gone: Mutex<BTreeSet<usize>>,
    /// A consumer has lost all brokers.
    cut_off: AtomicBool,
    /// Something was settled.
    settled: Condvar,
    /// Those on their way out of their groups.
    leaving: TaskTracker,
    /// Something has come, or there is something to report.
    pub(super) wake: Notify,
}

impl Intake {
    pub(super) fn new(lanes: Vec<Lane>, capacity: usize, leaving: TaskTracker) -> Arc<Self> {
        let state = State::new(lanes.len());
        let capacity = capacity.max(lanes.len());
        Arc::new(Self {
            lanes,
            capacity,
            state: Mutex::new(state),
            problem: Mutex::default(),
            missing: AtomicBool::new(false),
            gone: Mutex::default(),
            cut_off: AtomicBool::new(false),
            settled: Condvar::new(),
            leaving,
            wake: Notify::new(),
        })
    }

    /// Up to `max` messages at hand; none when there is no room. An error if there is something to report instead.
    pub(super) fn take(&self, max: usize, rota: &mut Rota) -> Result<Vec<Delivery>, Problem> {
        let mut state = self.state();
        if state.end != End::No {
            return Err(Problem::Closed);
        }
        let room = self.capacity.saturating_sub(state.tags.len()).min(max);
        let mut deliveries = Vec::new();
        rota.hand_out(room, |lane, most| {
            let before = deliveries.len();
            state.take(lane, &self.lanes[lane], before + most, &mut deliveries);
            deliveries.len() - before
        });
        match self.problem().take_if(|_| deliveries.is_empty()) {
            Some(problem) => Err(problem),
            None => Ok(deliveries),
        }
    }

    /// The messages behind `tags`, without the stale ones.
    pub(super) fn messages(&self, tags: &[DeliveryTag]) -> Vec<(DeliveryTag, Message)> {
        let state = self.state();
        let message = |tag: &DeliveryTag| {
            let (lane, partition, offset) = *state.tags.get(&tag.0)?;
            Some((*tag, state.offsets.get(&(lane, partition))?.message(offset)?.clone()))
        };
        tags.iter().filter_map(message).collect()
    }

    /// Notes `tags` as settled. The commit follows by itself.
    pub(super) fn settle(&self, tags: impl IntoIterator<Item = DeliveryTag>) {
        let mut state = self.state();
        let mut touched = Vec::new();
        for tag in tags {
            let Some((lane, partition, offset)) = state.tags.remove(&tag.0) else { continue };
            if let Some(offsets) = state.offsets.get_mut(&(lane, partition)) {
                offsets.settle(offset);
                touched.push((lane, partition));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for (lane, partition) in touched {
            state.store(lane, &self.lanes[lane], partition);
        }
        drop(state);
        self.settled.notify_all();
    }

    /// How many messages of a partition that are not committed have been handed out here.
    pub(super) fn given_since(&self, lane: &Lane, partition: i32, committed: i64) -> u64 {
        let Some(lane) = self.lanes.iter().position(|mine| mine == lane) else { return 0 };
        self.state().offsets.get(&(lane, partition)).map_or(0, |offsets| offsets.given_since(committed))
    }

    pub(super) fn assignments(&self) -> usize {
        self.state().assignments
    }

    /// A problem that passes only by someone's doing.
    pub(super) fn config_problem(&self) -> Option<Problem> {
        self.problem().take_if(|problem| problem.is_config())
    }

    pub(super) fn report(&self, problem: Problem) {
        *self.problem() = Some(problem);
        self.wake.notify_one();
    }

    /// Notes that the topic is not there that the library's `reason` names.
    pub(super) fn note_gone(&self, reason: &str) {
        if let Some(lane) = self.lanes.iter().position(|lane| reason.contains(&format!(": {lane}: "))) {
            self.gone().insert(lane);
        }
        self.note_missing();
    }

    /// Notes that a topic is not there.
    pub(super) fn note_missing(&self) {
        self.missing.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether a topic is not there; answered once for each time it is noted.
    pub(super) fn take_missing(&self) -> bool {
        self.missing.swap(false, Ordering::Relaxed)
    }

    /// Notes that a consumer has lost all brokers.
    pub(super) fn note_cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether a consumer has lost all brokers; answered once for each time it is noted.
    pub(super) fn take_cut_off(&self) -> bool {
        self.cut_off.swap(false, Ordering::Relaxed)
    }

    /// Whether the topic of `lane` was read from, and then was not there: whoever has made it since, it is another.
    pub(super) fn take_gone(&self, lane: &Lane) -> bool {
        let Some(lane) = self.lanes.iter().position(|mine| mine == lane) else { return false };
        self.gone().remove(&lane) && self.state().offsets.keys().any(|(read, _)| *read == lane)
    }

    /// Notes that the topic of `name`, if it is a lane's, was made anew. Nothing more is taken from the partitions of
    /// the old one. The offsets reached in it are none of the new one's, whose messages the next commit, as when the
    /// partitions are given up, must not skip.
    pub(super) fn note_anew(&self, name: &str) {
        let Some(lane) = self.lanes.iter().position(|lane| lane.to_string() == name) else { return };
        let mut state = self.state();
        for partition in &mut state.assigned[lane] {
            partition.leaving = true;
            partition.store(&self.lanes[lane], 0);
        }
        state.offsets.retain(|(other, _), _| *other != lane);
        state.anew.insert(lane);
        drop(state);
        self.wake.notify_one();
    }

    /// The topics of the lanes that were made anew, to be read by new consumers and from their start.
    pub(super) fn take_anew(&self) -> HashSet<String> {
        let lanes = std::mem::take(&mut self.state().anew);
        lanes.into_iter().map(|lane| self.lanes[lane].to_string()).collect()
    }

    /// Whether there is a lane of which nothing is ours.
    pub(super) fn lacks_a_lane(&self) -> bool {
        self.state().assigned.iter().any(Vec::is_empty)
    }

    /// Notes a consumer, whose thread is about to start.
    pub(super) fn join(&self, consumer: Weak<BaseConsumer<Member>>) {
        self.state().consumers.push(consumer);
    }

    /// The consumer may read from `partitions` from now on. To be called before the library starts to.
    pub(super) fn assign(
        self: &Arc<Self>,
        consumer: &Weak<BaseConsumer<Member>>,
        partitions: &TopicPartitionList,
    ) {
        let Some(alive) = consumer.upgrade() else { return };
        let assigned = self.find(partitions);
        self.resume(&alive, &assigned);
        for (lane, number) in assigned {
            let Some(mut queue) = alive.split_partition_queue(&self.lanes[lane].to_string(), number) else {
                continue;
            };
            let intake = Arc::downgrade(self);
            queue.set_nonempty_callback(move || {
                if let Some(intake) = intake.upgrade() {
                    intake.wake.notify_one();
                }
            });
            let partition = Partition { number, consumer: Weak::clone(consumer), queue, leaving: false };
            let mut state = self.state();
            state.assigned[lane].push(partition);
            state.store(lane, &self.lanes[lane], number);
        }
        self.state().assignments += 1;
        self.wake.notify_one();
    }

    /// Asks where those of `partitions` begin that were ours before, as far as something of them is remembered.
    fn resume(&self, consumer: &BaseConsumer<Member>, partitions: &[(usize, i32)]) {
        let mut list = TopicPartitionList::new();
        let mut state = self.state();
        for &(lane, number) in partitions {
            // A consumer that this one replaces may not know yet.
            state.lose(lane, |other| other.number == number);
            if state.offsets.get(&(lane, number)).is_some_and(Offsets::remembers) {
                list.add_partition(&self.lanes[lane].to_string(), number);
            }
        }
        drop(state);
        if list.count() == 0 {
            return;
        }
        // Without an answer it becomes known as they are read.
        let Ok(committed) = consumer.committed_offsets(list, RESUME) else { return };
        let mut state = self.state();
        for key in self.find(&committed) {
            let found = committed.find_partition(&self.lanes[key.0].to_string(), key.1);
            if let Some(element) = found
                && element.error().is_ok()
                && let Some(offsets) = state.offsets.get_mut(&key)
            {
                // Nothing committed: from the start.
                offsets.resume(element.offset().to_raw().unwrap_or(0).max(0));
            }
        }
    }

    /// The consumer must give `partitions` up. Waits a little for what is in hand, unless they are `lost` already.
    pub(super) fn revoke(
        &self,
        consumer: &Weak<BaseConsumer<Member>>,
        partitions: &TopicPartitionList,
        lost: bool,
    ) {
        let revoked = self.find(partitions);
        let mut state = self.state();
        for (lane, number) in &revoked {
            let mine = |partition: &&mut Partition| partition.is(*number, consumer);
            state.assigned[*lane].iter_mut().filter(mine).for_each(|partition| partition.leaving = true);
        }
        let until = Instant::now() + GRACE;
        let open =
            |state: &State| revoked.iter().any(|key| state.offsets.get(key).is_some_and(Offsets::is_open));
        while !lost && state.end == End::No && open(&state) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        for (lane, number) in revoked {
            state.lose(lane, |partition| partition.is(number, consumer));
        }
    }

    /// Notes which commits have succeeded.
    pub(super) fn committed(&self, offsets: &TopicPartitionList) {
        let mut state = self.state();
        for element in offsets.elements() {
            let lane = self.lanes.iter().position(|lane| lane.to_string() == element.topic());
            if let (Some(lane), Ok(()), Offset::Offset(floor)) = (lane, element.error(), element.offset())
                && let Some(offsets) = state.offsets.get_mut(&(lane, element.partition()))
            {
                offsets.committed(floor);
            }
        }
    }

    /// Whether `consumer` has partitions here.
    pub(super) fn has_partitions_of(&self, consumer: &Weak<BaseConsumer<Member>>) -> bool {
        self.state().assigned.iter().flatten().any(|partition| partition.consumer.ptr_eq(consumer))
    }

    /// Ends everything: nothing is handed out any more, no rebalance waits, and the consumers leave their groups.
    pub(super) fn end(&self, closed: bool) {
        let mut state = self.state();
        if state.end != End::No {
            return;
        }
        state.end = if closed { End::Closed } else { End::Dropped };
        let consumers = state.consumers.clone();
        if !consumers.is_empty() {
            state.going = Some(self.leaving.token());
        }
        drop(state);
        self.settled.notify_all();
        self.wake.notify_one();
        for consumer in consumers.iter().filter_map(Weak::upgrade) {
            nudge(&consumer);
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.state().end != End::No
    }

    /// Lets go of the queues of `consumer`, which keep it alive.
    pub(super) fn clear(&self, consumer: &Weak<BaseConsumer<Member>>) {
        let mut state = self.state();
        for lane in 0..self.lanes.len() {
            state.lose(lane, |partition| partition.consumer.ptr_eq(consumer));
        }
    }

    /// `consumer` has left its group.
    pub(super) fn left(&self, consumer: &Weak<BaseConsumer<Member>>) {
        let mut state = self.state();
        state.consumers.retain(|other| !other.ptr_eq(consumer));
        if state.consumers.is_empty() {
            state.going = None;
        }
    }

    /// Lanes and partitions as they are known here.
    fn find(&self, partitions: &TopicPartitionList) -> Vec<(usize, i32)> {
        let find = |topic: &str| self.lanes.iter().position(|lane| lane.to_string() == topic);
        let all = partitions.elements();
        all.iter().filter_map(|element| Some((find(element.topic())?, element.partition()))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn problem(&self) -> MutexGuard<'_, Option<Problem>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Priority;

    use super::*;

    #[test]
    fn a_topic_that_was_read_and_is_not_there_is_gone_once() {
        let lane = |queue: &str| Lane { queue: queue.parse().unwrap(), priority: Priority::Normal };
        let lanes = vec![lane("b"), lane("a-b"), lane("c")];
        let intake = Intake::new(lanes.clone(), 1, TaskTracker::new());
        for read in 0..2 {
            intake.state().offsets.insert((read, 0), Offsets::default());
        }
        for gone in &lanes[1..] {
            intake.note_gone(&format!(
                "Subscribed topic not available: {gone}: Broker: Unknown topic or partition"
            ));
        }
        assert!(intake.take_missing());
        assert_eq!(lanes.iter().map(|lane| intake.take_gone(lane)).collect::<Vec<_>>(), [false, true, false]);
        assert!(!intake.take_gone(&lanes[1]));
    }
}
