//! What each route takes and answers.

use axum::http::Method;
use serde_json::{Value, json};
use windlass_core::{
    JobId, Kind, LimitName, QueueName, ScheduleName, State, Tenant, Timestamp, WebhookId, WorkerId,
    WorkflowId,
};

use super::{
    document::Operation,
    requests::{
        BulkSelection, ChangedWebhook, Count, DeadSelection, HeaderKey, Label, NewBatch, NewJob, NewLimit,
        NewQueueLimit, NewQuota, NewSchedule, NewWebhook, NewWorkflow, SomeIds, Span,
    },
};
use crate::{
    batch::BatchView,
    bulk::BulkView,
    events::StreamEvent,
    health::ReadyView,
    job::{ErrorsView, ProgressOf},
    kinds::{KindView, KindsView},
    limits::{LimitsView, NamedLimit},
    listing::ListView,
    logs::LogsView,
    queue_events::QueueEvent,
    queues::{QueueStatus, QueuesView},
    quotas::QuotaView,
    schedules::{ScheduleView, SchedulesView},
    view::JobView,
    webhooks::{DeliveriesView, SecretView, TestView, WebhookView, WebhooksView},
    workers::{WorkerView, WorkersView},
    workflows::WorkflowView,
};

pub(super) const ABOUT: &str = "\
Accepts background jobs, and tells what became of them. An answer of 202 means that the job is committed.

Every refusal is a problem document (RFC 9457); 4xx means that nothing was stored. Another method than those listed is \
refused by 405 with `Allow`. Times are RFC 3339; durations are texts such as `30s`, `1h 30m` or `PT1H30M`. In bodies, a \
field that is `null` counts as absent, and fields that are not known are refused, as are parameters of a query. Bodies may \
be compressed (`Content-Encoding: gzip`, `zstd` or `br`), and answers are by `Accept-Encoding`. \
Instead of JSON, either may be CBOR (`application/cbor`).

Where rates are limited, every answer has the header fields `RateLimit-Policy` and `RateLimit`.";

pub(super) const TAGS: [(&str, &str); 11] = [
    ("jobs", "Enqueue jobs, poll and follow them, operate on them."),
    ("dead", "Jobs that were given up."),
    ("schedules", "Jobs at set times."),
    ("workflows", "Jobs that wait for each other."),
    ("webhooks", "Who is told that jobs are over."),
    ("kinds", "What workers handle."),
    ("workers", "Who is at work."),
    ("limits", "How many jobs may run, and how often."),
    ("queues", "What waits, and whether it may go on."),
    ("tenants", "How many unfinished jobs a tenant may have."),
    ("service", "The instance itself."),
];

const KEY: &str = "Makes the request safe to repeat: the same key and request give the same job, once.";
const TRACE: &str =
    "W3C Trace Context: the span that the attempts belong to. What cannot be read is ignored.";
const CURSOR: &str = "The `next_cursor` of the page before.";
const LIMIT: &str = "How many at most; 100 unless given.";

pub(super) fn operations() -> Vec<Operation> {
    let parts = [
        jobs(),
        bulk(),
        dead(),
        schedules(),
        workflows(),
        webhooks(),
        fleet(),
        limits(),
        queues(),
        tenants(),
        service(),
    ];
    parts.into_iter().flatten().collect()
}

