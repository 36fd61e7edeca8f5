use std::collections::{HashMap, VecDeque};

use aws_sdk_sqs::types::Message as Received;
use tokio::time::Instant;
use windlass_core::{Delivery, DeliveryTag, Lane, Message, Priorities};

use super::api::{Settle, body};
use super::problem::Problem;
use super::settle::Settling;
use super::{BATCH, VISIBILITY};
use crate::rota::Rota;
use crate::unreadable;

/// Receives of one lane at once, at most.
const RECEIVES: usize = 16;

/// What a subscription has asked for and holds: the bookkeeping of [`Intake`](super::intake::Intake).
pub(super) struct State {
    rota: Rota,
    pub(super) lanes: Vec<LaneState>,
    capacity: usize,
    /// Everything received and not settled, by tag.
    pub(super) held: HashMap<u64, Held>,
    last_tag: u64,
    /// Not parked.
    pub(super) taking: bool,
    pub(super) ended: bool,
    /// To be reported by the next `receive`.
    pub(super) failure: Option<Problem>,
}

pub(super) struct LaneState {
    pub(super) lane: Lane,
    /// Tags of what was not handed out yet.
    buffer: VecDeque<u64>,
    /// Messages that are unacknowledged, or may be by the answer to a receive.
    pub(super) load: usize,
    /// Receives under way.
    receives: usize,
    /// Receives that may be under way.
    limit: usize,
    /// Messages for the next receive to ask for. It keeps room for as many while it waits.
    want: usize,
    deletes: Settling,
    releases: Settling,
}

pub(super) struct Held {
    pub(super) lane: usize,
    pub(super) receipt: String,
    message: Message,
    pub(super) handed_out: bool,
    /// When SQS gives it to others.
    pub(super) until: Instant,
}

/// A call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receive {
    pub(super) index: usize,
    pub(super) lane: Lane,
    pub(super) count: usize,
    /// For a message to come. Of a lane's receives only one waits: more would keep room for messages that may not come.
    pub(super) waits: bool,
}

impl State {
    pub(super) fn new(lanes: &[Lane], capacity: usize, priorities: Priorities) -> Self {
        let mut lanes = lanes.to_vec();
        let rota = Rota::new(&mut lanes, priorities);
        let capacity = capacity.max(lanes.len());
        let share = (capacity / lanes.len().max(1)).min(BATCH);
        Self {
            rota,
            lanes: lanes.into_iter().map(|lane| LaneState::new(lane, share)).collect(),
            capacity,
            held: HashMap::new(),
            last_tag: 0,
            taking: true,
            ended: false,
            failure: None,
        }
    }

    /// Hands out up to `max` messages.
    pub(super) fn take(&mut self, max: usize) -> Vec<Delivery> {
        let now = Instant::now();
        let Self { rota, lanes, held, .. } = self;
        let mut deliveries = Vec::new();
        rota.hand_out(max, |index, most| {
            let (lane, before) = (&mut lanes[index], deliveries.len());
            while deliveries.len() - before < most
                && let Some(tag) = lane.buffer.pop_front()
            {
                let Some(message) = held.get_mut(&tag) else { continue };
                if message.until <= now {
                    // It could not be kept, and comes again, to whomever.
                    held.remove(&tag);
                    lane.load -= 1;
                    continue;
                }
                message.handed_out = true;
                deliveries.push(Delivery { tag: DeliveryTag(tag), message: message.message.clone() });
            }
            deliveries.len() - before
        });
        deliveries
    }

    /// Everything that was not handed out is to be released.
    pub(super) fn release_buffers(&mut self) {
        for index in 0..self.lanes.len() {
            while let Some(tag) = self.lanes[index].buffer.pop_front() {
                self.discard(tag, Settle::Release);
            }
        }
    }

    /// A held message is to be settled.
    pub(super) fn discard(&mut self, tag: u64, how: Settle) {
        if let Some(held) = self.held.remove(&tag) {
            self.lanes[held.lane].settling(how).pending.push(held.receipt);
        }
    }

    /// The receives that there is room for, noted as under way; the most urgent lanes get it first, and each its part.
    pub(super) fn next_receives(&mut self) -> Vec<Receive> {
        let mut receives = Vec::new();
        if !self.taking || self.ended {
            return receives;
        }
        for index in 0..self.lanes.len() {
            while let Some(count) = self.room(index) {
                let state = &mut self.lanes[index];
                let (lane, waits) = (state.lane.clone(), state.receives == 0);
                state.receives += 1;
                state.load += count;
                receives.push(Receive { index, lane, count, waits });
            }
        }
        receives
    }

    /// How many messages one more receive of this lane may ask for.
    fn room(&self, index: usize) -> Option<usize> {
        let lane = &self.lanes[index];
        if lane.receives >= lane.limit {
            return None;
        }
        // Every lane has room for one message that no other takes.
        let taken: usize = self.lanes.iter().map(|lane| lane.load.max(1)).sum();
        let room = self.capacity.saturating_sub(taken) + usize::from(lane.load == 0);
        let room = room.min(self.rota.part(index, self.capacity).saturating_sub(lane.load));
        // With something at hand, or on its way, a small receive is not worth its price.
        let at_hand = lane.receives > 0 || !lane.buffer.is_empty();
        let least = if at_hand { (self.capacity / self.lanes.len() / 2).clamp(1, BATCH) } else { 1 };
        (room >= least).then(|| room.min(lane.want))
    }

