use axum::http::Method;
use clap::Args;
use serde_json::{Value, json};

use crate::{
    Failure,
    operate::{Operator, cell, json_argument, labels, print_json},
    watch,
};

/// What is enqueued, by `jobs enqueue`.
#[derive(Debug, Args)]
pub(crate) struct Enqueue {
    /// What the job is, such as email.send
    kind: String,
    /// What the handler gets: JSON, @FILE, or - for standard input; null unless given
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Which queue it waits in; that of its kind unless given
    #[arg(long)]
    queue: Option<String>,
    /// 0 low, 1 normal, 2 high, 3 urgent
    #[arg(long)]
    priority: Option<u8>,
    /// In what time it is due, such as 10m
    #[arg(long, value_name = "DURATION", conflicts_with = "run_at")]
    delay: Option<String>,
    /// When it is due, as in 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    run_at: Option<String>,
    /// How many attempts may be started
    #[arg(long)]
    max_attempts: Option<u32>,
    /// How long one attempt may run, such as 30s
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// On whose behalf it runs
    #[arg(long)]
    tenant: Option<String>,
    /// A label to find it by, name:value; may be repeated
    #[arg(long)]
    label: Vec<String>,
    /// Makes the command safe to repeat: the same key and job give the same job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until it is over, and show it then; exit code 1 if it does not succeed
    #[arg(long)]
    wait: bool,
}

impl Enqueue {
    pub(crate) async fn run(&self, operator: &Operator, json: bool) -> Result<(), Failure> {
        let key = self.idempotency_key.as_deref();
        let job = operator.call_with(Method::POST, "/v1/jobs", key, Some(self.body()?)).await?;
        let id = job["id"].as_str().unwrap_or_default();
        if self.wait {
            let last = watch::until_over(operator, id, |_| {}).await?;
            if json {
                print_json(&last);
            } else {
                println!("{}", watch::line(&last));
                if !last["result"].is_null() {
                    println!("{:#}", last["result"]);
                }
            }
            return watch::verdict(&last);
        }
        if json {
            print_json(&job);
        } else {
            println!("{id} {}", cell(&job["state"]));
        }
        Ok(())
    }

    fn body(&self) -> Result<Value, Failure> {
        let payload =
            self.payload.as_deref().map(|payload| json_argument("--payload", payload)).transpose()?;
        // What is null counts as absent, but for the payload.
        Ok(json!({
            "kind": self.kind, "payload": payload, "queue": self.queue, "priority": self.priority,
            "delay": self.delay, "run_at": self.run_at, "max_attempts": self.max_attempts,
            "timeout": self.timeout, "tenant": self.tenant, "labels": labels(&self.label)?,
        }))
    }
}
