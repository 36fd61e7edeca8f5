use std::{fmt, time::Duration};

use serde::Serialize;

/// What a run measured. Rates are jobs per second, times are microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The store, without secrets.
    pub store: String,
    /// The broker, without secrets.
    pub broker: String,
    /// How many jobs were run.
    pub jobs: usize,
    /// Jobs accepted per second, by concurrent callers, each durable when counted.
    pub accepted_per_second: f64,
    /// Jobs whose handler has run, per second of draining.
    pub run_per_second: f64,
    /// Jobs whose outcome is recorded, per second of draining.
    pub finished_per_second: f64,
    /// Jobs per second over the whole path: accepted, then drained.
    pub whole_path_per_second: f64,
    /// From the enqueue call to the handler's start for a lone job on an idle system, median.
    pub start_latency_p50_us: u64,
    /// The same, 99th percentile.
    pub start_latency_p99_us: u64,
    /// Resident bytes of the process with an idle worker, where the system tells.
    pub idle_memory: Option<u64>,
    /// How many jobs ran at the same time for the next number.
    pub running: usize,
    /// Resident bytes that these running jobs added.
    pub running_memory: Option<u64>,
    /// Statements (committed transactions) per job over the whole path, where the store can tell.
    pub statements_per_job: Option<f64>,
    /// Rows inserted, updated or deleted per job over the whole path, where the store can tell.
    pub row_writes_per_job: Option<f64>,
    /// What the servers allow, measured in the same run.
    pub bound: Option<Bound>,
}

/// The bare work of both servers.
#[derive(Debug, Clone, Serialize)]
pub struct Bound {
    /// Jobs per second by bare grouped row writes: insert, claim, finish.
    pub rows_per_second: f64,
    /// Messages per second by bare pipelined publish and consume.
    pub messages_per_second: f64,
    /// Jobs per second if a job cost the sum of both and nothing else.
    pub per_second: f64,
    /// The whole path's share of that.
    pub share: f64,
}

#[cfg(all(feature = "postgres", feature = "rabbitmq"))]
impl Bound {
    pub(crate) fn new(rows_per_second: f64, messages_per_second: f64, whole_path_per_second: f64) -> Self {
        let per_second = 1.0 / (1.0 / rows_per_second + 1.0 / messages_per_second);
        Self { rows_per_second, messages_per_second, per_second, share: whole_path_per_second / per_second }
    }
}

pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} jobs, store {}, broker {}", self.jobs, self.store, self.broker)?;
        writeln!(f, "  accepted       {:>10.0} jobs/s", self.accepted_per_second)?;
        writeln!(f, "  run            {:>10.0} jobs/s", self.run_per_second)?;
        writeln!(f, "  finished       {:>10.0} jobs/s", self.finished_per_second)?;
        writeln!(f, "  whole path     {:>10.0} jobs/s", self.whole_path_per_second)?;
        let milliseconds = |us: u64| us as f64 / 1000.0;
        writeln!(f, "  start latency  {:>10.2} ms p50", milliseconds(self.start_latency_p50_us))?;
        write!(f, "                 {:>10.2} ms p99", milliseconds(self.start_latency_p99_us))?;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        if let (Some(idle), Some(running)) = (self.idle_memory, self.running_memory) {
            write!(f, "\n  memory idle    {:>10.1} MiB", mebibytes(idle))?;
            write!(
                f,
                "\n  memory added   {:>10.1} MiB by {} running jobs",
                mebibytes(running),
                self.running
            )?;
        }
        if let Some(statements) = self.statements_per_job {
            write!(f, "\n  statements     {statements:>10.3} per job")?;
        }
        if let Some(writes) = self.row_writes_per_job {
            write!(f, "\n  row writes     {writes:>10.2} per job")?;
        }
        if let Some(bound) = &self.bound {
            write!(f, "\n  bare rows      {:>10.0} jobs/s", bound.rows_per_second)?;
            write!(f, "\n  bare messages  {:>10.0} jobs/s", bound.messages_per_second)?;
            write!(f, "\n  bound          {:>10.0} jobs/s", bound.per_second)?;
            write!(f, "\n  share of bound {:>10.2}", bound.share)?;
        }
        Ok(())
    }
}
