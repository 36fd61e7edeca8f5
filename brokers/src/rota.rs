use std::cmp::Reverse;
use std::ops::Range;

use windlass_core::Lane;

/// The order in which a subscription looks at its lanes: the most urgent first, and among equals each in turn,
/// so that no queue starves another.
#[derive(Debug)]
pub(crate) struct Rota {
    /// Lanes of one priority, as a range of the sorted lanes.
    groups: Vec<Range<usize>>,
    turn: usize,
}

impl Rota {
    /// Sorts `lanes`, drops what is named twice, and answers with the rota over their indices.
    pub(crate) fn new(lanes: &mut Vec<Lane>) -> Self {
        lanes.sort_by_key(|lane| (Reverse(lane.priority), lane.queue.clone()));
        lanes.dedup();
        let mut start = 0;
        let groups = lanes
            .chunk_by(|a, b| a.priority == b.priority)
            .map(|group| {
                let range = start..start + group.len();
                start = range.end;
                range
            })
            .collect();
        Self { groups, turn: 0 }
    }

    /// The indices of all lanes in the order of this turn.
    pub(crate) fn turn(&mut self) -> impl Iterator<Item = usize> {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        self.groups.iter().flat_map(move |group| {
            let len = group.len();
            (0..len).map(move |i| group.start + (i + turn % len) % len)
        })
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::Priority;

    use super::*;

    #[test]
    fn urgent_lanes_come_first_and_equals_take_turns() {
        let lane = |queue: &str, priority| Lane { queue: queue.parse().unwrap(), priority };
        let mut lanes = vec![
            lane("b", Priority::Normal),
            lane("a", Priority::Normal),
            lane("b", Priority::Urgent),
            lane("a", Priority::Normal),
        ];
        let mut rota = Rota::new(&mut lanes);
        let names: Vec<_> = lanes.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["windlass.b.3", "windlass.a.1", "windlass.b.1"]);
        let turns: Vec<Vec<usize>> = (0..3).map(|_| rota.turn().collect()).collect();
        assert_eq!(turns, [[0, 1, 2], [0, 2, 1], [0, 1, 2]]);
    }
}
