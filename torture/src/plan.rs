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
    /// A process and a server, or a client and an API, do not reach each other.
    Cut,
    /// What they send arrives late.
    Delay,
    /// They have few bytes a second.
    Throttle,
    /// What they send is swallowed, and neither is told.
    HalfOpen,
    /// Their connections are reset in the midst of a message.
    Reset,
    /// Messages of jobs are published again: of any age, several times, in another order.
    Duplicates,
    /// Messages of jobs that do not exist, and what is no message at all.
    Garbage,
    /// All processes are replaced, one after the other, by those of a new version.
    Rolling,
    /// The disk of Postgres is full.
    DiskFull,
    /// All connections that Postgres allows are taken.
    Exhaust,
    /// Postgres is killed, and its synchronous replica promoted. At most once.
    Failover,
    /// The wall clock of a process jumps, and back.
    Clock,
    /// A worker may have hardly more memory than it has.
    Memory,
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
        Self::Cut,
        Self::Delay,
        Self::Throttle,
        Self::HalfOpen,
        Self::Reset,
        Self::Duplicates,
        Self::Garbage,
        Self::Rolling,
        Self::DiskFull,
        Self::Exhaust,
        Self::Failover,
        Self::Clock,
        Self::Memory,
    ];

    /// How often, compared with others.
    fn weight(self) -> u32 {
        match self {
            Self::Kill => 5,
            Self::Stop => 4,
            Self::Cut | Self::HalfOpen | Self::Reset => 3,
            Self::BrokerCrash | Self::BrokerRestart | Self::Backends | Self::Delay | Self::Duplicates => 2,
            Self::Clock | Self::Memory => 2,
            // It has a time of its own.
            Self::Failover => 0,
            _ => 1,
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
    Process(Process),
    Broker,
    Database,
    /// The network before a server, for one process.
    Link {
        process: Process,
        to: To,
    },
    /// What the broker delivers.
    Messages,
    /// All processes.
    Fleet,
}

/// The place of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Process {
    Api(usize),
    Worker(usize),
}

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum To {
    Broker,
    Database,
    /// From the clients to an API.
    Clients,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::Broker => f.write_str("broker"),
            Self::Database => f.write_str("database"),
            Self::Link { process, to } => write!(
                f,
                "{process} to {}",
                match to {
                    To::Broker => "broker",
                    To::Database => "database",
                    To::Clients => "clients",
                }
            ),
            Self::Messages => f.write_str("messages"),
            Self::Fleet => f.write_str("all processes"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(number) => write!(f, "api-{number}"),
            Self::Worker(number) => write!(f, "worker-{number}"),
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
    /// How bad it is, where that may differ: from 0 to 1.
    pub(crate) strength: f64,
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
    /// From one fault to the next, on average.
    pub(crate) pause: Duration,
    pub(crate) apis: usize,
    pub(crate) workers: usize,
    pub(crate) lease: Duration,
    /// What may happen. What the broker cannot have done to it is not to be among it.
    pub(crate) kinds: Vec<Kind>,
    /// What delivers is a server of its own.
    pub(crate) broker: bool,
    /// All processes reach it by one link.
    pub(crate) one_link: bool,
}

/// How long nothing else happens after a server is ready again, while recovery is measured.
const RECOVERY: Duration = Duration::from_secs(10);

impl Scene {
    /// The faults, in the order of their times.
    pub(crate) fn plan(&self) -> Vec<Fault> {
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let (mut faults, mut at) = self.alone();
        let end = self.time.saturating_sub(Duration::from_secs(2));
        // Who is busy with a fault until when.
        let mut busy: HashMap<Target, Duration> = HashMap::new();
        let total: u32 = self.kinds.iter().map(|kind| kind.weight()).sum();
        // What it takes away cannot be brought back, so there is one, when most of the rest has been.
        let failover = self.time.mul_f64(0.7);
        let fails_over = self.kinds.contains(&Kind::Failover) && failover > at;
        if fails_over {
            let lasts = self.lasts(Kind::Failover, &mut rng);
            let (kind, target, strength) = (Kind::Failover, Target::Database, 0.0);
            faults.push(Fault { at: failover, kind, target, lasts, isolated: false, strength });
        }
        loop {
            at += self.pause.mul_f64((-(1.0 - rng.f64()).ln()).clamp(0.1, 8.0 / 3.0));
            if at >= end {
                break;
            }
            let mut chosen = rng.u32(..total.max(1));
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
            let beside = Duration::from_secs(10);
            if fails_over
                && target == Target::Database
                && at + lasts + beside > failover
                && at < failover + beside
            {
                continue;
            }
            // A server that comes back needs a moment.
            let rest =
                Duration::from_secs(if matches!(target, Target::Broker | Target::Database) { 4 } else { 1 });
            busy.insert(target, at + lasts + rest);
            let strength = rng.f64();
            faults.push(Fault { at, kind, target, lasts, isolated: false, strength });
        }
        faults.sort_by_key(|fault| fault.at);
        faults
    }

    /// One fault of each kind whose recovery has a limit, with nothing beside it; and when all that is over.
    fn alone(&self) -> (Vec<Fault>, Duration) {
        let mut at = Duration::from_secs(4);
        let mut faults = Vec::new();
        let down = Duration::from_secs(3);
        let measured = [
            (Kind::Kill, Target::Process(Process::Worker(0)), self.lease + down),
            (Kind::BrokerCrash, Target::Broker, down),
            (Kind::DbCrash, Target::Database, down),
            (Kind::BrokerRestart, Target::Broker, down),
            (Kind::DbRestart, Target::Database, down),
        ];
        for (kind, target, lasts) in measured {
            let until = at + lasts + if kind == Kind::Kill { down } else { RECOVERY };
            // The rest of the time is for what happens at once.
            if self.kinds.contains(&kind) && until < self.time * 2 / 3 {
                faults.push(Fault { at, kind, target, lasts, isolated: true, strength: 0.0 });
                at = until;
            }
        }
        (faults, at)
    }

    fn target(&self, kind: Kind, rng: &mut fastrand::Rng) -> Target {
        match kind {
            Kind::BrokerRestart | Kind::BrokerCrash | Kind::BrokerWipe => Target::Broker,
            Kind::Duplicates | Kind::Garbage => Target::Messages,
            Kind::Backends | Kind::DbRestart | Kind::DbCrash => Target::Database,
            Kind::DiskFull | Kind::Exhaust | Kind::Failover => Target::Database,
            Kind::Memory => Target::Process(Process::Worker(rng.usize(..self.workers))),
            Kind::Kill | Kind::Stop | Kind::Clock => Target::Process(self.process(rng)),
            Kind::Cut | Kind::Delay | Kind::Throttle | Kind::HalfOpen | Kind::Reset => self.link(rng),
            Kind::Rolling => Target::Fleet,
        }
    }

    /// Workers twice as often as APIs.
    fn process(&self, rng: &mut fastrand::Rng) -> Process {
        let chosen = rng.usize(..self.apis + 2 * self.workers);
        if chosen < self.apis { Process::Api(chosen) } else { Process::Worker((chosen - self.apis) / 2) }
    }

    fn link(&self, rng: &mut fastrand::Rng) -> Target {
        let process = self.process(rng);
        let to = match rng.u32(..5) {
            0 | 1 if self.broker => To::Broker,
            2 if matches!(process, Process::Api(_)) => To::Clients,
            _ => To::Database,
        };
        match to {
            To::Broker if self.one_link => Target::Link { process: Process::Worker(0), to },
            _ => Target::Link { process, to },
        }
    }

    fn lasts(&self, kind: Kind, rng: &mut fastrand::Rng) -> Duration {
        let lease = self.lease.as_secs_f64();
        let (least, most) = match kind {
            Kind::Backends | Kind::Duplicates | Kind::Garbage | Kind::Rolling => (0.0, 0.0),
            // Some of them longer than the lease.
            Kind::Cut | Kind::HalfOpen => (0.5, lease * 1.5),
            Kind::Delay | Kind::Throttle | Kind::Reset => (1.0, lease),
            Kind::Kill => (0.0, 3.0),
            // Half of them longer than the lease.
            Kind::Stop if rng.bool() => (lease + 1.0, lease * 1.5),
            Kind::Stop => (0.2, lease * 0.6),
            Kind::BrokerRestart | Kind::BrokerCrash | Kind::BrokerWipe => (0.0, 8.0),
            Kind::DbRestart | Kind::DbCrash => (0.0, 4.0),
            Kind::DiskFull | Kind::Failover => (1.0, 5.0),
            Kind::Exhaust | Kind::Memory => (2.0, 8.0),
            Kind::Clock => (2.0, 15.0),
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
            pause: Duration::from_secs(3),
            apis: 2,
            workers: 3,
            lease: Duration::from_secs(8),
            kinds: Kind::ALL.to_vec(),
            broker: true,
            one_link: false,
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
        let (api, worker) = (Process::Api(1), Process::Worker(2));
        for target in [
            Target::Process(api),
            Target::Process(worker),
            Target::Broker,
            Target::Database,
            Target::Link { process: api, to: To::Clients },
            Target::Link { process: worker, to: To::Broker },
            Target::Link { process: worker, to: To::Database },
        ] {
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
    fn links_are_those_that_there_are() {
        let links = |scene: Scene| -> Vec<(Process, To)> {
            let targets = scene.plan().into_iter().map(|fault| fault.target);
            targets
                .filter_map(|target| {
                    if let Target::Link { process, to } = target { Some((process, to)) } else { None }
                })
                .collect()
        };
        let shared = links(Scene { one_link: true, ..scene(4) });
        let to_broker: Vec<_> = shared.iter().filter(|(_, to)| *to == To::Broker).collect();
        assert!(!to_broker.is_empty() && to_broker.iter().all(|(process, _)| *process == Process::Worker(0)));
        let without = links(Scene { broker: false, ..scene(4) });
        assert!(!without.is_empty() && without.iter().all(|(_, to)| *to != To::Broker));
    }

    #[test]
    fn only_what_may_happen_does() {
        let scene = Scene { kinds: vec![Kind::Backends], ..scene(3) };
        assert!(!scene.plan().is_empty());
        assert!(scene.plan().iter().all(|fault| fault.kind == Kind::Backends));
        assert!(Scene { kinds: Vec::new(), ..scene.clone() }.plan().is_empty());
        assert_eq!(Scene { kinds: vec![Kind::Failover], ..scene }.plan().len(), 1);
    }
}
