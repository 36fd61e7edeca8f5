use std::cmp::Reverse;

use windlass_core::{Lane, Priorities, Priority};

/// What a low message costs its lane; for others, the weight divides it.
const COST: u64 = 8;
/// How far a lane in which nothing waits falls behind, in its favour: by two low messages or sixteen urgent ones. It makes
/// up for messages that are on their way from the broker when it is their turn.
const CREDIT: u64 = 2 * COST;

/// Whose turn it is among the lanes of a subscription.
///
/// Each lane pays for the messages it is given, the less the greater its weight, and the next one goes to the lane that
/// has paid least. So every lane gets its share in time, whatever the size of the groups in which messages are taken,
/// and lanes of one priority are equals.
#[derive(Debug)]
pub(crate) struct Rota {
    priorities: Priorities,
    /// In the order of the lanes.
    turns: Vec<Turn>,
}

#[derive(Debug)]
struct Turn {
    priority: Priority,
    paid: u64,
    /// The broker had nothing when last asked.
    idle: bool,
}

/// A lane to ask for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Its index.
    pub(crate) lane: usize,
    /// How many it may give, beside what the lanes before it have left of theirs.
    pub(crate) share: usize,
}

impl Rota {
    /// Sorts `lanes`, the most urgent first, drops what is named twice, and answers with the rota over their indices.
    pub(crate) fn new(lanes: &mut Vec<Lane>, priorities: Priorities) -> Self {
        lanes.sort_by_key(|lane| (Reverse(lane.priority), lane.queue.clone()));
        lanes.dedup();
        let turn = |lane: &Lane| Turn { priority: lane.priority, paid: 0, idle: false };
        Self { priorities, turns: lanes.iter().map(turn).collect() }
    }

    /// Hands out up to `room` messages that are at hand, by `take`, which is told a lane and how many of it at most, and
    /// answers how many there were. Should they be fewer in all, every lane has been asked for more than it had.
    pub(crate) fn hand_out(&mut self, room: usize, mut take: impl FnMut(usize, usize) -> usize) {
        let mut empty = vec![false; self.turns.len()];
        let mut left = room;
        while left > 0 && empty.contains(&false) {
            for Ask { lane, share } in self.divide(left, |lane| if empty[lane] { 0 } else { usize::MAX }) {
                if share > 0 {
                    let count = take(lane, share);
                    empty[lane] = count < share;
                    self.charge(lane, count);
                    left = left.saturating_sub(count);
                }
            }
        }
        self.keep_up(&empty);
    }

    /// Divides `room` among the lanes, in the order to ask them. What is left because all have their `most` goes to the
    /// first one that may have any.
    fn divide(&self, room: usize, most: impl Fn(usize) -> usize) -> Vec<Ask> {
        let mut asks: Vec<Ask> = (0..self.turns.len()).map(|lane| Ask { lane, share: 0 }).collect();
        let mut left = room;
        if self.priorities == Priorities::Weighted {
            let mut paid: Vec<u64> = self.turns.iter().map(|turn| turn.paid).collect();
            while left > 0 {
                let open = asks.iter_mut().filter(|ask| ask.share < most(ask.lane));
                let Some(next) = open.min_by_key(|ask| paid[ask.lane]) else { break };
                next.share += 1;
                paid[next.lane] += self.cost(&self.turns[next.lane]);
                left -= 1;
            }
        }
        asks.sort_by_key(|ask| {
            let turn = &self.turns[ask.lane];
            match self.priorities {
                Priorities::Weighted => (Reverse(None), !turn.idle, turn.paid),
                Priorities::Strict => (Reverse(Some(turn.priority)), false, turn.paid),
            }
        });
        if let Some(first) = asks.iter_mut().find(|ask| most(ask.lane) > 0) {
            first.share += left;
        }
        asks
    }

    fn cost(&self, turn: &Turn) -> u64 {
        match self.priorities {
            Priorities::Weighted => COST / turn.priority.weight(),
            Priorities::Strict => 1,
        }
    }

    fn charge(&mut self, lane: usize, count: usize) {
        self.turns[lane].paid += self.cost(&self.turns[lane]) * count as u64;
    }

    /// No lane falls behind the others by more than its credit.
    fn keep_up(&mut self, idle: &[bool]) {
        let busy = self.turns.iter().zip(idle).filter(|(_, idle)| !**idle).map(|(turn, _)| turn.paid).min();
        let now = busy.or_else(|| self.turns.iter().map(|turn| turn.paid).max()).unwrap_or_default();
        for turn in &mut self.turns {
            turn.paid = turn.paid.max(now.saturating_sub(CREDIT));
        }
    }
}