    /// A receive is over, with or without an answer.
    pub(super) fn received(&mut self, receive: &Receive, answer: Option<Vec<Received>>) {
        let idle = (self.capacity / self.lanes.len() / 8).clamp(1, BATCH);
        let lane = &mut self.lanes[receive.index];
        lane.receives -= 1;
        lane.load -= receive.count;
        let Some(messages) = answer else { return };
        self.failure = None;
        if messages.is_empty() {
            lane.limit = 1;
            if receive.waits {
                lane.want = idle;
                self.rota.note(receive.index, true);
            }
        } else {
            self.rota.note(receive.index, false);
            lane.want = BATCH;
            if messages.len() >= receive.count {
                lane.limit = (2 * lane.limit).min(RECEIVES);
            }
        }
        for message in messages {
            self.hold(receive.index, &message);
        }
    }

    /// Takes in a message, unless it is not wanted any more or makes no sense.
    fn hold(&mut self, index: usize, received: &Received) {
        let lane = &mut self.lanes[index];
        let Some(receipt) = received.receipt_handle().map(str::to_owned) else { return };
        lane.load += 1;
        match unreadable::read("sqs", &lane.lane, &body(received)) {
            Some(message) if self.taking && !self.ended => {
                self.last_tag += 1;
                let until = Instant::now() + VISIBILITY;
                let held = Held { lane: index, receipt, message, handed_out: false, until };
                self.held.insert(self.last_tag, held);
                lane.buffer.push_back(self.last_tag);
            }
            Some(_) => lane.releases.pending.push(receipt),
            None => lane.deletes.pending.push(receipt),
        }
    }
}

impl LaneState {
    fn new(lane: Lane, want: usize) -> Self {
        Self {
            lane,
            buffer: VecDeque::new(),
            load: 0,
            receives: 0,
            limit: 1,
            want,
            deletes: Settling::default(),
            releases: Settling::default(),
        }
    }

    pub(super) fn settling(&mut self, how: Settle) -> &mut Settling {
        if how == Settle::Delete { &mut self.deletes } else { &mut self.releases }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::{JobId, Priority};

    use super::*;

    fn lanes() -> Vec<Lane> {
        Lane::of(&"q".parse().unwrap()).collect()
    }

    fn found(lane: &Lane, count: usize) -> Option<Vec<Received>> {
        let message = |_| {
            let message = Message {
                job_id: JobId::new(),
                attempt: 1,
                lane: lane.clone(),
                kind: "k".parse().unwrap(),
                trace: None,
                ordering_key: None,
            };
            let body = aws_smithy_types::base64::encode(message.encode());
            Received::builder().body(body).receipt_handle(message.job_id.to_string()).build()
        };
        Some((0..count).map(message).collect())
    }

    fn counts(receives: &[Receive]) -> Vec<(Priority, usize, bool)> {
        receives.iter().map(|receive| (receive.lane.priority, receive.count, receive.waits)).collect()
    }

    #[test]
    fn idle_lanes_leave_room_to_busy_ones() {
        let mut state = State::new(&lanes(), 100, Priorities::Weighted);
        let first = state.next_receives();
        let asked: Vec<_> = first.iter().map(|receive| (receive.count, receive.waits)).collect();
        assert_eq!(asked, [(10, true), (10, true), (10, true), (6, true)]);
        assert_eq!(state.next_receives(), []);
        for receive in &first {
            let messages = if receive.lane.priority == Priority::Low { receive.count } else { 0 };
            state.received(receive, found(&receive.lane, messages));
        }
        let busy = (Priority::Low, 10);
        assert_eq!(
            counts(&state.next_receives()),
            [
                (Priority::Urgent, 3, true),
                (Priority::High, 3, true),
                (Priority::Normal, 3, true),
                (busy.0, busy.1, true),
                (busy.0, busy.1, false),
            ]
        );
    }

    #[test]
    fn the_capacity_is_kept_and_no_lane_is_left_out() {
        for capacity in [0, 4, 5, 10, 33, 1_000] {
            let mut state = State::new(&lanes(), capacity, Priorities::Weighted);
            for _ in 0..100 {
                let receives = state.next_receives();
                for receive in &receives {
                    state.received(receive, found(&receive.lane, receive.count));
                }
                let load: usize = state.lanes.iter().map(|lane| lane.load).sum();
                assert!(load <= capacity.max(4), "{load} of {capacity}");
                assert!(state.lanes.iter().all(|lane| lane.load > 0));
            }
        }
    }

    #[test]
    fn small_receives_are_not_worth_it() {
        let mut state = State::new(&lanes()[..1], 20, Priorities::Weighted);
        let receive = state.next_receives().remove(0);
        state.received(&receive, found(&receive.lane, 10));
        // Two at once from now on, for the ten that there is room for.
        let receives = state.next_receives();
        assert_eq!(counts(&receives), [(Priority::Urgent, 10, true)]);
        state.received(&receives[0], found(&receive.lane, 10));
        let tags: Vec<u64> = state.take(20).iter().map(|delivery| delivery.tag.0).collect();
        assert_eq!(tags.len(), 20);
        // One is still at hand.
        state.lanes[0].buffer.push_back(tags[19]);
        for (settled, receives) in [(5, 0), (9, 0), (10, 1)] {
            state.lanes[0].load = 20 - settled;
            assert_eq!(state.next_receives().len(), receives, "{settled}");
        }
    }
}
