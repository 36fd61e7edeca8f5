//! The schedule of faults. All of it comes from the seed: the same seed and options, the same schedule.

use std::{collections::HashMap, fmt, time::Duration};

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// `kill -9` of a process.
    Kill,
    /// SIGSTOP, and SIGCONT later: sometimes before the lease ends, sometimes after.
    Stop,
    /// The broker is stopped in good order, and started.
    BrokerRestart,
    /// `kill -9` of the broker.
    BrokerCrash,
    /// The broker is killed, and started with nothing in it.
    BrokerWipe,
    /// Every connection to Postgres is terminated.
    Backends,
    /// Postgres is restarted (fast shutdown).
    DbRestart,
    /// `kill -9` of all of Postgres.
    DbCrash,
}

impl Kind {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Kill,
        Self::Stop,
        Self::BrokerRestart,
        Self::BrokerCrash,
        Self::BrokerWipe,
        Self::Backends,
        Self::DbRestart,
        Self::DbCrash,
    ];

    /// How often, compared with others.
    fn weight(self) -> u32 {
        match self {
            Self::Kill => 5,
            Self::Stop => 4,
            Self::BrokerCrash | Self::BrokerRestart | Self::Backends => 2,
            Self::BrokerWipe | Self::DbRestart | Self::DbCrash => 1,
        }
    }

    pub(crate) fn needs_broker(self) -> bool {
        matches!(self, Self::BrokerRestart | Self::BrokerCrash | Self::BrokerWipe)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.to_possible_value();
        f.write_str(name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// Who a fault is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Api(usize),
    Worker(usize),
    Broker,
    Database,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(number) => write!(f, "api-{number}"),
            Self::Worker(number) => write!(f, "worker-{number}"),
            Self::Broker => f.write_str("broker"),
            Self::Database => f.write_str("database"),
        }
    }
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fault {
    /// From the beginning of the load.
    pub(crate) at: Duration,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// Until it is mended.
    pub(crate) lasts: Duration,
    /// Nothing else happens until all has recovered: recovery is measured.
    pub(crate) isolated: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let isolated = if self.isolated { ", alone" } else { "" };
        write!(f, "{} {} for {:.1} s{isolated}", self.kind, self.target, self.lasts.as_secs_f64())
    }
}

/// What a schedule depends on.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) seed: u64,
    pub(crate) time: Duration,
    pub(crate) apis: usize,
    pub(crate) workers: usize,
    pub(crate) lease: Duration,
    /// What may happen. What the broker cannot have done to it is not to be among it.
    pub(crate) kinds: Vec<Kind>,
}

/// How long a server may take to be started again, and the work to be resumed, while recovery is measured.
const RECOVERY: Duration = Duration::from_secs(16);

