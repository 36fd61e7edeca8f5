use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass::Settings;

use crate::{
    Failure,
    operate::{Operator, cell, escaped, json_argument, labels, print_json, print_table},
};

/// Show schedules; make, switch and delete them.
#[derive(Debug, Args)]
pub(crate) struct Schedules {
    #[command(subcommand)]
    what: Option<What>,
    /// Print JSON, as the HTTP API answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the schedules, which is what happens without a word as well
    List,
    /// Show one
    Get {
        /// The schedule's name
        name: String,
    },
    /// Make a schedule, or replace it as a whole
    Put(Box<Put>),
    /// Let it fire
    Enable {
        /// The schedule's name
        name: String,
    },
    /// Keep it from firing
    Disable {
        /// The schedule's name
        name: String,
    },
    /// Remove it; the jobs it has made stay
    Delete {
        /// The schedule's name
        name: String,
    },
}

#[derive(Debug, Args)]
struct Put {
    /// The schedule's name
    name: String,
    /// The whole definition, as the HTTP API takes it: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", exclusive = false, conflicts_with_all = ["cron", "every", "zone", "missed", "jitter", "disabled", "kind", "payload", "queue", "tenant", "label"])]
    definition: Option<String>,
    /// When it fires: five fields, or six with seconds first
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "every")]
    cron: Option<String>,
    /// The time zone of --cron, such as Europe/Berlin; UTC unless given
    #[arg(long, requires = "cron")]
    zone: Option<String>,
    /// In which interval it fires, such as 15m
    #[arg(long, value_name = "DURATION")]
    every: Option<String>,
    /// What becomes of ticks that nobody was there for: skip, once, or all
    #[arg(long)]
    missed: Option<String>,
    /// By how much each run is put off at most, at random
    #[arg(long, value_name = "DURATION")]
    jitter: Option<String>,
    /// It does not fire before it is enabled
    #[arg(long)]
    disabled: bool,
    /// What its jobs are, such as email.send
    #[arg(long, required_unless_present = "definition")]
    kind: Option<String>,
    /// What the handler gets: JSON, @FILE, or - for standard input; null unless given
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Which queue its jobs wait in; that of their kind unless given
    #[arg(long)]
    queue: Option<String>,
    /// On whose behalf its jobs run
    #[arg(long)]
    tenant: Option<String>,
    /// A label of its jobs, name:value; may be repeated
    #[arg(long)]
    label: Vec<String>,
}

impl Put {
    fn body(&self) -> Result<Value, Failure> {
        if let Some(definition) = &self.definition {
            return json_argument("--definition", definition);
        }
        let payload =
            self.payload.as_deref().map(|payload| json_argument("--payload", payload)).transpose()?;
        // What is null counts as absent, but for the payload. One that is there stays enabled or not.
        Ok(json!({
            "cron": self.cron, "zone": self.zone, "every": self.every, "missed": self.missed, "jitter": self.jitter,
            "enabled": self.disabled.then_some(false),
            "job": {
                "kind": self.kind, "payload": payload, "queue": self.queue, "tenant": self.tenant,
                "labels": labels(&self.label)?,
            },
        }))
    }
}

impl Schedules {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let done = self.ask(&operator).await;
        operator.close().await;
        let answer = done?;
        if self.json {
            print_json(&answer);
            return Ok(());
        }
        if answer.is_null() {
            return Ok(());
        }
        let schedules = answer["schedules"].as_array().cloned().unwrap_or_else(|| vec![answer]);
        let head = ["NAME", "WHEN", "ENABLED", "KIND", "QUEUE", "NEXT RUN", "LAST RUN"];
        print_table(head, schedules.iter().map(row).collect());
        Ok(())
    }

    async fn ask(&self, operator: &Operator) -> Result<Value, Failure> {
        let path = |name: &str| format!("/v1/schedules/{}", escaped(name));
        match &self.what {
            None | Some(What::List) => operator.get("/v1/schedules").await,
            Some(What::Get { name }) => operator.get(&path(name)).await,
            Some(What::Put(put)) => operator.call(Method::PUT, &path(&put.name), Some(put.body()?)).await,
            Some(What::Enable { name }) => operator.post(&(path(name) + "/enable"), None).await,
            Some(What::Disable { name }) => operator.post(&(path(name) + "/disable"), None).await,
            Some(What::Delete { name }) => operator.call(Method::DELETE, &path(name), None).await,
        }
    }
}

fn row(schedule: &Value) -> [String; 7] {
    let when = match schedule["cron"].as_str() {
        Some(_) => format!("{} ({})", cell(&schedule["cron"]), cell(&schedule["zone"])),
        None => format!("every {}", cell(&schedule["every"])),
    };
    let enabled = if schedule["enabled"] == true { "yes" } else { "no" };
    let job = &schedule["job"];
    [
        cell(&schedule["name"]),
        when,
        enabled.into(),
        cell(&job["kind"]),
        cell(&job["queue"]),
        cell(&schedule["next_runs"][0]),
        cell(&schedule["last_run"]),
    ]
}
