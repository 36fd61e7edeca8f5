//! Four handlers that do real work on real files, to read and to copy from: each is a plain function with a thin
//! wrapper that is the handler, so that it is tested without any worker.
//!
//! `windlass-example-worker` runs them, and so does `windlass dev`.

mod aggregate;
mod email;
mod problem;
mod report;
mod sketch;
mod thumbnails;
mod workspace;

pub use aggregate::{AggregateDataset, Aggregation, aggregate, aggregate_dataset};
pub use email::{MailError, Mailer, MailerError, Receipt, SendEmail, send_email};
pub use problem::Problem;
pub use report::{BuildReport, Report, build_report, report};
pub use thumbnails::{MakeThumbnails, Thumbnail, Thumbnails, make_thumbnails, thumbnails};
pub use workspace::Workspace;

use windlass::prelude::Worker;

/// Adds the four handlers, and what they work with, to a worker.
///
/// # Errors
/// When the variables for mail are set to what they cannot be.
pub fn register(worker: Worker, workspace: Workspace) -> Result<Worker, MailerError> {
    let mailer = Mailer::from_env(workspace.outbox())?;
    Ok(worker
        .state(mailer)
        .state(workspace)
        .handle(send_email)
        .handle_blocking(make_thumbnails)
        .handle_blocking(build_report)
        .handle_blocking(aggregate_dataset))
}
