//! What all processes of a simulation share: the store's tables, the broker, the network between, and the virtual time.
//!
//! Time goes in slices of some milliseconds. In each, every process runs by itself, in a runtime of its own; what it sends
//! is on its way, and arrives in the order of time once the slice is over. So one seed gives one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use windlass_core::{JobId, Timestamp};

use crate::{broker::Lanes, history::History, tables::Tables, weather::Weather};

/// Milliseconds since the simulation began.
pub type Ms = u64;

/// How long a call waits for its answer.
pub const DEADLINE: Duration = Duration::from_millis(1_500);
/// By how much a call that nobody waits for any more may be late.
pub const LATEST: Ms = 5_000;

/// What a call does when it arrives, and tells of it if asked to.
pub type Errand = Box<dyn FnOnce(&mut State, Option<&mut String>) + Send>;

/// The far ends of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Store = 0,
    Broker = 1,
}

/// Everything shared.
pub struct World(Mutex<State>);

/// What is behind the lock, which is never held across an await.
pub struct State {
    pub now: Ms,
    pub rng: Rng,
    pub tables: Tables,
    pub lanes: Lanes,
    pub weather: Weather,
    pub processes: Vec<ProcessState>,
    /// Until when nobody can reach it.
    pub down: [Ms; 2],
    pub book: Book,
    pub history: Option<History>,
    events: BTreeMap<(Ms, u64), Event>,
    last_event: u64,
}

struct Event {
    /// Whose doing it is.
    process: Option<usize>,
    happen: Box<dyn FnOnce(&mut State) + Send>,
}

/// What the world knows of a process.
#[derive(Debug)]
pub struct ProcessState {
    pub alive: bool,
    pub died: Option<Ms>,
    /// Until when it is cut off from each side.
    pub cut: [Ms; 2],
    /// When it stood still.
    pub pauses: Vec<(Ms, Ms)>,
    pub killed: Arc<Notify>,
}

/// What is written down for the checker.
#[derive(Debug, Default)]
pub struct Book {
    /// The jobs that the store was asked to accept.
    pub sent: BTreeSet<JobId>,
    /// Those that it is known to have accepted.
    pub accepted: BTreeSet<JobId>,
    /// Those that someone wanted cancelled.
    pub cancels: BTreeSet<JobId>,
    pub runs: Vec<Run>,
    /// What went wrong so badly that it was seen at once.
    pub outrages: Vec<String>,
}

/// A handler that ran.
#[derive(Debug, Clone)]
pub struct Run {
    pub job: JobId,
    pub fence: u32,
    pub attempt: u32,
    pub max_attempts: u32,
    pub process: usize,
    pub begun: Ms,
    pub ended: Option<(Ms, End)>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Succeeded,
    Failed,
    Discarded,
    Snoozed,
    /// Told to stop, it returned.
    Stopped,
    /// The worker dropped it.
    Dropped,
    /// Its process died.
    Crashed,
}

/// What becomes of a call, as far as its caller notices.
enum Fate {
    /// It fails after so many milliseconds, and never arrives.
    Refused(Ms),
    Sent {
        /// Its answer is an error, whatever it did.
        lost: bool,
    },
}

/// Why a call failed.
#[derive(Debug)]
pub enum Trouble {
    Unavailable,
    Timeout,
}

impl World {
    pub fn new(rng: Rng, weather: Weather, told: bool) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            now: 0,
            rng,
            tables: Tables::default(),
            lanes: Lanes::default(),
            weather,
            processes: Vec::new(),
            down: [0; 2],
            book: Book::default(),
            history: told.then(History::default),
            events: BTreeMap::new(),
            last_event: 0,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// A time as the store's clock shows it.
pub fn timestamp(at: Ms) -> Timestamp {
    const BEGINNING: i64 = 1_900_000_000_000;
    Timestamp::from_timestamp_millis(BEGINNING + i64::try_from(at).unwrap()).unwrap()
}

/// The other way round.
pub fn moment(at: Timestamp) -> Ms {
    u64::try_from((at - timestamp(0)).num_milliseconds()).unwrap()
}

impl State {
    pub fn note(&mut self, at: Ms, what: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            history.note(at, &what());
        }
    }

    pub fn chance(&mut self, of: f64) -> bool {
        of > 0.0 && self.rng.f64() < of
    }

    /// Has something happen at a time to come.
    pub fn at(&mut self, at: Ms, process: Option<usize>, happen: impl FnOnce(&mut State) + Send + 'static) {
        self.last_event += 1;
        let event = Event { process, happen: Box::new(happen) };
        self.events.insert((at.max(self.now), self.last_event), event);
    }

    /// When the last of what is on its way will have arrived.
    pub fn last_event(&self) -> Ms {
        self.events.last_key_value().map_or(self.now, |((at, _), _)| *at)
    }

    /// Has everything happen that is due by then.
    pub fn advance(&mut self, until: Ms) {
        while let Some(first) = self.events.first_entry() {
            let (at, _) = *first.key();
            if at > until {
                break;
            }
            let event = first.remove();
            self.now = self.now.max(at);
            (event.happen)(self);
        }
        self.now = until;
    }

    /// Until when a process cannot reach that side; a time that is past if it can.
    pub fn unreachable_until(&self, process: usize, side: Side) -> Ms {
        self.processes[process].cut[side as usize].max(self.down[side as usize])
    }

