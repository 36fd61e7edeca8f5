use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};
use windlass_core::{Delivery, DeliveryTag, Lane, Message, Priority};

use super::LEASE;
use super::problem::Problem;
use crate::rota::Rota;

/// Pulls at once for a lane: while the answer to one is on its way, another waits at the server.
pub(super) const PULLS: usize = 2;
/// What Pub/Sub gives for one pull.
const MOST: usize = 1000;
/// How long a message is safe after it was pulled, whatever the subscription's own deadline: the least there is.
const SAFE: Duration = Duration::from_secs(10);
/// How much of a lease must be left at a look; enough for two more.
const MARGIN: Duration = Duration::from_secs(7);

/// What a subscription has, and what it may take. Everything that was asked for or has come counts against the lane's
/// share until it is settled.
pub(super) struct State {
    sides: Vec<Side>,
    /// Everything that has come, by tag.
    unsettled: BTreeMap<u64, Held>,
    last_tag: u64,
    /// Until the next `receive`, what comes goes back.
    pub(super) parked: bool,
    /// For good: dropped or closed.
    pub(super) ended: bool,
    /// For the next `receive` to report.
    pub(super) problem: Option<Problem>,
}

/// One lane's part.
struct Side {
    share: usize,
    room: usize,
    /// Come and not handed out.
    waiting: VecDeque<(u64, Message)>,
}

/// A message that Pub/Sub waits to hear of.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) side: usize,
    /// The lane's life in which it came.
    pub(super) epoch: u64,
    pub(super) ack_id: String,
    until: Instant,
}

impl State {
    pub(super) fn new(shares: &[usize]) -> Self {
        let side = |&share: &usize| Side { share, room: share, waiting: VecDeque::new() };
        Self {
            sides: shares.iter().map(side).collect(),
            unsettled: BTreeMap::new(),
            last_tag: 0,
            parked: false,
            ended: false,
            problem: None,
        }
    }

    /// How many to pull now, which counts as taken. `None`: not now.
    pub(super) fn ask(&mut self, side: usize) -> Option<usize> {
        let side = self.sides.get_mut(side)?;
        let count = side.room.min(side.share.div_ceil(PULLS)).min(MOST);
        if self.parked || count == 0 {
            return None;
        }
        side.room -= count;
        Some(count)
    }

    /// Takes in what a pull has brought. Answers with what must go back, if nobody wants it any more.
    pub(super) fn arrived(&mut self, came: Vec<(Held, Message)>) -> Vec<Held> {
        if self.parked || self.ended {
            return came.into_iter().map(|(held, _)| held).collect();
        }
        for (held, message) in came {
            self.last_tag += 1;
            if let Some(side) = self.sides.get_mut(held.side) {
                side.waiting.push_back((self.last_tag, message));
            }
            self.unsettled.insert(self.last_tag, held);
        }
        Vec::new()
    }

    /// Up to `max` messages.
    pub(super) fn hand_out(&mut self, rota: &mut Rota, max: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        rota.hand_out(max, |side, most| {
            let Some(side) = self.sides.get_mut(side) else { return 0 };
            let count = side.waiting.len().min(most);
            let tagged = side.waiting.drain(..count);
            deliveries.extend(tagged.map(|(tag, message)| Delivery { tag: DeliveryTag(tag), message }));
            count
        });
        deliveries
    }

    /// What `tags` stand for, without the stale ones. Its room is yet to be [freed](Self::free).
    pub(super) fn settle(&mut self, tags: &[DeliveryTag]) -> Vec<Held> {
        tags.iter().filter_map(|tag| self.unsettled.remove(&tag.0)).collect()
    }

    /// Parks, and answers with what was not handed out.
    pub(super) fn park(&mut self) -> Vec<Held> {
        self.parked = true;
        let waiting = self.sides.iter_mut().flat_map(|side| side.waiting.drain(..));
        waiting.filter_map(|(tag, _)| self.unsettled.remove(&tag)).collect()
    }

    /// Ends, and answers with everything.
    pub(super) fn end(&mut self) -> Vec<Held> {
        self.ended = true;
        self.sides.iter_mut().for_each(|side| side.waiting.clear());
        std::mem::take(&mut self.unsettled).into_values().collect()
    }

    pub(super) fn free(&mut self, side: usize, count: usize) {
        if let Some(side) = self.sides.get_mut(side) {
            side.room += count;
        }
    }

    /// What needs a longer lease now.
    pub(super) fn due(&self, now: Instant) -> (Vec<u64>, Vec<Held>) {
        self.unsettled
            .iter()
            .filter(|(_, held)| held.until < now + MARGIN)
            .map(|(tag, held)| (*tag, held.clone()))
            .unzip()
    }

