use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};
use windlass_client::{LogFormat, Settings};

/// Libraries that report as errors and news what their callers report already, or deal with. What the setting says of
/// them comes later, and counts.
const QUIET: &str = "lapin=off,sqlx=warn,librdkafka=off,rdkafka=off";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The setting `log` is no filter.
    #[error("log is not a valid filter ({0}); write a level such as info, or info,windlass_worker=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The program has set up logging already.
    #[error("logging is set up already")]
    Twice,
}

/// Writes log lines to standard error as the settings `log` and `log_format` say. For programs that have no
/// `tracing` subscriber of their own.
///
/// # Errors
/// See [`LoggingError`].
pub fn init_logging(settings: &Settings) -> Result<(), LoggingError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse(format!("{QUIET},{}", settings.log))?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => lines.finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|_| LoggingError::Twice)
}
