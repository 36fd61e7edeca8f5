use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use windlass_core::{
    DeliveryRecord, ErrorRecord, Gating, JobId, JobRecord, Kind, Priority, QueueName, State, Timestamp,
    WebhookEvent, WebhookId,
};

/// The largest result that is sent, in bytes of JSON; larger ones are to be asked for.
pub(super) const LARGEST_RESULT: usize = 64 * 1024;

#[derive(Serialize)]
struct Body<'a> {
    r#type: WebhookEvent,
    timestamp: Timestamp,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Test {
        webhook: WebhookId,
    },
    /// A job of which no more is known: it has been deleted.
    Gone {
        id: JobId,
        state: Option<State>,
        finished_at: Timestamp,
    },
    Job(JobView<'a>),
}

/// A job as its poll shows it, as far as it is over.
#[derive(Serialize)]
struct JobView<'a> {
    id: JobId,
    kind: &'a Kind,
    queue: &'a QueueName,
    state: State,
    attempt: u32,
    max_attempts: u32,
    priority: Priority,
    created_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    result: Option<&'a RawValue>,
    errors: &'a [ErrorRecord],
    labels: &'a BTreeMap<String, String>,
    #[serde(flatten)]
    gating: &'a Gating,
}

/// The JSON that tells a delivery. An end that is over again, since an operator has retried the job, is told without its result.
pub(super) fn body(delivery: &DeliveryRecord, job: Option<&JobRecord>) -> Result<String, serde_json::Error> {
    let data = match (delivery.job, delivery.event.state(), job) {
        (Some(_), Some(state), Some(job)) => {
            let same = job.state == state && job.finished_at == Some(delivery.at);
            let result = job.result.as_deref().filter(|result| same && result.get().len() <= LARGEST_RESULT);
            Data::Job(JobView {
                id: job.id,
                kind: &job.kind,
                queue: &job.queue,
                state,
                attempt: job.attempt,
                max_attempts: job.max_attempts,
                priority: job.priority,
                created_at: job.created_at,
                started_at: job.started_at,
                finished_at: delivery.at,
                result,
                errors: &job.errors,
                labels: &job.labels,
                gating: &job.gating,
            })
        }
        (Some(id), state, _) => Data::Gone { id, state, finished_at: delivery.at },
        (None, ..) => Data::Test { webhook: delivery.webhook },
    };
    serde_json::to_string(&Body { r#type: delivery.event, timestamp: delivery.at, data })
}
