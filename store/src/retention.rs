use std::{collections::BTreeMap, time::Duration};

use windlass_core::{QueueName, State};

/// How long jobs are kept after their end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those of any queue.
    pub any: Keep,
    /// Those of single queues, where it differs.
    pub queues: BTreeMap<QueueName, Keep>,
}

/// How long jobs are kept after their end, by how they ended. `None` for any queue is for ever, and for a single queue as
/// for any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// Those that succeeded.
    pub succeeded: Option<Duration>,
    /// Those that were called off.
    pub cancelled: Option<Duration>,
    /// Those that were given up.
    pub dead: Option<Duration>,
}

impl Keep {
    #[cfg_attr(not(any(feature = "postgres", feature = "sqlite")), allow(dead_code, reason = "for drivers"))]
    fn rules(self) -> impl Iterator<Item = (State, Duration)> {
        let all = [
            (State::Succeeded, self.succeeded),
            (State::Cancelled, self.cancelled),
            (State::Dead, self.dead),
        ];
        all.into_iter().filter_map(|(state, keep)| Some((state, keep?)))
    }
}

impl Retention {
    /// Each rule: for a queue, or `None` for any, and a state. The one of the queue counts before the one of any.
    #[cfg_attr(not(any(feature = "postgres", feature = "sqlite")), allow(dead_code, reason = "for drivers"))]
    pub(crate) fn rules(&self) -> Vec<(Option<&QueueName>, State, Duration)> {
        let any = self.any.rules().map(|(state, keep)| (None, state, keep));
        let queues = self.queues.iter();
        let queues = queues
            .flat_map(|(queue, keep)| keep.rules().map(move |(state, keep)| (Some(queue), state, keep)));
        any.chain(queues).collect()
    }
}
