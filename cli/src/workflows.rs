use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass::Settings;

use crate::{
    Failure,
    operate::{Operator, cell, escaped, print_json, print_table},
};

/// Show a workflow; call it off, or run again what failed in it.
#[derive(Debug, Args)]
pub(crate) struct Workflows {
    #[command(subcommand)]
    what: What,
    /// Print JSON, as the HTTP API answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show where it stands, and all of its jobs
    Show {
        /// The workflow's id
        id: String,
    },
    /// Call off all that is not over
    Cancel {
        /// The workflow's id
        id: String,
    },
    /// Run what is dead or cancelled again, and what waits for it
    Retry {
        /// The workflow's id
        id: String,
    },
}

impl Workflows {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let done = self.ask(&operator).await;
        operator.close().await;
        let workflow = done?;
        if self.json {
            print_json(&workflow);
            return Ok(());
        }
        let counts = workflow["counts"].as_object().into_iter().flatten();
        let counts: Vec<String> = counts.map(|(state, count)| format!("{count} {state}")).collect();
        println!(
            "{} {} {}: {}",
            cell(&workflow["id"]),
            cell(&workflow["name"]),
            cell(&workflow["status"]),
            counts.join(", ")
        );
        println!();
        let columns = ["name", "id", "kind", "state", "attempt", "finished_at"];
        let jobs = workflow["jobs"].as_array().into_iter().flatten();
        let rows = jobs.map(|job| columns.map(|column| cell(&job[column]))).collect();
        print_table(["NAME", "ID", "KIND", "STATE", "ATTEMPT", "FINISHED"], rows);
        Ok(())
    }

    async fn ask(&self, operator: &Operator) -> Result<Value, Failure> {
        let path = |id: &str| format!("/v1/workflows/{}", escaped(id));
        let id = match &self.what {
            What::Show { id } => id,
            What::Cancel { id } => {
                operator.post(&(path(id) + "/cancel"), None).await?;
                id
            }
            What::Retry { id } => {
                operator.post(&(path(id) + "/retry"), None).await?;
                id
            }
        };
        whole(operator, &path(id)).await
    }
}

/// A workflow with all of its jobs, which come in pages.
async fn whole(operator: &Operator, path: &str) -> Result<Value, Failure> {
    let mut workflow = operator.get(&format!("{path}?limit=1000")).await?;
    let mut jobs = workflow["jobs"].as_array_mut().map(std::mem::take).unwrap_or_default();
    while let Some(cursor) = workflow["next_cursor"].as_str().map(str::to_owned) {
        workflow = operator.get(&format!("{path}?limit=1000&cursor={}", escaped(&cursor))).await?;
        jobs.extend(workflow["jobs"].as_array_mut().map(std::mem::take).unwrap_or_default());
    }
    workflow["jobs"] = json!(jobs);
    Ok(workflow)
}
