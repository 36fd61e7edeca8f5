//! One seed: processes start, work, and die in its weather; then the sky clears, and everything must come to its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;

use crate::{
    check,
    process::{Life, Process, Role, Setup, Wishes},
    weather::Weather,
    workload::wishes,
    world::{Ms, Side, World},
};

/// How long after the last fault everything must be over.
const PATIENCE: Ms = 240_000;
/// How long a worker may take that is asked to stop and has nothing to do.
const GOODBYE: Ms = 20_000;

/// What became of a seed.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<String>,
    /// What happened, if that was wanted.
    pub history: Vec<String>,
}

struct Simulation {
    world: Arc<World>,
    setup: Setup,
    wishes: Wishes,
    processes: Vec<Process>,
    /// What is started again, and when.
    absent: Vec<(Ms, Role)>,
    now: Ms,
    calm: bool,
    /// Everything is over, and nobody is replaced any more.
    leaving: bool,
}

/// Runs a seed, and writes down what happens if that is wanted.
pub fn simulate(seed: u64, told: bool) -> Report {
    let weather = Weather::of(&mut Rng::with_seed(seed));
    // What the crates under test draw by themselves comes from the thread's generator.
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed.wrapping_add(0x5eed));
    let storm = rng.u64(4_000..9_000);
    let setup = Setup {
        lease: Duration::from_millis(rng.u64(2_000..4_500)),
        grace: Duration::from_millis(rng.u64(..2_000)),
        republish_after: Duration::from_millis(rng.u64(1_500..5_000)),
        concurrency: rng.usize(1..8),
        crash_limit: rng.u32(1..5),
        counts: rng.u32(..5) > 0,
    };
    let wishes: Wishes = Arc::new(Mutex::new(wishes(&mut rng, storm)));
    let workers = rng.usize(1..4);
    let world = World::new(rng, weather, told);
    world.lock().note(0, || format!("seed {seed}: {setup:?}"));
    let mut simulation = Simulation {
        world,
        setup,
        wishes,
        processes: Vec::new(),
        absent: Vec::new(),
        now: 0,
        calm: false,
        leaving: false,
    };
    simulation.absent.push((0, Role::Api(simulation.wishes.clone())));
    simulation.absent.extend((0..workers).map(|_| (0, Role::Worker)));
    simulation.run(storm)
}

impl Simulation {
    fn run(mut self, storm: Ms) -> Report {
        while self.now < storm {
            self.slice();
        }
        self.clear_up();
        let last_fault = self.world.lock().last_event();
        let late = last_fault + PATIENCE;
        while self.now < late && !self.is_done() {
            self.slice();
        }
        let done_at = self.now;
        self.leaving = true;
        for process in &mut self.processes {
            process.stop();
        }
        while self.now < done_at + GOODBYE && !self.processes.is_empty() {
            self.slice();
        }
        let stuck: Vec<usize> = self.processes.iter().map(|process| process.number).collect();
        let mut state = self.world.lock();
        let violations = check::check(&mut state, &self.setup, last_fault, &stuck);
        let history = state.history.take().map(|history| history.lines).unwrap_or_default();
        drop(state);
        Report { violations, history }
    }

    fn is_done(&self) -> bool {
        let state = self.world.lock();
        let fulfilled = state.book.accepted.len() == state.book.sent.len();
        self.now > 0 && fulfilled && self.wishes.lock().unwrap().is_empty() && state.tables.all_over()
    }

    fn slice(&mut self) {
        let step = self.world.lock().rng.u64(1..if self.calm { 400 } else { 80 });
        if !self.calm {
            self.have_weather(step);
        }
        let until = self.now + step;
        while let Some(next) = self.absent.iter().position(|(at, _)| *at <= self.now) {
            let (_, role) = self.absent.remove(next);
            self.processes.push(Process::start(&self.world, role, &self.setup, self.now));
        }
        let mut at = 0;
        while at < self.processes.len() {
            match self.processes[at].live(until) {
                Life::Goes => at += 1,
                Life::Over | Life::Killed => {
                    let process = self.processes.remove(at);
                    if !self.leaving {
                        self.absent.push((until, process.role.clone()));
                    }
                    process.crash();
                }
            }
        }
        self.world.lock().advance(until);
        self.now = until;
    }

    /// What goes wrong at the beginning of a slice.
    fn have_weather(&mut self, step: Ms) {
        let world = self.world.clone();
        let mut state = world.lock();
        let weather = state.weather.clone();
        let of = |rate: f64| rate * step as f64 / 60_000.0;
        let now = self.now;
        if state.chance(of(weather.store_down)) {
            let until = now + state.rng.u64(50..4_000);
            state.down[Side::Store as usize] = until;
            state.note(now, || format!("the store is down until {until}"));
        }
        for (rate, wiped) in [(weather.broker_down, false), (weather.broker_wiped, true)] {
            if state.chance(of(rate)) {
                let until = now + state.rng.u64(50..4_000);
                state.note(now, || format!("the broker is down until {until}, wiped: {wiped}"));
                state.stop_broker(until, wiped);
            }
        }
        if state.chance(of(weather.stray)) {
            state.stray();
        }
        let mut dying = Vec::new();
        for process in &mut self.processes {
            let number = process.number;
            if state.chance(of(weather.cut)) {
                let until = now + state.rng.u64(50..7_000);
                let sides: &[Side] =
                    [&[Side::Store][..], &[Side::Broker], &[Side::Store, Side::Broker]][state.rng.usize(..3)];
                for side in sides {
                    state.processes[number].cut[*side as usize] = until;
                }
                if sides.contains(&Side::Broker) && state.rng.bool() {
                    let notices = now + state.rng.u64(1..5_000);
                    state.at(notices, None, move |state| state.disconnect(number));
                }
                state.note(now, || format!("p{number} is cut off from {sides:?} until {until}"));
            }
            if process.stands_until <= now && state.chance(of(weather.pause)) {
                let most = if state.rng.bool() { 1_000 } else { 8_000 };
                process.stands_until = now + state.rng.u64(10..most);
                let until = process.stands_until;
                state.processes[number].pauses.push((now, until));
                state.note(now, || format!("p{number} stands still until {until}"));
            }
            if !process.stopping && state.chance(of(weather.restart)) {
                process.stop();
                state.note(now, || format!("p{number} is asked to stop"));
            }
            if state.chance(of(weather.crash)) {
                let again = now + state.rng.u64(10..3_000);
                dying.push((number, again));
            }
        }
        drop(state);
        for (number, again) in dying {
            let Some(at) = self.processes.iter().position(|process| process.number == number) else {
                continue;
            };
            let process = self.processes.remove(at);
            self.absent.push((again, process.role.clone()));
            process.crash();
        }
    }

    /// From now on nothing new goes wrong.
    fn clear_up(&mut self) {
        let mut state = self.world.lock();
        let now = self.now;
        state.weather = state.weather.calmed();
        state.down = [0; 2];
        for process in &mut state.processes {
            process.cut = [0; 2];
        }
        for process in &mut self.processes {
            if process.stands_until > now {
                process.stands_until = now;
                if let Some(pause) = state.processes[process.number].pauses.last_mut() {
                    pause.1 = now;
                }
            }
        }
        for (at, _) in &mut self.absent {
            *at = now;
        }
        state.note(now, || "nothing new goes wrong any more".into());
        self.calm = true;
    }
}
