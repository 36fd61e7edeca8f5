use std::time::Duration;

use serde_json::value::to_raw_value;
use tokio_util::sync::CancellationToken;
use windlass_client::{Client, ClientError};
use windlass_core::{Job, JobTemplate, Kind, QueueName, Schedule, ScheduleDefinition, StoreError};

use crate::WorkerError;

/// What is kept of a schedule in code, with the defaults of its payload type.
pub(crate) fn definition<J: Job>(schedule: Schedule, job: &J) -> Result<ScheduleDefinition, WorkerError> {
    let invalid = |error| WorkerError::Name { payload: std::any::type_name::<J>(), error };
    let kind: Kind = J::KIND.parse().map_err(invalid)?;
    let queue: QueueName = J::QUEUE.parse().map_err(invalid)?;
    let name = schedule.name().cloned().map_or_else(|| J::KIND.parse(), Ok).map_err(invalid)?;
    let payload = to_raw_value(job).map_err(|error| WorkerError::Client(ClientError::Payload(error)))?;
    let mut template = JobTemplate::new(kind, payload);
    template.queue = queue;
    template.max_attempts = J::MAX_ATTEMPTS.max(1);
    template.version = J::VERSION;
    template.unique = job.unique().map_err(ClientError::from)?;
    template.gating = job.gating();
    Ok(ScheduleDefinition { name, schedule, job: template })
}

/// Keeps the schedules in the store, however often that takes, unless the worker is stopped meanwhile. Once per process: an
/// old worker that only lost its lease must not take back what a newer one has said since.
pub(crate) async fn put(
    client: &Client,
    schedules: Vec<ScheduleDefinition>,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let mut failing = false;
    for schedule in schedules {
        loop {
            match client.put_schedule(&schedule, None).await {
                Ok(()) => break,
                Err(ClientError::Store(error)) if !matches!(*error, StoreError::Config { .. }) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "schedules cannot be kept; trying again");
                    }
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(500)) => {}
            }
        }
    }
    Ok(())
}
