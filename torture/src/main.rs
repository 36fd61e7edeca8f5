//! `windlass-torture`: random load over HTTP on real processes and servers, faults from a seeded schedule, and a check of
//! all that came of it. See `torture/README.md`.

mod checker;
mod clock;
mod cluster;
mod disk;
mod evidence;
mod faults;
mod history;
mod jobs;
mod journal;
mod lines;
mod load;
mod plan;
mod proxy;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use sqlx::AssertSqlSafe;
use tokio::time::{Instant, sleep};

use crate::{
    cluster::{Cluster, SCHEMA, Shape},
    evidence::{Evidence, Terms, dump},
    history::History,
    load::{Client, Load},
    plan::{Kind, Scene},
};

/// What goes wrong in the torture itself.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long none may end, after the load and the last fault, before the rest are given up.
const DRAIN: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(
    name = "windlass-torture",
    about = "Random load, random faults, and a check of all that came of it"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tortures a cluster of its own; exit code 1 if a rule was broken, 2 if it could not be run.
    Run(Options),
    /// Prints the schedule of faults that `run` would follow.
    Plan(Options),
    /// Checks once more what a run has left.
    Check {
        /// Its folder.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Options {
    /// What delivers the jobs.
    #[arg(long, value_enum, default_value_t = Broker::Rabbitmq)]
    broker: Broker,
    /// All chance comes from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the load lasts.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How many requests to enqueue come in a second, on average: `100/s`.
    #[arg(long, default_value = "40/s", value_parser = rate)]
    rate: f64,
    /// From one fault to the next, on average.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pause: Duration,
    /// API processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    apis: u8,
    /// Worker processes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// The workers' lease.
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// The machine has other work: how long recoveries take is told, and breaks no rule. That they come does.
    #[arg(long)]
    busy: bool,
    /// Which faults may happen; all, unless told.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// Where logs and histories are kept. Without it they are under the system's folder for what is temporary, and go
    /// with a run that breaks no rule.
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Broker {
    Rabbitmq,
    Kafka,
    Sqs,
    Pubsub,
    Nats,
    Redis,
    /// None of its own: the store's database delivers.
    Postgres,
}

impl Broker {
    fn name(self) -> &'static str {
        match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Kafka => "kafka",
            Self::Sqs => "sqs",
            Self::Pubsub => "pubsub",
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>();
    number
        .ok()
        .filter(|rate| *rate > 0.0 && rate.is_finite())
        .ok_or_else(|| "give a rate such as 100/s".to_owned())
}

impl Options {
    /// Which faults may happen.
    fn kinds(&self) -> Vec<Kind> {
        let mut kinds = self.faults.clone().unwrap_or_else(|| Kind::ALL.to_vec());
        kinds.retain(|kind| self.broker != Broker::Postgres || !kind.needs_broker());
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    fn scene(&self) -> Scene {
        Scene {
            seed: self.seed,
            time: self.time,
            // Not none, or there would be no end of faults.
            pause: self.pause.max(Duration::from_millis(10)),
            apis: usize::from(self.apis),
            workers: usize::from(self.workers),
            lease: self.lease,
            kinds: self.kinds(),
            broker: self.broker != Broker::Postgres,
            one_link: self.shape().one_link(),
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            broker: self.broker.name().to_owned(),
            apis: usize::from(self.apis),
            workers: usize::from(self.workers),
            lease: self.lease,
            replica: self.kinds().contains(&Kind::Failover),
            faketime: faketime().filter(|_| self.kinds().contains(&Kind::Clock)),
        }
    }
}

/// Where Debian's package `faketime` puts its library.
fn faketime() -> Option<PathBuf> {
    let folder = format!("/usr/lib/{}-linux-gnu/faketime", std::env::consts::ARCH);
    Some(Path::new(&folder).join("libfaketimeMT.so.1")).filter(|library| library.exists())
}

fn main() -> ExitCode {
    // What a cluster's processes are started as: a worker with the handlers of this crate, or the `windlass` command.
    match std::env::args().nth(1).as_deref() {
        Some("worker") => return told(jobs::worker().map(|()| true)),
        Some("api" | "migrate") => return windlass_cli::main(std::env::args_os()),
        _ => {}
    }
    match Cli::parse().command {
        Command::Run(options) => told(run(&options)),
        Command::Plan(options) => {
            for (number, fault) in options.scene().plan().iter().enumerate() {
                println!("{:8.2} s  #{number} {fault}", fault.at.as_secs_f64());
            }
            ExitCode::SUCCESS
        }
        Command::Check { dir } => told(check(&dir)),
    }
}

/// 0 where all is well, 1 where a rule was broken.
fn told(outcome: Result<bool, Failure>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Checks what is in a folder, and tells; whether no rule was broken.
fn check(folder: &Path) -> Result<bool, Failure> {
    let evidence = Evidence::load(folder)?;
    let violations = checker::check(&evidence);
    let report = report::report(&evidence, &violations);
    println!("{report}");
    std::fs::write(folder.join("report.txt"), report)?;
    Ok(violations.is_empty())
}

#[tokio::main]
async fn run(options: &Options) -> Result<bool, Failure> {
    let folder = match &options.dir {
        Some(folder) => folder.clone(),
        None => std::env::temp_dir().join(format!("windlass-torture-{}", uuid::Uuid::new_v4().simple())),
    };
    if folder.join(History::FILE).exists() {
        return Err(
            format!("{} holds another run: name another folder, or remove it", folder.display()).into()
        );
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    // Among the features of this build is one by which reqwest leaves the choice to the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!("seed {}, broker {}, in {}", options.seed, options.broker.name(), folder.display());
    let tortured = tokio::select! {
        tortured = torture(options, &folder) => tortured,
        () = interrupted() => Err("interrupted".into()),
    };
    let well = match tortured {
        Ok(()) => {
            let folder = folder.clone();
            tokio::task::spawn_blocking(move || check(&folder)).await?
        }
        Err(error) => Err(error),
    };
    match well {
        Ok(true) if options.dir.is_none() => std::fs::remove_dir_all(&folder)?,
        _ => println!("logs and histories are in {}; seed {}", folder.display(), options.seed),
    }
    well
}

/// SIGINT or SIGTERM: servers and processes are taken down all the same.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

async fn torture(options: &Options, folder: &Path) -> Result<(), Failure> {
    let cluster = Cluster::start(folder, options.shape()).await?;
    let client = Client::new(cluster.addresses(), History::open(folder)?)?;
    Load::prepare(&client, Duration::from_secs(60)).await?;
    cluster.journal.say("the load begins");
    let cluster_version = cluster.clone();
    let load = Load::new(client, options.seed, options.rate, options.time, move || cluster_version.is_new());
    let plan = options.scene().plan();
    let extended = load.clone();
    let faults = tokio::spawn(faults::inject(cluster.clone(), plan, move |by| extended.extend(by)));
    load.run().await;
    faults.await?;
    cluster.journal.say("the load is over; waiting for all jobs to end");
    let drained = drain(&cluster).await;
    cluster.journal.say(match drained {
        Ok(0) => "all jobs are over".to_owned(),
        Ok(left) => format!("{left} jobs are not over, and none has ended for {DRAIN:?}"),
        Err(error) => format!("the store cannot be asked: {error}"),
    });
    load.read_all(&mut fastrand::Rng::with_seed(options.seed)).await;
    cluster.end_processes().await;
    dump(&cluster.pool, folder, Terms { lease: options.lease, busy: options.busy }).await?;
    cluster.pool.close().await;
    keep_logs(folder)?;
    // Taking the servers down blocks.
    tokio::task::spawn_blocking(move || drop(Arc::into_inner(cluster))).await?;
    Ok(())
}

/// Keeps what the servers had to say, which goes with them.
fn keep_logs(folder: &Path) -> std::io::Result<()> {
    for server in ["database", "broker"] {
        // There may be no broker.
        let Ok(files) = std::fs::read_dir(folder.join(server).join("state")) else { continue };
        for file in files {
            let file = file?.path();
            if let Some(name) = file.file_name()
                && file.extension().is_some_and(|extension| extension == "log")
            {
                std::fs::copy(&file, folder.join(format!("{server}-{}", name.display())))?;
            }
        }
    }
    Ok(())
}

/// Waits until no job is unfinished; answers how many still are.
async fn drain(cluster: &Cluster) -> Result<i64, sqlx::Error> {
    let statement = format!("SELECT count(*) FROM {SCHEMA}.jobs WHERE state NOT IN (4, 5, 6)");
    let (mut until, mut least) = (Instant::now() + DRAIN, i64::MAX);
    loop {
        let left =
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(statement.as_str())).fetch_one(&cluster.pool).await;
        match left {
            Ok(0) => return Ok(0),
            // A machine that is too slow for the load has much left, and gets on with it.
            Ok(left) if left < least => (until, least) = (Instant::now() + DRAIN, left),
            Ok(left) if Instant::now() >= until => return Ok(left),
            Err(error) if Instant::now() >= until => return Err(error),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
}
