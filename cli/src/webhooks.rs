use clap::{Args, Subcommand};
use serde_json::Value;
use windlass::{Client, Settings, WebhookSender, Worker, WorkerOptions};

use crate::{
    Failure,
    operate::{Operator, cell, escaped, print_json, print_table},
};

/// Webhooks: deliver them, and see what they have been told.
#[derive(Debug, Args)]
pub(crate) struct Webhooks {
    #[command(subcommand)]
    command: Command,
    /// Print JSON, as the HTTP API answers
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a worker that delivers webhooks, and nothing else
    Deliver,
    /// Show the webhooks
    List,
    /// Show what a webhook has been told, newest first
    Deliveries {
        /// The webhook's id
        id: String,
    },
}

impl Webhooks {
    pub(crate) async fn run(self, settings: Settings) -> Result<(), Failure> {
        match &self.command {
            Command::Deliver => deliver(&settings).await,
            Command::List => self.list(&settings).await,
            Command::Deliveries { id } => self.deliveries(&settings, id).await,
        }
    }

    async fn list(&self, settings: &Settings) -> Result<(), Failure> {
        let Some(answer) = self.answer(settings, "/v1/webhooks").await? else { return Ok(()) };
        let row = |webhook: &Value| {
            let words = |list: &Value| match list.as_array() {
                Some(words) => words.iter().map(cell).collect::<Vec<_>>().join(","),
                None => "all".into(),
            };
            [
                cell(&webhook["id"]),
                if webhook["enabled"] == true { "enabled" } else { "disabled" }.into(),
                cell(&webhook["tenant"]),
                words(&webhook["events"]),
                words(&webhook["kinds"]),
                words(&webhook["queues"]),
                cell(&webhook["url"]),
            ]
        };
        let rows = answer["webhooks"].as_array().into_iter().flatten().map(row).collect();
        print_table(["ID", "STATE", "TENANT", "EVENTS", "KINDS", "QUEUES", "URL"], rows);
        Ok(())
    }

    async fn deliveries(&self, settings: &Settings, id: &str) -> Result<(), Failure> {
        let path = format!("/v1/webhooks/{}/deliveries", escaped(id));
        let Some(answer) = self.answer(settings, &path).await? else { return Ok(()) };
        let columns = ["id", "event", "job", "state", "attempt", "status_code", "attempted_at", "error"];
        let deliveries = answer["deliveries"].as_array().into_iter().flatten();
        let rows = deliveries.map(|delivery| columns.map(|column| cell(&delivery[column]))).collect();
        print_table(["ID", "EVENT", "JOB", "STATE", "ATTEMPT", "ANSWER", "AT", "ERROR"], rows);
        Ok(())
    }

    /// What the API answers; `None` once it has been printed as it is.
    async fn answer(&self, settings: &Settings, path: &str) -> Result<Option<Value>, Failure> {
        let operator = Operator::open(settings).await?;
        let answer = operator.get(path).await;
        operator.close().await;
        let answer = answer?;
        if self.json {
            print_json(&answer);
            return Ok(None);
        }
        Ok(Some(answer))
    }
}

/// What sends deliveries, to where the settings say.
pub(crate) fn sender(settings: &Settings) -> Result<WebhookSender, Failure> {
    WebhookSender::new(settings.outside()).map_err(Failure::running)
}

async fn deliver(settings: &Settings) -> Result<(), Failure> {
    let client = Client::connect(settings).await?;
    client.store().ping().await?;
    // Whatever queues other workers are told to take from.
    let options = WorkerOptions { queues: Vec::new(), ..settings.into() };
    let worker = Worker::new(client, options).deliver_webhooks(sender(settings)?);
    worker.run().await.map_err(Failure::running)
}