/// For drivers that must go and look.
#[cfg(any(test, feature = "nats", feature = "postgres", feature = "redis", feature = "sqlite"))]
impl Rota {
    /// Divides `room` among the lanes: every lane, in the order to ask them. Those that had nothing last time are asked
    /// for one, so that others need not wait in vain for what they leave.
    pub(crate) fn ask(&self, room: usize) -> Vec<Ask> {
        self.divide(room, |lane| if self.turns[lane].idle { 1 } else { usize::MAX })
    }

    /// Notes how many messages each lane has given, with what they were asked for, if they were.
    pub(crate) fn took(&mut self, asks: &[Ask], taken: &[usize]) {
        let mut room = 0;
        for Ask { lane, share } in asks {
            room += share;
            if room > 0 {
                self.turns[*lane].idle = taken[*lane] < room;
            }
            room = room.saturating_sub(taken[*lane]);
        }
        for (lane, count) in taken.iter().enumerate() {
            self.charge(lane, *count);
        }
        let idle: Vec<bool> = self.turns.iter().map(|turn| turn.idle).collect();
        self.keep_up(&idle);
    }
}

/// For drivers that ask long before they hand out.
#[cfg(any(test, feature = "sqs"))]
impl Rota {
    /// Notes that a lane had nothing, or that it had.
    pub(crate) fn note(&mut self, lane: usize, idle: bool) {
        self.turns[lane].idle = idle;
    }

    /// A lane's part of `capacity` beside those that are not idle, and at least one.
    pub(crate) fn part(&self, lane: usize, capacity: usize) -> usize {
        if self.priorities == Priorities::Strict {
            return capacity;
        }
        let weight = |turn: &Turn| (COST / self.cost(turn)) as usize;
        let counts = |(other, turn): &(usize, &Turn)| *other == lane || !turn.idle;
        let all: usize = self.turns.iter().enumerate().filter(counts).map(|(_, turn)| weight(turn)).sum();
        (capacity.saturating_mul(weight(&self.turns[lane])) / all).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rota(priorities: Priorities, queues: &[&str]) -> (Rota, Vec<Lane>) {
        let mut lanes: Vec<Lane> =
            queues.iter().flat_map(|queue| Lane::of(&queue.parse().unwrap()).collect::<Vec<_>>()).collect();
        (Rota::new(&mut lanes, priorities), lanes)
    }

    /// Hands out from `waiting`.
    fn hand_out(rota: &mut Rota, waiting: &mut [usize], room: usize) -> Vec<usize> {
        let mut found = vec![0; waiting.len()];
        rota.hand_out(room, |lane, most| {
            let count = most.min(waiting[lane]);
            waiting[lane] -= count;
            found[lane] += count;
            count
        });
        found
    }

    /// Asks as a driver does that must go and look.
    fn ask(rota: &mut Rota, waiting: &mut [usize], room: usize) -> Vec<usize> {
        let asks = rota.ask(room);
        let mut found = vec![0; waiting.len()];
        let mut room = 0;
        for ask in &asks {
            room += ask.share;
            found[ask.lane] = room.min(waiting[ask.lane]);
            waiting[ask.lane] -= found[ask.lane];
            room -= found[ask.lane];
        }
        rota.took(&asks, &found);
        found
    }

    type Way = fn(&mut Rota, &mut [usize], usize) -> Vec<usize>;

    const WAYS: [Way; 2] = [hand_out, ask];

    #[test]
    fn lanes_are_sorted_and_named_once() {
        let lane = |queue: &str, priority| Lane { queue: queue.parse().unwrap(), priority };
        let mut lanes = vec![
            lane("b", Priority::Normal),
            lane("a", Priority::Normal),
            lane("b", Priority::Urgent),
            lane("a", Priority::Normal),
        ];
        Rota::new(&mut lanes, Priorities::Weighted);
        let names: Vec<_> = lanes.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["windlass.b.3", "windlass.a.1", "windlass.b.1"]);
    }

    #[test]
    fn each_lane_has_its_share_whatever_the_size_of_the_groups() {
        for way in WAYS {
            for room in [1, 2, 3, 7, 15, 100, 1_500] {
                let (mut rota, _) = rota(Priorities::Weighted, &["q"]);
                let mut waiting = [10_000; 4];
                let mut sum = [0; 4];
                while sum.iter().sum::<usize>() < 1_500 {
                    let found = way(&mut rota, &mut waiting, room);
                    assert_eq!(found.iter().sum::<usize>(), room, "no room is wasted");
                    (0..4).for_each(|lane| sum[lane] += found[lane]);
                }
                let all = sum.iter().sum::<usize>();
                for (lane, weight) in [8, 4, 2, 1].into_iter().enumerate() {
                    let due = all * weight / 15;
                    assert!(sum[lane].abs_diff(due) <= 1, "{room}: {sum:?}");
                }
            }
        }
    }

