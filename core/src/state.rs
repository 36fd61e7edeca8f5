use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a job stands. The number is what stores keep; it never changes meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum State {
    /// Waits for its time.
    Scheduled = 0,
    /// Waits for a worker.
    Queued = 1,
    /// A worker holds it under a lease.
    Running = 2,
    /// Failed, and waits for its next attempt.
    Retrying = 3,
    /// Done. Terminal.
    Succeeded = 4,
    /// Called off. Terminal.
    Cancelled = 5,
    /// Given up: attempts used up, discarded, quarantined, or expired. Terminal.
    Dead = 6,
    /// Waits for other jobs: for its parents, for its turn, or for room under a limit.
    Waiting = 7,
}

/// What moves a job from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its time has come.
    Due,
    /// A worker takes it.
    Claim,
    /// The handler returned a value.
    Succeed,
    /// The attempt failed and another is allowed.
    Fail,
    /// The attempt failed for good.
    Die,
    /// The handler asked for another time.
    Snooze,
    /// The worker gave it back.
    Release,
    /// The worker fell silent.
    LeaseLost,
    /// The worker fell silent, and no further attempt is allowed.
    Quarantine,
    /// Someone calls off a job that is not running.
    Cancel,
    /// A running job follows a cancellation request.
    Abort,
    /// It is due, but has to wait for other jobs.
    Hold,
    /// The jobs it waited for are out of its way.
    Admit,
    /// It was not started in time.
    Expire,
    /// An operator wants a job that is over to be run again.
    Retry,
}

/// One allowed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// What happens.
    pub event: Event,
    /// The state after.
    pub to: State,
}

const fn step(from: State, event: Event, to: State) -> Transition {
    Transition { from, event, to }
}

/// Every allowed step, and the only place that says so: both stores build their statements from it, and the tests
/// read it.
pub const TRANSITIONS: &[Transition] = &[
    step(State::Scheduled, Event::Due, State::Queued),
    step(State::Retrying, Event::Due, State::Queued),
    step(State::Queued, Event::Claim, State::Running),
    step(State::Running, Event::Succeed, State::Succeeded),
    step(State::Running, Event::Fail, State::Retrying),
    step(State::Running, Event::Die, State::Dead),
    step(State::Running, Event::Snooze, State::Scheduled),
    step(State::Running, Event::Release, State::Queued),
    step(State::Running, Event::LeaseLost, State::Queued),
    step(State::Running, Event::Quarantine, State::Dead),
    step(State::Running, Event::Abort, State::Cancelled),
    step(State::Scheduled, Event::Cancel, State::Cancelled),
    step(State::Queued, Event::Cancel, State::Cancelled),
    step(State::Retrying, Event::Cancel, State::Cancelled),
    step(State::Waiting, Event::Cancel, State::Cancelled),
    step(State::Scheduled, Event::Hold, State::Waiting),
    step(State::Retrying, Event::Hold, State::Waiting),
    step(State::Queued, Event::Hold, State::Waiting),
    step(State::Waiting, Event::Admit, State::Queued),
    step(State::Scheduled, Event::Expire, State::Dead),
    step(State::Retrying, Event::Expire, State::Dead),
    step(State::Queued, Event::Expire, State::Dead),
    step(State::Waiting, Event::Expire, State::Dead),
    step(State::Succeeded, Event::Retry, State::Queued),
    step(State::Cancelled, Event::Retry, State::Queued),
    step(State::Dead, Event::Retry, State::Queued),
];

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Waiting,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Succeeded,
        Self::Cancelled,
        Self::Dead,
    ];

    /// The states in which a job is over.
    pub const TERMINAL: [Self; 3] = [Self::Succeeded, Self::Cancelled, Self::Dead];

    /// The states in which a job is not over.
    pub const UNFINISHED: [Self; 5] =
        [Self::Scheduled, Self::Waiting, Self::Queued, Self::Running, Self::Retrying];

    /// Whether the job is over.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Cancelled | Self::Dead)
    }

    /// The state after `event`, or `None` where the table does not allow it.
    #[must_use]
    pub fn after(self, event: Event) -> Option<Self> {
        TRANSITIONS.iter().find(|t| t.from == self && t.event == event).map(|t| t.to)
    }

    /// The number that stores keep.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The name in the API: lower case, one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
            Self::Waiting => "waiting",
        }
    }
}