fn jobs() -> Vec<Operation> {
    vec![
        get("/v1/jobs", "listJobs", "Jobs that fit all that is given, newest first; or those named by id")
            .query::<QueueName>("queue", "Of this queue.")
            .query::<Kind>("kind", "Of this kind.")
            .query::<Vec<State>>("state", "In one of these states.")
            .query::<Vec<Label>>("label", "With all of these labels, each `name:value`.")
            .query::<Tenant>("tenant", "On behalf of this tenant.")
            .query::<Timestamp>("created_after", "Made at this time or later.")
            .query::<Timestamp>("created_before", "Made before this time.")
            .query::<String>("cursor", CURSOR)
            .query::<Count>("limit", LIMIT)
            .query::<SomeIds>("id", "These jobs, as far as they are there; without any other parameter.")
            .answers::<ListView<'_>>(200, "A page, which may be short. The list ends where there is no cursor."),
        post("/v1/jobs", "enqueueJob", "Accept a job")
            .header::<HeaderKey>("Idempotency-Key", KEY)
            .header::<String>("traceparent", TRACE)
            .body::<NewJob>(json!({
                "kind": "email.send", "payload": {"to": "a@example.com", "subject": "Hello"}, "delay": "10s",
            }))
            .answers::<JobView<'_>>(202, "The job is committed.")
            .with("Location")
            .with("ETag")
            .with("Idempotency-Replayed")
            .with("Unique-Conflict")
            .refuses(404, "The job that an earlier request with this key made has been removed since.")
            .refuses(
                409,
                "Another job has the unique key, or the queue is being drained; nothing was stored. Or, with \
                 `Retry-After`, a request with the same `Idempotency-Key` is being answered.",
            ),
        post("/v1/jobs/batch", "enqueueJobs", "Accept up to 10,000 jobs, with an answer for each")
            .header::<HeaderKey>(
                "Idempotency-Key",
                "For those jobs that have no `idempotency_key`, by their places in the list.",
            )
            .header::<String>("traceparent", TRACE)
            .body::<NewBatch>(json!({
                "jobs": [{"kind": "email.send", "payload": {"to": "a@example.com"}, "idempotency_key": "order-17"}],
            }))
            .answers::<BatchView>(200, "What became of each, in the order of the request.")
            .refuses(409, "A request with the same `Idempotency-Key` is being answered."),
        get("/v1/jobs/events", "followJobs", "Up to 100 jobs as an event stream")
            .query::<SomeIds>("id", "The jobs, at least one.")
            .required()
            .answers_as::<StreamEvent>(200, STREAM, "text/event-stream")
            .with("Cache-Control")
            .refuses(404, "One of the jobs is not there."),
        job(get("/v1/jobs/{id}", "getJob", "The job as it is now, or once it has changed"))
            .query::<Span>("wait", "Answer once the job is over, or with `If-None-Match` once it has changed.")
            .header::<String>("Prefer", "`wait=30`: as the parameter, in seconds (RFC 7240).")
            .header::<String>("If-None-Match", "The `ETag` of an earlier answer.")
            .answers::<JobView<'_>>(200, "The job.")
            .with("ETag")
            .with("Cache-Control")
            .with("Retry-After")
            .with("Preference-Applied")
            .answers_nothing(304, "It is as `If-None-Match` says.")
            .with("ETag")
            .with("Cache-Control")
            .with("Retry-After")
            .with("Preference-Applied"),
        job(delete("/v1/jobs/{id}", "deleteJob", "Remove a job that is over"))
            .answers_nothing(204, "It is no longer there.")
            .refuses(409, "It is not over."),
        job(get("/v1/jobs/{id}/events", "followJob", "The job as an event stream"))
            .header::<String>("Last-Event-ID", "The last event that was seen, as `EventSource` sends it.")
            .answers_as::<StreamEvent>(200, STREAM, "text/event-stream")
            .with("Cache-Control")
            .answers_nothing(204, "It is over, and that was the last event seen."),
        job(get("/v1/jobs/{id}/result", "getResult", "What the job's handler returned, as it is"))
            .answers::<Value>(200, "Any JSON.")
            .with("Cache-Control")
            .refuses(409, "The job is not over."),
        job(get("/v1/jobs/{id}/errors", "listErrors", "What went wrong, oldest first"))
            .answers::<ErrorsView<'_>>(200, "The errors of its attempts.")
            .with("Cache-Control"),
        job(get("/v1/jobs/{id}/progress", "getProgress", "How far the job is"))
            .answers::<ProgressOf<'_>>(200, "As its newest attempt that has said so sees it.")
            .with("Cache-Control"),
        job(get("/v1/jobs/{id}/logs", "listLogs", "What the job's handler has logged"))
            .query::<String>("cursor", "The `next_cursor` of the page before, also at the end: more may come.")
            .query::<Count>("limit", LIMIT)
            .answers::<LogsView<'_>>(200, "A page of lines.")
            .with("Cache-Control"),
        job(post("/v1/jobs/{id}/cancel", "cancelJob", "Call the job off"))
            .answers::<JobView<'_>>(200, "It is cancelled.")
            .with("ETag")
            .answers::<JobView<'_>>(202, "It runs, and its handler is told to stop.")
            .with("ETag")
            .refuses(409, "It is over."),
        job(post("/v1/jobs/{id}/retry", "retryJob", "Run the job again, once it is over"))
            .answers::<JobView<'_>>(202, "It has all its attempts again.")
            .with("ETag")
            .refuses(409, "It is not over."),
    ]
}

const STREAM: &str = "\
Server-Sent Events: `job` with the job as polls show it, whenever it changes; `removed` or `unavailable` with its `id` if \
it can no longer be followed; `end` once all are over.";

const QUEUE_STREAM: &str = "\
Server-Sent Events: `ready` once changes are told, `job` with where a job stands when it is new or that changes, `lagged` with how \
many were missed by who did not read in time. Looked at once a second, its newest jobs and those that run.";

