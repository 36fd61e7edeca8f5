use tokio::time::Instant;

/// The requests for messages ("pulls") that are under way: at most one for each lane. What they may yet bring
/// counts against the capacity.
#[derive(Debug)]
pub(super) struct Pulls {
    lanes: Vec<Option<Pull>>,
    last: u64,
}

#[derive(Debug)]
struct Pull {
    number: u64,
    left: usize,
    deadline: Instant,
}

impl Pulls {
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes: (0..lanes).map(|_| None).collect(), last: 0 }
    }

    /// Notes a pull of `count` messages, and answers with what its end is known by.
    pub(super) fn start(&mut self, lane: usize, count: usize, deadline: Instant) -> String {
        self.last += 1;
        self.lanes[lane] = Some(Pull { number: self.last, left: count, deadline });
        format!("{lane}.{}", self.last)
    }

    /// By when a lane's pull must have ended, if there is one.
    pub(super) fn deadline(&self, lane: usize) -> Option<Instant> {
        self.lanes[lane].as_ref().map(|pull| pull.deadline)
    }

    /// The first of all deadlines.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lanes.iter().flatten().map(|pull| pull.deadline).min()
    }

    /// How many messages may yet come.
    pub(super) fn outstanding(&self) -> usize {
        self.lanes.iter().flatten().map(|pull| pull.left).sum()
    }

    /// Notes a message of `lane`, and answers whether it was the last of a pull.
    pub(super) fn came(&mut self, lane: usize) -> bool {
        let Some(pull) = &mut self.lanes[lane] else { return false };
        pull.left = pull.left.saturating_sub(1);
        let done = pull.left == 0;
        if done {
            self.lanes[lane] = None;
        }
        done
    }

    /// Notes the end of the pull that `reply` names, and answers with its lane; none when it is no pull under way.
    pub(super) fn ended(&mut self, reply: &str) -> Option<usize> {
        let mut parts = reply.rsplit('.');
        let number: u64 = parts.next()?.parse().ok()?;
        let lane: usize = parts.next()?.parse().ok()?;
        let pull = self.lanes.get_mut(lane)?;
        pull.take_if(|pull| pull.number == number).map(|_| lane)
    }

    /// Gives up those past their deadline, and answers with their lanes.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<usize> {
        let late = |pull: &mut Option<Pull>| pull.take_if(|pull| pull.deadline <= now).is_some();
        self.lanes.iter_mut().enumerate().filter_map(|(lane, pull)| late(pull).then_some(lane)).collect()
    }

    /// Forgets all, as the server does when the connection is lost.
    pub(super) fn clear(&mut self) {
        self.lanes.fill_with(|| None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_what_may_yet_come() {
        let (now, mut pulls) = (Instant::now(), Pulls::new(3));
        let first = pulls.start(1, 2, now + Duration::from_secs(5));
        let second = pulls.start(2, 4, now + Duration::from_secs(1));
        assert_eq!((pulls.outstanding(), pulls.next_deadline()), (6, Some(now + Duration::from_secs(1))));
        assert_eq!((pulls.came(1), pulls.came(1), pulls.came(1)), (false, true, false));
        assert_eq!((pulls.outstanding(), pulls.deadline(1)), (4, None));
        // A new pull of the lane is another than the one that ended.
        pulls.start(1, 1, now);
        assert_eq!(pulls.ended(&format!("_INBOX.x.{first}")), None);
        assert_eq!(pulls.give_up(now), [1]);
        assert_eq!(pulls.ended(&format!("_INBOX.x.{second}")), Some(2));
        assert_eq!(pulls.outstanding(), 0);
        for wrong in ["", "x", "9.1", "1.x"] {
            assert_eq!(pulls.ended(wrong), None);
        }
    }
}
