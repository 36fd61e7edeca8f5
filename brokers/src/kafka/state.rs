use std::collections::{BTreeSet, HashMap};
use std::sync::Weak;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::task::task_tracker::TaskTrackerToken;
use windlass_core::{Delivery, DeliveryTag, Lane};

use super::member::Member;
use super::offsets::{Offsets, Read};
use super::publish::keyed;
use crate::unreadable;

/// What a subscription has, lane by lane: guarded by the lock of its [`Intake`](super::intake::Intake).
#[derive(Default)]
pub(super) struct State {
    /// By lane.
    pub(super) assigned: Vec<Vec<Partition>>,
    /// By lane and partition.
    pub(super) offsets: HashMap<(usize, i32), Offsets>,
    /// What is unsettled: the lane, partition and offset of each.
    pub(super) tags: HashMap<u64, (usize, i32, i64)>,
    last_tag: u64,
    /// Lanes whose topics are others than those that the consumers know.
    pub(super) anew: BTreeSet<usize>,
    /// How often a group has given partitions to one of the consumers.
    pub(super) assignments: usize,
    pub(super) consumers: Vec<Weak<BaseConsumer<Member>>>,
    pub(super) end: End,
    /// Held from the end until the last consumer has left.
    pub(super) going: Option<TaskTrackerToken>,
}

#[derive(Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    No,
    Dropped,
    Closed,
}

/// A partition while it is ours. The library keeps what it has fetched from it in a queue of its own, so that urgent
/// lanes need not wait behind others.
pub(super) struct Partition {
    pub(super) number: i32,
    pub(super) consumer: Weak<BaseConsumer<Member>>,
    pub(super) queue: PartitionQueue<Member>,
    /// About to be given up.
    pub(super) leaving: bool,
}

impl Partition {
    pub(super) fn is(&self, number: i32, consumer: &Weak<BaseConsumer<Member>>) -> bool {
        self.number == number && self.consumer.ptr_eq(consumer)
    }

    /// Hands the library the offset to commit.
    pub(super) fn store(&self, lane: &Lane, offset: i64) {
        let mut list = TopicPartitionList::new();
        let stored = list
            .add_partition_offset(&lane.to_string(), self.number, Offset::Offset(offset))
            .and_then(|()| self.consumer.upgrade().map_or(Ok(()), |consumer| consumer.store_offsets(&list)));
        if let Err(error) = stored {
            // It is being taken away: its messages come again.
            tracing::debug!(%lane, partition = self.number, %error, "an offset could not be stored");
        }
    }
}

impl State {
    pub(super) fn new(lanes: usize) -> Self {
        Self { assigned: (0..lanes).map(|_| Vec::new()).collect(), ..Self::default() }
    }

    /// Adds what is at hand in `lane` until there are `room`.
    pub(super) fn take(&mut self, lane: usize, name: &Lane, room: usize, deliveries: &mut Vec<Delivery>) {
        let Self { assigned, offsets, tags, last_tag, .. } = self;
        let partitions = &mut assigned[lane];
        let mut skipped = Vec::new();
        // Each begins in its turn.
        let next = partitions.len().min(1);
        partitions.rotate_left(next);
        for partition in partitions.iter().filter(|partition| !partition.leaving) {
            let offsets = offsets.entry((lane, partition.number)).or_default();
            while deliveries.len() < room {
                // An error is noted by the consumer's context.
                let Some(Ok(found)) = partition.queue.poll(Duration::ZERO) else { break };
                let (offset, payload) = (found.offset(), found.payload().unwrap_or_default());
                match unreadable::read("kafka", name, payload) {
                    Some(message) => {
                        let message = keyed(message, found.key());
                        *last_tag += 1;
                        let Read::New { replaces } = offsets.read(offset, *last_tag, &message) else {
                            continue;
                        };
                        if let Some(tag) = replaces {
                            tags.remove(&tag);
                        }
                        tags.insert(*last_tag, (lane, partition.number, offset));
                        deliveries.push(Delivery { tag: DeliveryTag(*last_tag), message });
                    }
                    None => {
                        offsets.skip(offset);
                        skipped.push(partition.number);
                    }
                }
            }
        }
        for partition in skipped {
            self.store(lane, name, partition);
        }
    }

    /// Hands the library the offset to commit, if the partition is ours.
    pub(super) fn store(&mut self, lane: usize, name: &Lane, number: i32) {
        let Some(partition) = self.assigned[lane].iter().find(|partition| partition.number == number) else {
            return;
        };
        if let Some(floor) = self.offsets.get(&(lane, number)).and_then(Offsets::floor) {
            partition.store(name, floor);
        }
    }

    /// Notes which partitions are no longer ours.
    pub(super) fn lose(&mut self, lane: usize, lost: impl Fn(&Partition) -> bool) {
        for partition in self.assigned[lane].extract_if(.., |partition| lost(partition)) {
            if let Some(offsets) = self.offsets.get_mut(&(lane, partition.number)) {
                offsets.lose();
            }
        }
    }
}