fn job(operation: Operation) -> Operation {
    operation
        .at::<JobId>("id", "The job's id.")
        .refuses(404, "There is no such job, or nothing of this kind of it.")
}

fn bulk() -> Vec<Operation> {
    let example = || json!({"filter": {"queue": "default", "created_before": "2030-01-31T12:00:00Z"}});
    let many = |operation: Operation| {
        operation
            .body::<BulkSelection>(example())
            .answers::<BulkView>(200, "How many; repeat with the cursor until it is null.")
            .with("Cache-Control")
    };
    vec![
        many(post("/v1/jobs/cancel", "cancelJobs", "Call off all jobs that a filter means, or those named")),
        many(post("/v1/jobs/retry", "retryJobs", "Run all jobs again that a filter means, or those named")),
        many(post("/v1/jobs/delete", "deleteJobs", "Remove all jobs that a filter means, or those named")),
    ]
}

fn dead() -> Vec<Operation> {
    let many = |operation: Operation| {
        operation
            .body::<DeadSelection>(json!({"kind": "email.send"}))
            .answers::<BulkView>(200, "How many; repeat with the cursor until it is null.")
            .with("Cache-Control")
    };
    vec![
        get("/v1/dead", "listDead", "The dead jobs that fit all that is given, newest first")
            .query::<QueueName>("queue", "Of this queue.")
            .query::<Kind>("kind", "Of this kind.")
            .query::<Label>("label", "With this label, `name:value`.")
            .query::<Tenant>("tenant", "On behalf of this tenant.")
            .query::<Timestamp>("since", "Dead since then or later.")
            .query::<Timestamp>("until", "Dead before then.")
            .query::<String>("cursor", CURSOR)
            .query::<Count>("limit", LIMIT)
            .answers::<ListView<'_>>(
                200,
                "A page, which may be short. The list ends where there is no cursor.",
            )
            .with("Cache-Control"),
        many(post("/v1/dead/retry", "retryDead", "Run all dead jobs again that the body means")),
        many(post("/v1/dead/delete", "deleteDead", "Remove all dead jobs that the body means")),
    ]
}

fn schedules() -> Vec<Operation> {
    let one = |operation: Operation| operation.at::<ScheduleName>("name", "The schedule's name.");
    let known = |operation| one(operation).refuses(404, "There is no such schedule.");
    vec![
        get("/v1/schedules", "listSchedules", "The schedules, with their next runs")
            .answers::<SchedulesView<'_>>(200, "All of them."),
        known(get("/v1/schedules/{name}", "getSchedule", "A schedule, with its next runs"))
            .answers::<ScheduleView<'_>>(200, "The schedule."),
        known(put("/v1/schedules/{name}", "putSchedule", "Make a schedule, or replace it as a whole"))
            .body::<NewSchedule>(json!({
                "cron": "0 30 2 * * *", "zone": "Europe/Berlin",
                "job": {"kind": "email.send", "payload": {"to": "a@example.com", "subject": "Good night"}},
            }))
            .answers::<ScheduleView<'_>>(200, "The schedule as it is now.")
            .refuses(404, "It was removed in this very moment."),
        known(delete("/v1/schedules/{name}", "deleteSchedule", "Remove a schedule"))
            .answers_nothing(204, "It is no longer there."),
        known(post("/v1/schedules/{name}/enable", "enableSchedule", "Let a schedule fire"))
            .answers::<ScheduleView<'_>>(200, "The schedule as it is now."),
        known(post("/v1/schedules/{name}/disable", "disableSchedule", "Keep a schedule from firing"))
            .answers::<ScheduleView<'_>>(200, "The schedule as it is now."),
    ]
}

