use std::{fmt, time::Duration};

use clap::Args;
use serde::Serialize;
use windlass::Settings;

use crate::{Failure, api};

/// Measure: accept and drain no-op jobs on a store and a broker.
///
/// Without --store and --broker, a SQLite file in a temporary folder and the memory broker.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The store's URL
    #[arg(long)]
    store: Option<String>,
    /// The broker's URL
    #[arg(long)]
    broker: Option<String>,
    /// How many jobs to run
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// How many the worker runs at a time
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: u32,
    /// How many jobs run at the same time while memory is measured
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    running: u32,
    /// Measure the bare servers in the same run too (Postgres with RabbitMQ only)
    #[arg(long)]
    bound: bool,
    /// Measure instead what polls cost a Postgres store: so many clients, half of which wait, on --jobs jobs
    #[arg(long, value_name = "CLIENTS", conflicts_with = "bound", value_parser = clap::value_parser!(u32).range(2..))]
    polls: Option<u32>,
    /// Measure instead what becomes of twice the requests that the API can carry, for so many seconds
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["bound", "polls"], value_parser = clap::value_parser!(u32).range(1..))]
    load: Option<u32>,
    /// Write JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) async fn run(self, mut settings: Settings) -> Result<(), Failure> {
        let folder = tempfile::tempdir().map_err(Failure::running)?;
        settings.store_url = match self.store {
            Some(url) => url.into(),
            None => format!("sqlite:{}", folder.path().join("bench.db").display()).into(),
        };
        settings.broker_url = self.broker.unwrap_or_else(|| "memory:".to_owned()).into();
        if let Some(clients) = self.polls {
            let options = windlass_bench::PollOptions {
                jobs: self.jobs as usize,
                clients: clients as usize,
                time: Duration::from_secs(10),
            };
            let report = windlass_bench::run_polls(&settings, options).await.map_err(Failure::running)?;
            return show(&report, self.json);
        }
        if let Some(seconds) = self.load {
            let options = windlass_bench::LoadOptions {
                alone: 1000,
                sustain: Duration::from_secs(10),
                time: Duration::from_secs(seconds.into()),
                factor: 2.0,
            };
            let report = windlass_bench::run_load(&settings, api::open_options(&settings), options);
            return show(&report.await.map_err(Failure::running)?, self.json);
        }
        let options = windlass_bench::Options {
            jobs: self.jobs as usize,
            concurrency: self.concurrency as usize,
            running: self.running as usize,
            bound: self.bound,
        };
        let report = windlass_bench::run(&settings, options).await.map_err(Failure::running)?;
        show(&report, self.json)
    }
}

fn show(report: &(impl Serialize + fmt::Display), json: bool) -> Result<(), Failure> {
    if json {
        println!("{}", serde_json::to_string_pretty(report).map_err(Failure::running)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
