//! The `windlass` command: `dev` runs everything in one process, `api` and `migrate` serve production,
//! `jobs`, `schedules`, `workflows`, `queues`, `workers`, `kinds` and `webhooks` are for operators, `keys` says who may use the API,
//! `broker` looks at the broker, `doctor` at everything, `bench` measures.

mod api;
mod bench;
mod broker;
mod dev;
mod doctor;
mod enqueue;
mod fleet;
mod jobs;
mod keys;
mod migrate;
mod operate;
mod schedules;
mod watch;
mod webhooks;
mod workflows;

use std::{ffi::OsString, fmt, process::ExitCode};

use clap::{Parser, Subcommand};
use windlass::{
    ClientError, Settings,
    driver::{BrokerError, StoreError},
};

/// Background jobs over any broker.
///
/// Settings come from windlass.toml (or the file that WINDLASS_CONFIG names) and from WINDLASS_* variables; flags
/// override both.
///
/// Exit codes: 0 done, 1 failed while running, 2 wrong usage or a setting that cannot work.
#[derive(Debug, Parser)]
#[command(name = "windlass", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Dev),
    Api(api::Api),
    Migrate(migrate::Migrate),
    Jobs(jobs::Jobs),
    Schedules(schedules::Schedules),
    Workflows(workflows::Workflows),
    Queues(fleet::Queues),
    Workers(fleet::Workers),
    Kinds(fleet::Kinds),
    Webhooks(webhooks::Webhooks),
    Keys(keys::Keys),
    Broker(broker::ShowBroker),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
}

/// Runs the command with these arguments, the first being the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no failures; clap knows which stream is theirs.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("windlass: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let settings = Settings::load().map_err(Failure::usage)?;
    windlass::init_logging(&settings).map_err(Failure::usage)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::running)?;
    runtime.block_on(async {
        match command {
            Command::Dev(dev) => dev.run(settings).await,
            Command::Api(api) => api.run(settings).await,
            Command::Migrate(migrate) => migrate.run(settings).await,
            Command::Jobs(jobs) => jobs.run(settings).await,
            Command::Schedules(schedules) => schedules.run(settings).await,
            Command::Workflows(workflows) => workflows.run(settings).await,
            Command::Queues(queues) => queues.run(settings).await,
            Command::Workers(workers) => workers.run(settings).await,
            Command::Kinds(kinds) => kinds.run(settings).await,
            Command::Webhooks(webhooks) => webhooks.run(settings).await,
            Command::Keys(keys) => keys.run(settings).await,
            Command::Broker(broker) => broker.run(settings).await,
            Command::Doctor(doctor) => doctor.run(settings).await,
            Command::Bench(bench) => bench.run(settings).await,
        }
    })
}

/// Why the command failed, told to the user once.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn usage(error: impl fmt::Display) -> Self {
        Self { code: 2, message: error.to_string() }
    }

    fn running(error: impl fmt::Display) -> Self {
        Self { code: 1, message: error.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Config { .. } => Self::usage(error),
            error => Self::running(format!("{error} (setting store_url)")),
        }
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Config { .. } => Self::usage(error),
            error => Self::running(format!("{error} (setting broker_url)")),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if error.retryable() { Self::running(error) } else { Self::usage(error) }
    }
}