    #[test]
    fn what_idle_lanes_leave_goes_to_the_others_by_their_weights() {
        for way in WAYS {
            let (mut rota, _) = rota(Priorities::Weighted, &["q"]);
            // Nothing urgent, nothing normal.
            let mut waiting = [0, 10_000, 0, 10_000];
            let mut sum = [0; 4];
            for _ in 0..20 {
                let found = way(&mut rota, &mut waiting, 50);
                assert_eq!(found.iter().sum::<usize>(), 50);
                (0..4).for_each(|lane| sum[lane] += found[lane]);
            }
            assert!(sum[1].abs_diff(800) <= 50 && sum[1] + sum[3] == 1_000, "{sum:?}");
        }
    }

    #[test]
    fn what_comes_to_an_idle_lane_is_among_the_next() {
        for way in WAYS {
            for room in [1, 4, 50] {
                let (mut rota, _) = rota(Priorities::Weighted, &["q"]);
                let mut waiting = [0, 0, 0, 100_000];
                for _ in 0..1_000 {
                    way(&mut rota, &mut waiting, room);
                }
                waiting[0] = 1;
                waiting[1] = 1;
                let found: Vec<_> = (0..2).map(|_| way(&mut rota, &mut waiting, room)).collect();
                assert_eq!(waiting[..2], [0, 0], "{room}: {found:?}");
                // Nor does the long time without others tell against the lane that had none.
                waiting[0] = 100_000;
                let mut low = 0;
                for _ in 0..300 / room {
                    low += way(&mut rota, &mut waiting, room)[3];
                }
                assert!((300 / 9 - 3..=300 / 9 + 3).contains(&low) || room == 50, "{room}: {low}");
            }
        }
    }

    #[test]
    fn a_lane_that_was_empty_for_a_moment_makes_up_for_it() {
        let (mut rota, _) = rota(Priorities::Weighted, &["q"]);
        let mut sum = [0; 4];
        for round in 0..1_500 {
            // Every other time, what is urgent has not arrived yet.
            let mut waiting = [(round % 2) * 10, 10, 10, 10];
            let found = hand_out(&mut rota, &mut waiting, 1);
            (0..4).for_each(|lane| sum[lane] += found[lane]);
        }
        assert!(sum[0] >= 700 && sum[3] >= 90, "{sum:?}");
    }

    #[test]
    fn lanes_of_one_priority_are_equals() {
        for (priorities, way) in [Priorities::Weighted, Priorities::Strict].into_iter().zip(WAYS) {
            for room in [1, 10] {
                let (mut rota, lanes) = rota(priorities, &["a", "b", "c"]);
                let mut waiting: Vec<usize> =
                    lanes.iter().map(|lane| (lane.priority == Priority::Normal) as usize * 1_000).collect();
                let mut sum = vec![0; lanes.len()];
                for _ in 0..300 / room {
                    let found = way(&mut rota, &mut waiting, room);
                    (0..lanes.len()).for_each(|lane| sum[lane] += found[lane]);
                }
                for (lane, sum) in
                    lanes.iter().zip(&sum).filter(|(lane, _)| lane.priority == Priority::Normal)
                {
                    assert!(sum.abs_diff(100) <= 10, "{priorities:?} {lane}: {sum}");
                }
            }
        }
    }

    #[test]
    fn strictly_the_most_urgent_come_first() {
        for way in WAYS {
            let (mut rota, _) = rota(Priorities::Strict, &["q"]);
            let mut waiting = [25, 3, 0, 100];
            let found: Vec<_> = (0..4).map(|_| way(&mut rota, &mut waiting, 10)).collect();
            assert_eq!(found, [[10, 0, 0, 0], [10, 0, 0, 0], [5, 3, 0, 2], [0, 0, 0, 10]]);
            waiting[0] = 100;
            assert_eq!(way(&mut rota, &mut waiting, 10), [10, 0, 0, 0]);
        }
    }

    #[test]
    fn a_lane_has_its_part_of_the_capacity() {
        let (mut rota, _) = rota(Priorities::Weighted, &["q"]);
        let parts = |rota: &Rota| (0..4).map(|lane| rota.part(lane, 150)).collect::<Vec<_>>();
        assert_eq!(parts(&rota), [80, 40, 20, 10]);
        rota.note(0, true);
        rota.note(1, true);
        assert_eq!(parts(&rota), [109, 85, 100, 50]);
        assert_eq!(rota.part(3, 1), 1);
        rota.priorities = Priorities::Strict;
        assert_eq!(parts(&rota), [150; 4]);
    }
}