impl Scene {
    /// The faults, in the order of their times.
    pub(crate) fn plan(&self) -> Vec<Fault> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let (mut faults, mut at) = self.alone();
        let end = self.time.saturating_sub(Duration::from_secs(2));
        // Who is busy with a fault until when.
        let mut busy: HashMap<Target, Duration> = HashMap::new();
        let total: u32 = self.kinds.iter().map(|kind| kind.weight()).sum();
        if total == 0 {
            return faults;
        }
        loop {
            at += Duration::from_secs_f64((-3.0 * (1.0 - rng.f64()).ln()).clamp(0.3, 8.0));
            if at >= end {
                break;
            }
            let mut chosen = rng.u32(..total);
            let kind = self.kinds.iter().find(|kind| {
                let found = chosen < kind.weight();
                chosen = chosen.saturating_sub(kind.weight());
                found
            });
            let Some(&kind) = kind else { continue };
            let target = self.target(kind, &mut rng);
            let lasts = self.lasts(kind, &mut rng).min(end - at);
            if busy.get(&target).is_some_and(|until| *until > at) {
                continue;
            }
            // A server that comes back needs a moment.
            let rest =
                Duration::from_secs(if matches!(target, Target::Broker | Target::Database) { 4 } else { 1 });
            busy.insert(target, at + lasts + rest);
            faults.push(Fault { at, kind, target, lasts, isolated: false });
        }
        faults
    }

    /// One fault of each kind whose recovery has a limit, with nothing beside it; and when all that is over.
    fn alone(&self) -> (Vec<Fault>, Duration) {
        let mut at = Duration::from_secs(4);
        let mut faults = Vec::new();
        let down = Duration::from_secs(3);
        let measured = [
            (Kind::Kill, Target::Worker(0), self.lease + down),
            (Kind::BrokerCrash, Target::Broker, down),
            (Kind::DbCrash, Target::Database, down),
            (Kind::BrokerRestart, Target::Broker, down),
            (Kind::DbRestart, Target::Database, down),
        ];
        for (kind, target, lasts) in measured {
            let until = at + lasts + if kind == Kind::Kill { down } else { RECOVERY };
            // The rest of the time is for what happens at once.
            if self.kinds.contains(&kind) && until < self.time * 2 / 3 {
                faults.push(Fault { at, kind, target, lasts, isolated: true });
                at = until;
            }
        }
        (faults, at)
    }

    fn target(&self, kind: Kind, rng: &mut fastrand::Rng) -> Target {
        match kind {
            Kind::BrokerRestart | Kind::BrokerCrash | Kind::BrokerWipe => Target::Broker,
            Kind::Backends | Kind::DbRestart | Kind::DbCrash => Target::Database,
            Kind::Kill | Kind::Stop => self.process(rng),
        }
    }

    /// Workers twice as often as APIs.
    fn process(&self, rng: &mut fastrand::Rng) -> Target {
        let chosen = rng.usize(..self.apis + 2 * self.workers);
        if chosen < self.apis { Target::Api(chosen) } else { Target::Worker((chosen - self.apis) / 2) }
    }

    fn lasts(&self, kind: Kind, rng: &mut fastrand::Rng) -> Duration {
        let lease = self.lease.as_secs_f64();
        let (least, most) = match kind {
            Kind::Backends => (0.0, 0.0),
            Kind::Kill => (0.0, 3.0),
            // Half of them longer than the lease.
            Kind::Stop if rng.bool() => (lease + 1.0, lease * 1.5),
            Kind::Stop => (0.2, lease * 0.6),
            Kind::BrokerRestart | Kind::BrokerCrash | Kind::BrokerWipe => (0.0, 8.0),
            Kind::DbRestart | Kind::DbCrash => (0.0, 4.0),
        };
        Duration::from_secs_f64(least + rng.f64() * (most - least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(seed: u64) -> Scene {
        Scene {
            seed,
            time: Duration::from_secs(600),
            apis: 2,
            workers: 3,
            lease: Duration::from_secs(8),
            kinds: Kind::ALL.to_vec(),
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        assert_eq!(scene(7).plan(), scene(7).plan());
        assert_ne!(scene(7).plan(), scene(8).plan());
    }

    #[test]
    fn everything_happens_to_everyone_and_ends_in_time() {
        let plan = scene(1).plan();
        for kind in Kind::ALL {
            assert!(plan.iter().any(|fault| fault.kind == *kind && !fault.isolated), "never {kind}");
        }
        for target in [Target::Api(1), Target::Worker(2), Target::Broker, Target::Database] {
            assert!(plan.iter().any(|fault| fault.target == target), "never to {target}");
        }
        for (fault, next) in plan.iter().zip(&plan[1..]) {
            assert!(fault.at <= next.at);
            assert!(fault.at + fault.lasts <= Duration::from_secs(598), "{fault}");
            assert!(!fault.isolated || fault.at + fault.lasts < next.at, "{fault} is not alone");
        }
        assert!(plan.iter().any(|fault| fault.kind == Kind::Stop && fault.lasts > Duration::from_secs(8)));
    }

    #[test]
    fn nobody_suffers_two_at_once() {
        for seed in 0..20 {
            let plan = scene(seed).plan();
            for (number, fault) in plan.iter().enumerate() {
                let beside = plan[..number].iter().filter(|earlier| earlier.target == fault.target);
                assert!(beside.into_iter().all(|earlier| earlier.at + earlier.lasts < fault.at), "{fault}");
            }
        }
    }

    #[test]
    fn only_what_may_happen_does() {
        let scene = Scene { kinds: vec![Kind::Backends], ..scene(3) };
        assert!(!scene.plan().is_empty());
        assert!(scene.plan().iter().all(|fault| fault.kind == Kind::Backends));
        assert!(Scene { kinds: Vec::new(), ..scene }.plan().is_empty());
    }
}