impl Event {
    /// The states in which the event is allowed: what a statement's `WHERE` must ask for.
    pub fn sources(self) -> impl Iterator<Item = State> {
        TRANSITIONS.iter().filter(move |t| t.event == self).map(|t| t.from)
    }

    /// The state the event leads to, which is the same from every source.
    #[must_use]
    pub fn target(self) -> Option<State> {
        TRANSITIONS.iter().find(|t| t.event == self).map(|t| t.to)
    }
}

/// A state's name or number that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown job state: {0}")]
pub struct UnknownState(String);

impl TryFrom<i16> for State {
    type Error = UnknownState;

    fn try_from(code: i16) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|s| s.code() == code).ok_or_else(|| UnknownState(code.to_string()))
    }
}

impl FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| UnknownState(text.to_owned()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [Event; 15] = [
        Event::Due,
        Event::Claim,
        Event::Succeed,
        Event::Fail,
        Event::Die,
        Event::Snooze,
        Event::Release,
        Event::LeaseLost,
        Event::Quarantine,
        Event::Cancel,
        Event::Abort,
        Event::Hold,
        Event::Admit,
        Event::Expire,
        Event::Retry,
    ];

    fn event() -> impl Strategy<Value = Event> {
        (0..EVENTS.len()).prop_map(|i| EVENTS[i])
    }

    #[test]
    fn the_table_is_a_function_with_one_target_per_event() {
        for (i, a) in TRANSITIONS.iter().enumerate() {
            for b in &TRANSITIONS[i + 1..] {
                assert!(a.from != b.from || a.event != b.event, "two answers to {a:?}");
                assert!(a.event != b.event || a.to == b.to, "{:?} has two targets", a.event);
            }
        }
        for event in EVENTS {
            assert!(event.target().is_some(), "{event:?} leads nowhere");
        }
    }

    #[test]
    fn every_live_state_can_be_called_off_and_can_reach_success() {
        for state in State::ALL.into_iter().filter(|s| !s.is_terminal()) {
            assert!(state.after(Event::Cancel).or(state.after(Event::Abort)) == Some(State::Cancelled));
            let mut reached = vec![state];
            let mut seen = 0;
            while let Some(&at) = reached.get(seen) {
                seen += 1;
                for t in TRANSITIONS.iter().filter(|t| t.from == at) {
                    if !reached.contains(&t.to) {
                        reached.push(t.to);
                    }
                }
            }
            assert!(reached.contains(&State::Succeeded), "{state} can never succeed");
        }
    }

    #[test]
    fn names_and_codes_round_trip() {
        for state in State::ALL {
            assert_eq!(State::try_from(state.code()), Ok(state));
            assert_eq!(state.as_str().parse(), Ok(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert!(State::try_from(8).is_err());
        assert!("running ".parse::<State>().is_err());
    }

    proptest! {
        /// Whatever happens to a job, in whatever order: terminal states stay but for an operator's retry, and a job runs only after a claim
        /// of a queued one, so never twice at a time (P2).
        #[test]
        fn any_history_keeps_the_promises(history in prop::collection::vec(event(), 0..60)) {
            let mut state = State::Queued;
            for event in history {
                let Some(next) = state.after(event) else { continue };
                prop_assert!(!state.is_terminal() || event == Event::Retry);
                if next == State::Running {
                    prop_assert_eq!((state, event), (State::Queued, Event::Claim));
                }
                state = next;
            }
        }
    }
}
