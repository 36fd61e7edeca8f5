//! Queues, workers and kinds.

use clap::{Args, Subcommand};
use serde_json::Value;
use windlass::Settings;

use crate::{
    Failure,
    operate::{Operator, cell, escaped, print_json, print_table},
};

/// Show what waits in the queues; pause, resume or drain one.
#[derive(Debug, Args)]
pub(crate) struct Queues {
    #[command(subcommand)]
    what: Option<OnQueue>,
    /// Print JSON, as the HTTP API answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum OnQueue {
    /// Show the queues, which is what happens without a word as well
    List,
    /// Start none of its jobs
    Pause {
        /// The queue's name
        name: String,
    },
    /// End a pause or a drain
    Resume {
        /// The queue's name
        name: String,
    },
    /// Take no new jobs
    Drain {
        /// The queue's name
        name: String,
    },
}

impl Queues {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let change = |what, name: &str| format!("/v1/queues/{}/{what}", escaped(name));
        let answer = match &self.what {
            None | Some(OnQueue::List) => operator.get("/v1/queues").await,
            Some(OnQueue::Pause { name }) => operator.post(&change("pause", name), None).await,
            Some(OnQueue::Resume { name }) => operator.post(&change("resume", name), None).await,
            Some(OnQueue::Drain { name }) => operator.post(&change("drain", name), None).await,
        };
        operator.close().await;
        let mut answer = answer?;
        if settings.broker().expose().starts_with("memory:") {
            // What waits there waits in another process.
            match answer["queues"].as_array_mut() {
                Some(queues) => queues.iter_mut().for_each(hide_depth),
                None => hide_depth(&mut answer),
            }
        }
        if self.json {
            print_json(&answer);
            return Ok(());
        }
        let queues = answer["queues"].as_array().cloned().unwrap_or_else(|| vec![answer]);
        let head = ["QUEUE", "STATE", "WAITING", "RUNNING", "SCHEDULED", "RETRYING", "DEAD"];
        print_table(head, queues.iter().map(queue_row).collect());
        Ok(())
    }
}

fn hide_depth(queue: &mut Value) {
    queue["depth"] = Value::Null;
    queue["lanes"] = Value::Array(Vec::new());
}

fn queue_row(queue: &Value) -> [String; 7] {
    let state = match (queue["paused"] == true, queue["draining"] == true) {
        (true, _) => "paused",
        (false, true) => "draining",
        (false, false) => "open",
    };
    let count = |state: &str| cell(&queue["counts"][state]);
    let counts = [count("running"), count("scheduled"), count("retrying"), count("dead")];
    let [running, scheduled, retrying, dead] = counts;
    [cell(&queue["name"]), state.into(), cell(&queue["depth"]), running, scheduled, retrying, dead]
}

/// Show the workers, and how many jobs each runs.
#[derive(Debug, Args)]
pub(crate) struct Workers {
    /// Print JSON, as the HTTP API answers
    #[arg(long)]
    json: bool,
}

impl Workers {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let answer = operator.get("/v1/workers?limit=1000").await;
        operator.close().await;
        let answer = answer?;
        if self.json {
            print_json(&answer);
            return Ok(());
        }
        let columns = ["id", "label", "alive", "running", "started_at", "seen_at"];
        let workers = answer["workers"].as_array().into_iter().flatten();
        let rows = workers.map(|worker| columns.map(|column| cell(&worker[column]))).collect();
        print_table(["ID", "LABEL", "ALIVE", "RUNNING", "STARTED", "SEEN"], rows);
        Ok(())
    }
}

/// Show the kinds of jobs, and how many workers handle each.
#[derive(Debug, Args)]
pub(crate) struct Kinds {
    /// Print JSON, as the HTTP API answers
    #[arg(long)]
    json: bool,
}

impl Kinds {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let answer = operator.get("/v1/kinds").await;
        operator.close().await;
        let answer = answer?;
        if self.json {
            print_json(&answer);
            return Ok(());
        }
        let row = |kind: &Value| {
            let count = |list: &Value| list.as_array().map_or(0, Vec::len).to_string();
            let schema = kind["schemas"].get(cell(&kind["version"])).is_some();
            [
                cell(&kind["kind"]),
                cell(&kind["version"]),
                if schema { "yes" } else { "no" }.into(),
                cell(&kind["queue"]),
                cell(&kind["max_attempts"]),
                count(&kind["workers"]),
            ]
        };
        let rows = answer["kinds"].as_array().into_iter().flatten().map(row).collect();
        print_table(["KIND", "VERSION", "SCHEMA", "QUEUE", "MAX ATTEMPTS", "WORKERS"], rows);
        Ok(())
    }
}
