//! Deliveries of webhooks: jobs like any other, which send a signed request.

mod message;
mod sender;

use std::{error::Error, time::Duration};

use serde::{Deserialize, Serialize};
use windlass_core::{
    DELIVERY_ATTEMPTS, DELIVERY_DELAYS, DELIVERY_KIND, DELIVERY_QUEUE, DeliveryAttempt, DeliveryRecord, Job,
    RetryPolicy, WebhookRecord,
};

pub use self::sender::{NoSender, WebhookSender};
use self::{
    message::body,
    sender::{Message, SendError},
};
use crate::{Context, JobError, State};

/// How long an attempt may take, beyond the times of its request, in calls to the store.
const LONGEST: Duration = Duration::from_secs(90);

/// The payload, of which nothing counts: what is told stands in the store's log, under the job's id.
#[derive(Serialize, Deserialize)]
pub(crate) struct Delivery {}

impl Job for Delivery {
    const KIND: &'static str = DELIVERY_KIND;
    const QUEUE: &'static str = DELIVERY_QUEUE;
    const MAX_ATTEMPTS: u32 = DELIVERY_ATTEMPTS;
    const TIMEOUT: Option<Duration> = Some(LONGEST);
    const RETRY: RetryPolicy = RetryPolicy::custom(wait);
}

fn wait(attempt: u32, _: &(dyn Error + Send + Sync + 'static)) -> Option<Duration> {
    let failures = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    // An operator may have given it more attempts than there are delays.
    DELIVERY_DELAYS.get(failures).or(DELIVERY_DELAYS.last()).copied()
}

/// Why a delivery is not made, besides what the request came to.
#[derive(Debug, thiserror::Error)]
enum NotDelivered {
    #[error(
        "this job is not in the log of deliveries: only the store makes those, and keeps them for 30 days"
    )]
    Unknown,
    #[error("the webhook has been deleted")]
    Deleted,
    #[error("the webhook is disabled; enable it and retry this job to deliver after all")]
    Disabled,
}

/// What a delivery came to, as its job's result.
#[derive(Serialize)]
pub(crate) struct Delivered {
    status: u16,
}

/// The handler.
pub(crate) async fn deliver(
    _: Delivery,
    context: Context,
    sender: State<WebhookSender>,
) -> Result<Delivered, JobError> {
    let webhooks = context.client().store().webhooks();
    let delivery = webhooks.delivery(context.job_id()).await?;
    let delivery = delivery.ok_or_else(|| JobError::discard(NotDelivered::Unknown))?;
    let Some(webhook) = webhooks.webhook(delivery.webhook).await? else {
        return Err(JobError::discard(NotDelivered::Deleted));
    };
    if !webhook.enabled {
        let error = NotDelivered::Disabled;
        note(&context, None, Some(error.to_string())).await;
        return Err(JobError::discard(error));
    }
    match send(&context, &delivery, &webhook, &sender).await? {
        Ok(status) => {
            note(&context, Some(status), None).await;
            Ok(Delivered { status })
        }
        Err(error) => {
            let gone = matches!(error, SendError::Gone);
            if gone {
                webhooks.enable_webhook(webhook.id, false).await?;
            }
            note(&context, error.status(), Some(error.to_string())).await;
            Err(if gone || error.is_final() { JobError::discard(error) } else { error.into() })
        }
    }
}

async fn send(
    context: &Context,
    delivery: &DeliveryRecord,
    webhook: &WebhookRecord,
    sender: &WebhookSender,
) -> Result<Result<u16, SendError>, JobError> {
    let client = context.client();
    let secrets = client.webhook_secrets(webhook)?;
    let job = match delivery.job {
        Some(id) => client.get_many(&[id]).await?.pop(),
        None => None,
    };
    let body = body(delivery, job.as_ref())?;
    let id = delivery.id.to_string();
    let timestamp = chrono::Utc::now().timestamp();
    let signatures: Vec<String> =
        secrets.iter().map(|secret| secret.sign(&id, timestamp, body.as_bytes())).collect();
    let message = Message { id, timestamp, signatures: signatures.join(" "), body };
    Ok(sender.send(&webhook.url, message).await)
}

/// Notes what the attempt came to. The log is for people: without it, the job still says how it ended.
async fn note(context: &Context, status: Option<u16>, error: Option<String>) {
    let attempt = DeliveryAttempt { attempt: context.attempt(), status, error };
    let noted = context.client().store().webhooks().note_delivery(context.job_id(), &attempt).await;
    if let Err(error) = noted {
        tracing::warn!(delivery = %context.job_id(), %error, "what came of a delivery is missing in its log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_waits_longer_each_time() {
        let error = std::io::Error::other("x");
        assert_eq!(wait(1, &error), Some(Duration::from_secs(5)));
        assert_eq!(wait(2, &error), Some(Duration::from_secs(300)));
        assert_eq!(wait(DELIVERY_ATTEMPTS - 1, &error), Some(Duration::from_secs(24 * 3600)));
        assert_eq!(wait(u32::MAX, &error), Some(Duration::from_secs(24 * 3600)));
    }
}
