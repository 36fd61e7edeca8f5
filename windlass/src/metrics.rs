use std::{fmt, net::SocketAddr, time::Duration};

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Handle;
use windlass_client::Settings;

/// The limits of what durations are counted into, in seconds: from a statement to a long job.
const BUCKETS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
/// How often what has been recorded is put together, so that it takes no more and more memory where nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Why metrics could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The address is another program's, or none of this machine's.
    #[error("cannot listen on {address}: {problem} (setting metrics_listen)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        problem: String,
    },
    /// The program has a recorder of its own, which gets all metrics already.
    #[error("a recorder of metrics is set up already")]
    Twice,
    /// It was not called by a task of Tokio's.
    #[error("metrics are shown by a task of Tokio's: call this inside of its runtime")]
    NoRuntime,
    /// The exporter does not take it.
    #[error("metrics cannot be set up: {0}")]
    Setup(BuildError),
}

impl From<BuildError> for MetricsError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::FailedToSetGlobalRecorder(_) => Self::Twice,
            error => Self::Setup(error),
        }
    }
}

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Collects what Windlass tells the [`metrics`](https://docs.rs/metrics) facade, and shows it to Prometheus at the address of
/// the setting `metrics_listen`, if there is one. For programs that have no recorder of their own. Call it first: what has
/// begun before may go uncounted.
///
/// # Errors
/// See [`MetricsError`].
pub fn init_metrics(settings: &Settings) -> Result<Metrics, MetricsError> {
    let runtime = Handle::try_current().map_err(|_| MetricsError::NoRuntime)?;
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS)?.upkeep_timeout(UPKEEP);
    let (recorder, exporter) = match settings.metrics_listen {
        Some(address) => {
            let (recorder, exporter) =
                builder.with_http_listener(address).build().map_err(|error| match error {
                    BuildError::FailedToCreateHTTPListener(problem) => {
                        MetricsError::Listen { address, problem }
                    }
                    error => error.into(),
                })?;
            (recorder, Some(exporter))
        }
        None => (builder.build_recorder(), None),
    };
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| MetricsError::Twice)?;
    match exporter {
        Some(exporter) => {
            runtime.spawn(async move {
                if exporter.await.is_err() {
                    tracing::error!("metrics are no longer shown");
                }
            });
        }
        // With an exporter, it sees to this.
        None => {
            let handle = handle.clone();
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(UPKEEP).await;
                    handle.run_upkeep();
                }
            });
        }
    }
    Ok(Metrics(handle))
}