    fn latency(&mut self) -> Ms {
        if self.chance(self.weather.slow) { self.rng.u64(30..2_000) } else { self.rng.u64(1..8) }
    }

    /// Sends a call on its way.
    fn send(
        &mut self,
        process: usize,
        side: Side,
        sent: Ms,
        what: Option<String>,
        errand: Errand,
        arrived: oneshot::Sender<()>,
    ) -> Fate {
        if let Some(what) = &what {
            self.note(sent, || format!("p{process} -> {side:?}: {what}"));
        }
        let (there, deadline) = (self.latency(), DEADLINE.as_millis() as Ms);
        let cut = self.unreachable_until(process, side);
        if cut > sent {
            return match self.rng.u32(..10) {
                0..4 => Fate::Refused(there),
                // Into the void.
                4..8 => Fate::Sent { lost: true },
                // It lies somewhere until the network is whole again.
                _ => {
                    let at = cut + there;
                    self.arrive(at, process, side, what, errand, None);
                    Fate::Sent { lost: true }
                }
            };
        }
        if self.chance(self.weather.refuse) {
            return Fate::Refused(there);
        }
        if self.chance(self.weather.lose) {
            self.arrive(sent + there, process, side, what, errand, Some(arrived));
            return Fate::Sent { lost: true };
        }
        if self.chance(self.weather.hang) {
            match self.rng.u32(..3) {
                0 => {}
                1 => self.arrive(sent + there, process, side, what, errand, None),
                _ => {
                    let late = self.rng.u64(..LATEST);
                    self.arrive(sent + deadline + late, process, side, what, errand, None);
                }
            }
            return Fate::Sent { lost: true };
        }
        self.arrive(sent + there, process, side, what, errand, Some(arrived));
        Fate::Sent { lost: false }
    }

    fn arrive(
        &mut self,
        at: Ms,
        process: usize,
        side: Side,
        what: Option<String>,
        errand: Errand,
        arrived: Option<oneshot::Sender<()>>,
    ) {
        self.at(at, Some(process), move |state| {
            if state.down[side as usize] > state.now {
                // What comes to a server that is down is lost, and so is the answer.
                return;
            }
            let mut told = what.is_some().then(String::new);
            errand(state, told.as_mut());
            if let (Some(what), Some(told)) = (what, told) {
                let now = state.now;
                state.note(now, || format!("{side:?}: {what} of p{process} gives {told}"));
            }
            let Some(arrived) = arrived else { return };
            if state.unreachable_until(process, side) <= state.now {
                let back = state.now + state.latency();
                state.at(back, None, move |_| {
                    // Whoever waited may have given up.
                    let _ = arrived.send(());
                });
            }
        });
    }

    /// Takes a process out of the world. Some of what it has sent arrives all the same.
    pub fn bury(&mut self, process: usize, at: Ms) {
        self.processes[process].alive = false;
        self.processes[process].died = Some(at);
        let rng = &mut self.rng;
        self.events.retain(|_, event| event.process != Some(process) || rng.bool());
        for run in self.book.runs.iter_mut().filter(|run| run.process == process && run.ended.is_none()) {
            run.ended = Some((at, End::Crashed));
        }
        // The broker notices sooner or later.
        let notices = at + self.rng.u64(1..3_000);
        self.at(notices, None, move |state| state.disconnect(process));
    }
}

/// A process's way to the world.
#[derive(Debug, Clone)]
pub struct Wire {
    pub world: Arc<World>,
    pub process: usize,
    /// When the process began, by the world's time and by its own.
    pub began: (Ms, Instant),
}

impl Wire {
    /// The world's time, by the clock of the process.
    pub fn now(&self) -> Ms {
        self.began.0 + self.began.1.elapsed().as_millis() as Ms
    }

    /// Sends a call and waits for its answer, which has come when this is `Ok`.
    pub async fn call(
        &self,
        side: Side,
        what: &(dyn Fn() -> String + Send + Sync),
        errand: Errand,
    ) -> Result<(), Trouble> {
        let deadline = Instant::now() + DEADLINE;
        let (arrived, answer) = oneshot::channel();
        let fate = {
            let mut state = self.world.lock();
            let what = state.history.is_some().then(what);
            state.send(self.process, side, self.now(), what, errand, arrived)
        };
        match fate {
            Fate::Refused(after) => {
                sleep(Duration::from_millis(after)).await;
                Err(Trouble::Unavailable)
            }
            Fate::Sent { lost } => match timeout_at(deadline, answer).await {
                Ok(Ok(())) if lost => Err(Trouble::Unavailable),
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => {
                    sleep_until(deadline).await;
                    Err(Trouble::Timeout)
                }
                Err(_) => Err(Trouble::Timeout),
            },
        }
    }

    /// Sends what nobody waits for, behind what has been sent through the same connection before. Answers when it arrives. It
    /// is lost only with the process, or its server.
    pub fn tell(
        &self,
        side: Side,
        before: Ms,
        what: &(dyn Fn() -> String + Send + Sync),
        errand: Errand,
    ) -> Ms {
        let mut state = self.world.lock();
        let sent = self.now();
        let at = sent.max(state.unreachable_until(self.process, side)) + state.latency();
        let at = at.max(before);
        let what = state.history.is_some().then(what);
        if let Some(what) = &what {
            let process = self.process;
            state.note(sent, || format!("p{process} -> {side:?}: {what}"));
        }
        state.arrive(at, self.process, side, what, errand, None);
        at
    }
}
