use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use windlass::{Client, Settings, WorkflowLimits, driver::BrokerError, stop_by_signal};
use windlass_api::ApiOptions;

use crate::Failure;

/// Serve the HTTP API: accept jobs, publish them, answer polls. Run as many as you like behind a load balancer.
#[derive(Debug, Args)]
pub(crate) struct Api {
    /// The address to listen on [setting: api_listen]
    #[arg(long)]
    listen: Option<String>,
}

impl Api {
    pub(crate) async fn run(self, mut settings: Settings) -> Result<(), Failure> {
        if let Some(listen) = self.listen {
            settings.api_listen = listen;
        }
        if settings.broker_url.expose().starts_with("memory:") {
            return Err(Failure::usage(
                "broker_url is memory:, which reaches no other process; set it to the broker that your workers use \
                 (WINDLASS_BROKER_URL), or run everything in one process with `windlass dev`",
            ));
        }
        let shutdown = CancellationToken::new();
        stop_by_signal(shutdown.clone()).map_err(Failure::running)?;
        let client = Client::connect(&settings).await?;
        client.store().ping().await?;
        match client.broker().ping().await {
            Ok(()) => {}
            Err(error @ BrokerError::Config { .. }) => return Err(Failure::usage(error)),
            // Jobs are accepted all the same, and published when it is back (P6).
            Err(error) => tracing::warn!(
                %error,
                broker = %settings.broker(),
                "the broker does not answer; jobs are accepted, and published when it does: check broker_url \
                 (WINDLASS_BROKER_URL), and whether it runs"
            ),
        }
        client.check_objects().await?;
        let listener = listen(&settings).await?;
        let address = listener.local_addr().map_err(Failure::running)?;
        tracing::info!(%address, store = %settings.store_url, broker = %settings.broker_url, "serving the API");
        let served = windlass_api::serve(listener, client.clone(), options(&settings), shutdown).await;
        client.close().await;
        served.map_err(Failure::running)
    }
}

pub(crate) async fn listen(settings: &Settings) -> Result<TcpListener, Failure> {
    TcpListener::bind(&settings.api_listen).await.map_err(|e| {
        Failure::usage(format!("cannot listen on {}: {e} (setting api_listen)", settings.api_listen))
    })
}

pub(crate) fn options(settings: &Settings) -> ApiOptions {
    ApiOptions {
        max_body: settings.api_max_body,
        max_batch_body: settings.api_max_batch_body,
        max_depth: settings.api_max_depth,
        unknown_kinds: settings.api_unknown_kinds,
        workflow_limits: WorkflowLimits {
            jobs: settings.api_workflow_jobs,
            parents: settings.api_workflow_parents,
            ..WorkflowLimits::default()
        },
        idempotency_ttl: settings.api_idempotency_ttl,
        request_timeout: settings.api_timeout,
        max_wait: settings.api_max_wait,
        max_waiting: settings.api_max_waiting,
        max_in_flight: settings.api_max_in_flight,
        max_connections: settings.api_max_connections,
        max_head: settings.api_max_head,
        body_memory: settings.api_body_memory,
        ..ApiOptions::default()
    }
}