fn workflows() -> Vec<Operation> {
    let known = |operation: Operation| {
        operation.at::<WorkflowId>("id", "The workflow's id.").refuses(404, "There is no such workflow.")
    };
    vec![
        post("/v1/workflows", "enqueueWorkflow", "Accept jobs that wait for each other, all or none")
            .header::<HeaderKey>("Idempotency-Key", KEY)
            .header::<String>("traceparent", TRACE)
            .body::<NewWorkflow>(json!({"name": "nightly", "jobs": [
                {"name": "north", "kind": "email.send", "payload": {"to": "n@example.com", "subject": "North"}},
                {"name": "south", "kind": "email.send", "payload": {"to": "s@example.com", "subject": "South"}},
                {
                    "name": "both", "kind": "email.send", "payload": {"to": "a@example.com", "subject": "Both"},
                    "after": ["north", {"job": "south", "needs": "finished"}],
                },
            ]}))
            .answers::<WorkflowView<'_>>(202, "The workflow is committed.")
            .with("Location")
            .with("Idempotency-Replayed")
            .refuses(404, "The workflow that an earlier request with this key made has been removed since.")
            .refuses(
                409,
                "A queue is being drained; nothing was stored. Or, with `Retry-After`, a request with the same \
                 `Idempotency-Key` is being answered.",
            ),
        known(get("/v1/workflows/{id}", "getWorkflow", "Where a workflow stands, with its jobs page by page"))
            .query::<JobId>("cursor", CURSOR)
            .query::<Count>("limit", "How many jobs at most; 100 unless given.")
            .answers::<WorkflowView<'_>>(200, "The workflow."),
        known(post("/v1/workflows/{id}/cancel", "cancelWorkflow", "Call off all that is not over"))
            .answers::<WorkflowView<'_>>(202, "The workflow as it is now."),
        known(post("/v1/workflows/{id}/retry", "retryWorkflow", "Run what failed again, and what waits for it"))
            .answers::<WorkflowView<'_>>(202, "The workflow as it is now."),
    ]
}

fn webhooks() -> Vec<Operation> {
    let known = |operation: Operation| {
        operation.at::<WebhookId>("id", "The webhook's id.").refuses(404, "There is no such webhook.")
    };
    let now = "The webhook as it is now.";
    vec![
        get("/v1/webhooks", "listWebhooks", "Who is told that jobs are over")
            .answers::<WebhooksView<'_>>(200, "All of them."),
        post("/v1/webhooks", "createWebhook", "Have a URL told that jobs are over")
            .body::<NewWebhook>(json!({"url": "https://example.com/hook", "events": ["job.dead"]}))
            .answers::<SecretView<'_>>(201, "The webhook, with its secret, which is shown this once.")
            .with("Location")
            .with("Cache-Control")
            .refuses(409, "There are too many."),
        known(get("/v1/webhooks/{id}", "getWebhook", "A webhook")).answers::<WebhookView<'_>>(200, now),
        known(put("/v1/webhooks/{id}", "putWebhook", "Change where a webhook is, and what it hears of"))
            .body::<ChangedWebhook>(json!({"url": "https://example.com/hook", "kinds": ["email.send"]}))
            .answers::<WebhookView<'_>>(200, now),
        known(delete("/v1/webhooks/{id}", "deleteWebhook", "Remove a webhook"))
            .answers_nothing(204, "It is no longer there."),
        known(post("/v1/webhooks/{id}/enable", "enableWebhook", "Let a webhook hear of jobs"))
            .answers::<WebhookView<'_>>(200, now),
        known(post("/v1/webhooks/{id}/disable", "disableWebhook", "Keep a webhook from hearing of jobs"))
            .answers::<WebhookView<'_>>(200, now),
        known(post("/v1/webhooks/{id}/rotate", "rotateWebhook", "Give a webhook another secret"))
            .query::<Span>(
                "grace",
                "How long the old one signs as well; a day unless given, at most 30 days.",
            )
            .answers::<SecretView<'_>>(200, "The webhook, with its new secret, which is shown this once.")
            .with("Cache-Control"),
        known(post("/v1/webhooks/{id}/test", "testWebhook", "Send a webhook a test"))
            .answers::<TestView>(202, "It is under way; the log shows what comes of it.")
            .with("Cache-Control"),
        known(get(
            "/v1/webhooks/{id}/deliveries",
            "listDeliveries",
            "What a webhook has been told, newest first",
        ))
        .query::<JobId>("cursor", CURSOR)
        .query::<Count>("limit", LIMIT)
        .answers::<DeliveriesView<'_>>(200, "A page. The list ends where there is no cursor.")
        .with("Cache-Control"),
    ]
}

fn fleet() -> Vec<Operation> {
    vec![
        get("/v1/kinds", "listKinds", "What workers handle, with the JSON Schemas of the payloads")
            .answers::<KindsView<'_>>(200, "All kinds that a worker has ever handled.")
            .with("Cache-Control"),
        get("/v1/kinds/{kind}", "getKind", "A kind, with the JSON Schemas of its payload")
            .at::<Kind>("kind", "The kind's name.")
            .answers::<KindView<'_>>(200, "The kind.")
            .with("Cache-Control")
            .refuses(404, "No worker has ever handled it."),
        get("/v1/workers", "listWorkers", "The workers, newest first, and what they run")
            .query::<WorkerId>("cursor", CURSOR)
            .query::<Count>("limit", LIMIT)
            .answers::<WorkersView<'_>>(200, "A page. The list ends where there is no cursor.")
            .with("Cache-Control"),
        get("/v1/workers/{id}", "getWorker", "A worker, and all that it runs")
            .at::<WorkerId>("id", "The worker's id.")
            .answers::<WorkerView<'_>>(200, "The worker.")
            .with("Cache-Control")
            .refuses(404, "There is no such worker, or no longer."),
    ]
}

