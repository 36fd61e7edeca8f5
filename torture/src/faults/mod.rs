//! Does to the cluster what the schedule says.

mod database;
mod messages;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::{
    Failure,
    cluster::{Cluster, Slot},
    journal::Event,
    plan::{Fault, Kind, Target, To},
    proxy::{Proxy, Weather},
};

/// Lets all of `plan` happen, each at its time from now on; returns once all is mended.
///
/// After a fault that is to be alone, nothing happens for as long as was planned, however long the server took to start:
/// all that follows is late by that, which `late` is told.
pub(crate) async fn inject(cluster: Arc<Cluster>, plan: Vec<Fault>, late: impl Fn(Duration)) {
    let mut started = Instant::now();
    let mut under_way = JoinSet::new();
    for (number, fault) in plan.into_iter().enumerate() {
        tokio::time::sleep_until(started + fault.at).await;
        let cluster = cluster.clone();
        let happening = async move {
            cluster.journal.note(Event::Begun {
                fault: number,
                what: fault.to_string(),
                kind: fault.kind.to_string(),
                target: fault.target.to_string(),
                isolated: fault.isolated,
            });
            match happen(&cluster, number, fault).await {
                Ok(()) => cluster.journal.note(Event::Over { fault: number }),
                Err(error) => cluster.journal.note(Event::Omitted { fault: number, why: error.to_string() }),
            }
        };
        if fault.isolated {
            happening.await;
            let took = Instant::now().saturating_duration_since(started + fault.at + fault.lasts);
            started += took;
            late(took);
        } else {
            under_way.spawn(happening);
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn happen(cluster: &Cluster, number: usize, fault: Fault) -> Result<(), Failure> {
    match fault.kind {
        Kind::Kill => {
            let slot = slot(cluster, fault.target)?;
            cluster.kill(slot).await;
            tokio::time::sleep(fault.lasts).await;
            cluster.life(slot).await.down = false;
        }
        Kind::Stop => cluster.freeze(slot(cluster, fault.target)?, fault.lasts).await?,
        Kind::BrokerRestart => server(cluster, number, fault, &["stop"]).await?,
        Kind::BrokerCrash | Kind::DbCrash => server(cluster, number, fault, &["kill"]).await?,
        Kind::BrokerWipe => server(cluster, number, fault, &["kill", "wipe"]).await?,
        Kind::DbRestart => server(cluster, number, fault, &["stop"]).await?,
        Kind::Backends => {
            let cut = sqlx::query_scalar::<_, i64>(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                 WHERE application_name LIKE 'api-%' OR application_name LIKE 'worker-%'",
            );
            let cut = cut.fetch_one(&cluster.pool).await?;
            cluster.journal.say(format!("#{number} has ended {cut} connections"));
        }
        Kind::Cut | Kind::Delay | Kind::Throttle | Kind::HalfOpen | Kind::Reset => {
            let proxy = proxy(cluster, fault.target)?;
            let weather = weather(fault);
            cluster.journal.say(format!("#{number} {weather}"));
            proxy.set(weather);
            tokio::time::sleep(fault.lasts).await;
            proxy.set(Weather::Clear);
        }
        Kind::Duplicates | Kind::Garbage => {
            let rng = &mut fastrand::Rng::with_seed(fault.strength.to_bits());
            // While nothing is done to the broker.
            let broker = match &cluster.broker {
                Some(server) => Some(server.standing.lock().await),
                None => None,
            };
            let sent = if fault.kind == Kind::Duplicates {
                messages::duplicates(cluster, rng).await?
            } else {
                messages::garbage(cluster, broker.as_ref().map(|broker| &*broker.name), rng).await?
            };
            cluster.journal.say(format!("#{number} has published {sent} messages"));
        }
        Kind::Rolling => cluster.roll().await?,
        Kind::DiskFull => database::disk_full(cluster, number, fault.lasts).await?,
        Kind::Exhaust => database::exhaust(cluster, number, fault.lasts).await?,
        Kind::Failover => database::fail_over(cluster, number, fault.lasts).await?,
        Kind::Clock => {
            let slot = slot(cluster, fault.target)?;
            // Up to a minute, either way: longer than any lease, and short enough to wait for what is delayed by it.
            let apart = ((fault.strength - 0.5) * 120.0) as i64;
            cluster.journal.say(format!("#{number} by {apart:+} s"));
            cluster.set_clock(slot, apart)?;
            tokio::time::sleep(fault.lasts).await;
            cluster.set_clock(slot, 0)?;
            // Until the process has noticed.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        Kind::Memory => memory(cluster, slot(cluster, fault.target)?, fault).await?,
    }
    Ok(())
}

fn slot(cluster: &Cluster, target: Target) -> Result<&Slot, Failure> {
    let slot = if let Target::Process(process) = target { cluster.slot(process) } else { None };
    slot.ok_or_else(|| format!("there is no {target}").into())
}

fn proxy(cluster: &Cluster, target: Target) -> Result<&Proxy, Failure> {
    let Target::Link { process, to } = target else { return Err(format!("{target} is no link").into()) };
    let slot = slot(cluster, Target::Process(process))?;
    let proxy = match to {
        To::Database => Some(&*slot.to_database),
        To::Broker => slot.to_broker.as_deref(),
        To::Clients => slot.front.as_ref(),
    };
    proxy.ok_or_else(|| format!("there is no link of {target}").into())
}

fn weather(fault: Fault) -> Weather {
    // From bearable to hardly bearable, evenly in its logarithm.
    let between = |least: f64, most: f64| least * (most / least).powf(fault.strength);
    match fault.kind {
        Kind::Delay => Weather::Delay(Duration::from_secs_f64(between(0.005, 0.5))),
        Kind::Throttle => Weather::Throttle(between(500_000.0, 2_000.0) as u64),
        Kind::HalfOpen => Weather::HalfOpen,
        Kind::Reset => Weather::Reset(between(50_000.0, 10.0) as u64),
        _ => Weather::Cut,
    }
}

/// Lets a worker have a few MiB more than it has. Where a job takes more, the process ends.
async fn memory(cluster: &Cluster, slot: &Slot, fault: Fault) -> Result<(), Failure> {
    let Some(pid) = cluster.pid(slot).await else { return Ok(()) };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let size = size.ok_or("the process's size is not known")?;
    let limit = (size << 10) + (1 + (fault.strength * 12.0) as u64) * (1 << 20);
    prlimit(pid, &limit.to_string()).await?;
    tokio::time::sleep(fault.lasts).await;
    // If it has not ended.
    if cluster.pid(slot).await == Some(pid) {
        prlimit(pid, "unlimited").await?;
    }
    Ok(())
}

async fn prlimit(pid: u32, bytes: &str) -> Result<(), Failure> {
    let mut command = std::process::Command::new("prlimit");
    // The hard limit stays, so that it can be taken back.
    command.arg("--pid").arg(pid.to_string()).arg(format!("--as={bytes}:"));
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

/// For how long a server is left alone after it has come back. RabbitMQ loses a queue for good when it is killed while it
/// declares it, which `settle` can only see once it has begun; that is a fault of its own, and for an operator to mend.
const BETWEEN: Duration = Duration::from_secs(5);

/// Takes a server down by these orders, and starts it again. One after the other, where the schedule has been overtaken.
async fn server(cluster: &Cluster, number: usize, fault: Fault, orders: &[&str]) -> Result<(), Failure> {
    let server = match fault.target {
        Target::Database => Some(&cluster.database),
        Target::Broker => cluster.broker.as_ref(),
        _ => None,
    };
    let server = server.ok_or_else(|| format!("there is no {} of its own", fault.target))?;
    let mut standing = server.standing.lock().await;
    tokio::time::sleep_until(standing.ready + BETWEEN).await;
    if fault.kind == Kind::BrokerCrash {
        server.services.order("settle", &standing.name).await?;
    }
    for order in orders {
        server.services.order(order, &standing.name).await?;
    }
    tokio::time::sleep(fault.lasts).await;
    server.services.order("start", &standing.name).await?;
    cluster.journal.note(Event::Ready { fault: number });
    standing.ready = Instant::now();
    Ok(())
}
