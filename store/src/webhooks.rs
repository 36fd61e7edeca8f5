//! What both stores do with webhooks alike.

use std::collections::HashMap;

use serde_json::{json, value::to_raw_value};
use sqlx::Error;
use windlass_core::{
    DELIVERY_ATTEMPTS, DELIVERY_KIND, DELIVERY_QUEUE, DeliveryRecord, InsertOutcome, JobId, NewJob, Standing,
    State, Tenant, Timestamp, WebhookEvent, WebhookFilter, WebhookId,
};

/// Why a delivery in the log has no job.
pub(crate) const DRAINING: &str =
    "the queue windlass.webhooks is being drained, and so took no delivery; pause it to hold deliveries back";

/// A webhook that hears of jobs.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) id: WebhookId,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) filter: WebhookFilter,
}

/// A job that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) id: JobId,
    pub(crate) kind: String,
    pub(crate) queue: String,
    pub(crate) state: State,
    pub(crate) at: Timestamp,
    pub(crate) tenant: Option<Tenant>,
}

/// A delivery to be made.
#[derive(Debug)]
pub(crate) struct NewDelivery {
    pub(crate) id: JobId,
    pub(crate) webhook: WebhookId,
    /// The webhook's.
    pub(crate) tenant: Option<Tenant>,
    pub(crate) event: WebhookEvent,
    pub(crate) job: Option<JobId>,
    pub(crate) at: Timestamp,
}

impl Listener {
    /// Whether it may hear of such a job; a tenant's only hears of its own.
    pub(crate) fn hears_of(&self, kind: &str, queue: &str, tenant: Option<&Tenant>) -> bool {
        (self.tenant.is_none() || self.tenant.as_ref() == tenant) && self.filter.hears_of(kind, queue)
    }
}

/// What is to be told of these ends, and to whom.
pub(crate) fn deliveries(listeners: &[Listener], ended: &[Ended]) -> Vec<NewDelivery> {
    let mut deliveries = Vec::new();
    for job in ended {
        let Some(event) = WebhookEvent::of(job.state) else { continue };
        let hearing = listeners.iter().filter(|listener| {
            listener.filter.wants(event) && listener.hears_of(&job.kind, &job.queue, job.tenant.as_ref())
        });
        deliveries.extend(hearing.map(|listener| NewDelivery {
            id: JobId::new(),
            webhook: listener.id,
            tenant: listener.tenant.clone(),
            event,
            job: Some(job.id),
            at: job.at,
        }));
    }
    deliveries
}

/// The job that makes a delivery. Its payload is for people: what counts is the log, which only the store writes.
pub(crate) fn job(delivery: &NewDelivery) -> Result<NewJob, Error> {
    let unexpected = |error: Box<dyn std::error::Error + Send + Sync>| Error::Decode(error);
    let payload = json!({ "webhook": delivery.webhook, "event": delivery.event, "job": delivery.job });
    let payload = to_raw_value(&payload).map_err(|error| unexpected(error.into()))?;
    let kind = DELIVERY_KIND.parse().map_err(|error: windlass_core::InvalidName| unexpected(error.into()))?;
    let mut job = NewJob::new(kind, payload);
    job.id = delivery.id;
    job.queue =
        DELIVERY_QUEUE.parse().map_err(|error: windlass_core::InvalidName| unexpected(error.into()))?;
    job.max_attempts = DELIVERY_ATTEMPTS;
    job.gating.tenant = delivery.tenant.clone();
    Ok(job)
}

/// Those of these jobs that their queue did not take.
pub(crate) fn refused(jobs: &[NewJob], outcomes: &[InsertOutcome]) -> Vec<JobId> {
    let refused = jobs.iter().zip(outcomes).filter(|(_, outcome)| **outcome == InsertOutcome::QueueDraining);
    refused.map(|(job, _)| job.id).collect()
}

/// Adds where the jobs of these deliveries stand.
pub(crate) fn with_standing(deliveries: &mut [DeliveryRecord], standing: Vec<Standing>) {
    let mut standing: HashMap<JobId, Standing> = standing.into_iter().map(|job| (job.id, job)).collect();
    for delivery in deliveries {
        if let Some(job) = standing.remove(&delivery.id) {
            delivery.state = Some(job.state);
            delivery.next_at = job.run_at;
        }
    }
}