    pub(super) fn extended(&mut self, tags: &[u64], at: Instant) {
        for tag in tags {
            if let Some(held) = self.unsettled.get_mut(tag) {
                held.until = at + Duration::from_secs(LEASE.unsigned_abs().into());
            }
        }
    }
}

impl Held {
    pub(super) fn new(side: usize, epoch: u64, ack_id: String) -> Self {
        Self { side, epoch, ack_id, until: Instant::now() + SAFE }
    }
}

/// Divides `capacity` among the lanes: one for each, since a waiting pull reserves what it asks for, and of what is
/// left five parts to a normal lane for one to any other, as that is where most jobs go.
pub(super) fn shares(lanes: &[Lane], capacity: usize) -> Vec<usize> {
    let weight = |lane: &Lane| if lane.priority == Priority::Normal { 5 } else { 1 };
    let total: usize = lanes.iter().map(weight).sum();
    let left = capacity.saturating_sub(lanes.len());
    lanes.iter().map(|lane| 1 + left.saturating_mul(weight(lane)) / total.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use windlass_core::Priorities;

    use super::*;

    fn came(count: usize) -> Vec<(Held, Message)> {
        let message = Message {
            job_id: uuid(),
            attempt: 1,
            lane: Lane { queue: "q".parse().unwrap(), priority: Priority::Normal },
            kind: "k".parse().unwrap(),
            trace: None,
            ordering_key: None,
        };
        (0..count).map(|n| (Held::new(0, 1, n.to_string()), message.clone())).collect()
    }

    fn uuid() -> windlass_core::JobId {
        windlass_core::JobId::new()
    }

    /// Of one lane.
    fn rota() -> Rota {
        let lane = Lane { queue: "q".parse().unwrap(), priority: Priority::Normal };
        Rota::new(&mut vec![lane], Priorities::Weighted)
    }

    #[test]
    fn asks_for_no_more_than_its_share() {
        let mut state = State::new(&[5]);
        assert_eq!([state.ask(0), state.ask(0), state.ask(0)], [Some(3), Some(2), None]);
        // One of three came.
        state.free(0, 2);
        assert!(state.arrived(came(1)).is_empty());
        assert_eq!([state.ask(0), state.ask(0)], [Some(2), None]);
        let found = state.hand_out(&mut rota(), 10);
        assert_eq!(state.ask(0), None, "handed out is not settled");
        assert_eq!(state.settle(&[found[0].tag, found[0].tag]).len(), 1);
        state.free(0, 1);
        assert_eq!(state.ask(0), Some(1));
        assert_eq!(State::new(&[10_000]).ask(0), Some(1000));
    }

    #[test]
    fn a_parked_subscription_keeps_only_what_was_handed_out() {
        let mut state = State::new(&[10]);
        assert!(state.arrived(came(5)).is_empty());
        let found = state.hand_out(&mut rota(), 2);
        assert_eq!(state.park().len(), 3);
        assert_eq!(state.arrived(came(4)).len(), 4, "what comes too late goes back");
        assert_eq!(state.ask(0), None);
        assert_eq!(state.settle(&[found[0].tag]).len(), 1);
        assert_eq!(state.end().len(), 1);
        assert_eq!(state.settle(&[found[1].tag]).len(), 0);
    }

    #[test]
    fn a_lease_is_extended_before_it_ends() {
        let mut state = State::new(&[10]);
        assert!(state.arrived(came(2)).is_empty());
        let now = Instant::now();
        assert_eq!(state.due(now).0, [0u64; 0]);
        let later = now + Duration::from_secs(4);
        let (tags, _) = state.due(later);
        assert_eq!(tags, [1, 2]);
        state.extended(&tags, later);
        assert_eq!(state.due(later + Duration::from_secs(20)).0, [0u64; 0]);
        assert_eq!(state.due(later + Duration::from_secs(24)).0, [1, 2]);
    }

    #[test]
    fn shares_fit_the_capacity() {
        let lanes: Vec<Lane> = Lane::of(&"q".parse().unwrap()).collect();
        for (capacity, expected) in
            [(0, [1, 1, 1, 1]), (4, [1, 1, 1, 1]), (10, [1, 1, 4, 1]), (804, [101, 101, 501, 101])]
        {
            assert_eq!(shares(&lanes, capacity), expected, "{capacity}");
        }
        assert_eq!(shares(&lanes[..1], 10), [10]);
    }
}