fn limits() -> Vec<Operation> {
    let one = |operation: Operation| operation.at::<LimitName>("name", "The limit's name.");
    vec![
        get("/v1/limits", "listLimits", "The limits that jobs may name")
            .answers::<LimitsView>(200, "All of them."),
        one(get("/v1/limits/{name}", "getLimit", "A limit"))
            .answers::<NamedLimit>(200, "The limit.")
            .refuses(404, "There is no such limit."),
        one(put("/v1/limits/{name}", "putLimit", "Define a limit, or replace it as a whole"))
            .body::<NewLimit>(json!({"max_running": 5, "rate": 100, "per": "1m", "burst": 20}))
            .answers::<NamedLimit>(200, "The limit as it is now."),
        one(delete("/v1/limits/{name}", "deleteLimit", "Remove a limit"))
            .answers_nothing(204, "It is no longer there.")
            .refuses(404, "There is no such limit."),
    ]
}

fn tenants() -> Vec<Operation> {
    let one = |operation: Operation| {
        operation.at::<Tenant>("tenant", "The tenant's name.").refuses(404, "It has no quota.")
    };
    let path = "/v1/tenants/{tenant}/quota";
    vec![
        one(get(path, "getQuota", "How many unfinished jobs a tenant may have, and has"))
            .answers::<QuotaView>(200, "The quota."),
        one(put(path, "putQuota", "Limit how many unfinished jobs a tenant may have"))
            .body::<NewQuota>(json!({"max_unfinished": 10_000}))
            .answers::<QuotaView>(200, "The quota as it is now.")
            .refuses(404, "It was removed in this very moment."),
        one(delete(path, "deleteQuota", "Let a tenant have any number of unfinished jobs"))
            .answers_nothing(204, "It is no longer there."),
    ]
}

fn queues() -> Vec<Operation> {
    let one = |operation: Operation| {
        operation
            .at::<QueueName>("name", "The queue's name.")
            .answers::<QueueStatus>(200, "The queue as it is now.")
    };
    vec![
        get("/v1/queues", "listQueues", "The queues: what waits in them, what has been said of them")
            .answers::<QueuesView>(200, "Those that are used, or that something has been said of."),
        one(get("/v1/queues/{name}", "getQueue", "A queue. Any name is one")),
        get("/v1/queues/{name}/events", "followQueue", "What happens to a queue's jobs, as an event stream")
            .at::<QueueName>("name", "The queue's name.")
            .query::<Span>("for", "Until the stream ends; unless given, it does not.")
            .answers_as::<QueueEvent>(200, QUEUE_STREAM, "text/event-stream")
            .with("Cache-Control"),
        one(put("/v1/queues/{name}/limit", "limitQueue", "Limit a queue as a whole, or share it fairly"))
            .body::<NewQueueLimit>(json!({"max_running": 50, "fair": true})),
        one(post("/v1/queues/{name}/pause", "pauseQueue", "Start none of its jobs")),
        one(post("/v1/queues/{name}/resume", "resumeQueue", "End a pause or a drain")),
        one(post(
            "/v1/queues/{name}/drain",
            "drainQueue",
            "Take no new jobs, and finish those that are there",
        )),
    ]
}

fn service() -> Vec<Operation> {
    vec![
        get("/healthz", "isAlive", "Whether the process lives").answers_nothing(204, "It does."),
        get("/readyz", "isReady", "Whether jobs are accepted")
            .answers::<ReadyView>(200, "They are.")
            .refuses(503, "The store does not answer, or its schema does not fit.")
            .with("Retry-After"),
        get("/metrics", "getMetrics", "What is counted and timed")
            .answers_as::<String>(200, "Prometheus' text format.", "text/plain")
            .refuses(404, "The program does not show its metrics here."),
        get("/openapi.json", "getDocument", "This document")
            .answers::<Value>(200, "OpenAPI 3.1.")
            .with("Cache-Control"),
        get("/docs", "getPage", "This document as a page to try it on")
            .answers_as::<String>(200, "A page.", "text/html")
            .with("Cache-Control"),
    ]
}

fn get(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::GET, path, id, summary)
}

fn post(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::POST, path, id, summary)
}

fn put(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::PUT, path, id, summary)
}

fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation::new(Method::DELETE, path, id, summary)
}
