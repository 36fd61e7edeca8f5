use std::path::{Path, PathBuf};

use clap::Args;
use tokio_util::sync::CancellationToken;
use windlass::{Client, Settings, Worker, init_metrics, stop_by_signal};

use crate::{Failure, api, webhooks};

/// Run everything in one process: API, a worker with the example handlers and for webhooks, a SQLite file, the memory broker.
///
/// Jobs survive a restart. For trying Windlass out and for developing against it, not for production.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where the jobs, and the files that the example handlers read and write, are kept
    #[arg(long, default_value = "windlass-data")]
    data_dir: PathBuf,
}

impl Dev {
    pub(crate) async fn run(self, mut settings: Settings) -> Result<(), Failure> {
        settings.store_url = format!("sqlite:{}", self.data_dir.join("windlass.db").display()).into();
        settings.broker_url = "memory:".to_owned().into();
        settings.api_listen = self.listen;

        let metrics = init_metrics(&settings).map_err(Failure::usage)?;
        let shutdown = CancellationToken::new();
        stop_by_signal(shutdown.clone()).map_err(Failure::running)?;
        let listener = api::listen(&settings).await?;
        let address = listener.local_addr().map_err(Failure::running)?;
        let options = api::options(&settings, address, metrics)?;
        api::reload_by_signal(options.tls.as_ref()).map_err(Failure::running)?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let client = Client::connect(&settings).await?;
        client.store().migrate().await?;
        client.check_objects().await?;
        let workspace =
            windlass_examples::Workspace::with_samples(&self.data_dir).map_err(Failure::running)?;
        let worker = windlass_examples::register(Worker::new(client.clone(), (&settings).into()), workspace)
            .map_err(Failure::running)?
            .deliver_webhooks(webhooks::sender(&settings)?);

        greet(&format!("{scheme}://{address}"), &self.data_dir);

        // The worker stops after the API, so that nothing is accepted that nobody will look at; and if one of the
        // two cannot go on, neither does the other.
        let stop_worker = CancellationToken::new();
        let working = async {
            let worked = worker.run_until(stop_worker.clone()).await;
            shutdown.cancel();
            worked.map_err(Failure::running)
        };
        let serving = async {
            let served = api::serve(&settings, listener, client.clone(), options, shutdown.clone()).await;
            stop_worker.cancel();
            served
        };
        let (worked, served) = tokio::join!(working, serving);
        client.close().await;
        worked.and(served)
    }
}

/// Says where to send requests. On standard output, since it is what the command is asked for; log lines go to
/// standard error.
fn greet(url: &str, data_dir: &Path) {
    let data_dir = data_dir.display();
    println!(
        "Windlass is running. Stop it with Ctrl-C; jobs are kept in {data_dir}/windlass.db.

  API    {url}
  files  {data_dir}/files/, results in {data_dir}/output/
  mail   {data_dir}/outbox/

Enqueue a job, then poll the Location of the answer:

  curl -i {url}/v1/jobs -H 'content-type: application/json' \\
       -d '{{\"kind\": \"report.build\", \"payload\": {{\"orders\": \"orders.csv\", \"group_by\": \"region\"}}}}'
"
    );
}
