use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass::Settings;

use crate::{
    Failure,
    enqueue::Enqueue,
    operate::{Operator, cell, escaped, labels, print_json, print_table},
    watch,
};

/// Enqueue, list, show, follow, cancel and retry jobs.
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    what: What,
    /// Print JSON, as the HTTP API answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List jobs, newest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many to look for, up to 1000
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Where to go on: what an earlier list has ended with
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Show one job
    Get {
        /// The job's id
        id: String,
    },
    /// Enqueue a job
    Enqueue(Box<Enqueue>),
    /// Follow a job until it is over: a line, or with --json an object, for each change
    ///
    /// Exit code 1 if it does not succeed.
    Watch {
        /// The job's id
        id: String,
    },
    /// Call off jobs that are not over: those named, or all that fit
    Cancel(Which),
    /// Run jobs again that are over: those named, or all that fit, which are the dead unless --state says otherwise
    Retry(Which),
}

#[derive(Debug, Args)]
struct Filter {
    /// Of this queue
    #[arg(long)]
    queue: Option<String>,
    /// Of this kind
    #[arg(long)]
    kind: Option<String>,
    /// In this state; may be repeated
    #[arg(long)]
    state: Vec<String>,
    /// With this label, name:value; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// Made at this time or later, as in 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    /// Made before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
}

#[derive(Debug, Args)]
struct Which {
    /// The jobs' ids
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All of them, without a filter
    #[arg(long)]
    all: bool,
}

impl Filter {
    fn parameters(&self) -> Vec<(&'static str, &str)> {
        let mut parameters: Vec<(&str, &str)> = Vec::new();
        let single = [
            ("queue", &self.queue),
            ("kind", &self.kind),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
        ];
        parameters.extend(single.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))));
        parameters.extend(self.state.iter().map(|state| ("state", state.as_str())));
        parameters.extend(self.label.iter().map(|label| ("label", label.as_str())));
        parameters
    }

    /// As a body has it.
    fn object(&self) -> Result<Value, Failure> {
        let mut filter = json!({ "state": self.state, "labels": labels(&self.label)? });
        for (name, value) in self.parameters() {
            if !["state", "label"].contains(&name) {
                filter[name] = value.into();
            }
        }
        Ok(filter)
    }
}

impl Jobs {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        let operator = Operator::open(&settings).await?;
        let done = match &self.what {
            What::List { filter, limit, cursor } => {
                self.list(&operator, filter, *limit, cursor.as_deref()).await
            }
            What::Get { id } => self.get(&operator, id).await,
            What::Enqueue(enqueue) => enqueue.run(&operator, self.json).await,
            What::Watch { id } => watch::watch(&operator, id, self.json).await,
            What::Cancel(which) => self.change(&operator, "cancel", which).await,
            What::Retry(which) => self.change(&operator, "retry", which).await,
        };
        operator.close().await;
        done
    }

    /// Looks on until it has found as many as asked for, or all: one answer may be short.
    async fn list(
        &self,
        operator: &Operator,
        filter: &Filter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(), Failure> {
        let (mut jobs, mut cursor) = (Vec::new(), cursor.map(str::to_owned));
        loop {
            let mut query = format!("limit={}", limit.saturating_sub(jobs.len()));
            let cursor_now = cursor.iter().map(|cursor| ("cursor", cursor.as_str()));
            for (name, value) in filter.parameters().into_iter().chain(cursor_now) {
                query.push_str(&format!("&{name}={}", escaped(value)));
            }
            let mut page = operator.get(&format!("/v1/jobs?{query}")).await?;
            if let Some(found) = page["jobs"].as_array_mut() {
                jobs.append(found);
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() || jobs.len() >= limit {
                break;
            }
        }
        if self.json {
            print_json(&json!({ "jobs": jobs, "next_cursor": cursor }));
            return Ok(());
        }
        let columns = ["id", "kind", "queue", "state", "attempt", "created_at"];
        let rows = jobs.iter().map(|job| columns.map(|column| cell(&job[column]))).collect();
        print_table(["ID", "KIND", "QUEUE", "STATE", "ATTEMPT", "CREATED"], rows);
        if let Some(cursor) = cursor {
            println!("\nmore: --cursor {cursor}");
        }
        Ok(())
    }

    async fn get(&self, operator: &Operator, id: &str) -> Result<(), Failure> {
        let job = operator.get(&format!("/v1/jobs/{}", escaped(id))).await?;
        if self.json {
            print_json(&job);
            return Ok(());
        }
        let fields = job.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let rows =
            fields.filter(|(name, _)| *name != "errors").map(|(name, value)| [name.clone(), cell(value)]);
        print_table(["FIELD", "VALUE"], rows.collect());
        for error in job["errors"].as_array().into_iter().flatten() {
            let [attempt, at, worker, message] =
                ["attempt", "at", "worker", "message"].map(|name| cell(&error[name]));
            println!("\nattempt {attempt} failed at {at} on {worker}: {message}");
        }
        Ok(())
    }

    async fn change(&self, operator: &Operator, what: &str, which: &Which) -> Result<(), Failure> {
        let path = format!("/v1/jobs/{what}");
        let filtered = !which.filter.parameters().is_empty();
        let mut count = 0;
        match (which.ids.is_empty(), filtered || which.all) {
            (false, false) => {
                let answer = operator.post(&path, Some(json!({ "ids": which.ids }))).await?;
                count += answer["count"].as_u64().unwrap_or_default();
            }
            (true, true) => {
                let mut body = json!({ "filter": which.filter.object()? });
                loop {
                    let answer = operator.post(&path, Some(body.clone())).await?;
                    count += answer["count"].as_u64().unwrap_or_default();
                    body["cursor"] = answer["next_cursor"].clone();
                    if body["cursor"].is_null() {
                        break;
                    }
                }
            }
            (false, true) => return Err(Failure::usage("give either ids or a filter")),
            (true, false) => return Err(Failure::usage("give ids, a filter such as --queue, or --all")),
        }
        if self.json {
            print_json(&json!({ "count": count }));
        } else {
            println!("{count} {}", if count == 1 { "job" } else { "jobs" });
        }
        Ok(())
    }
}
