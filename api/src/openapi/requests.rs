//! What requests have in their bodies, as the parsers read them. The parsers are written by hand, since each field is
//! judged by itself; `tests` asks them whether they know the same fields.

#![allow(dead_code, reason = "only their schemas are of use")]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;
use windlass_core::{
    JobId, JobName, Kind, LimitKey, Missed, Needs, OnFailure, OrderingKey, Priority, QueueName, State,
    Tenant, Timestamp, WorkflowName,
};

/// A duration, such as `30s`, `1h 30m` or, in ISO 8601, `PT1H30M`; at most ten years.
#[derive(JsonSchema)]
#[schemars(inline, extend("examples" = ["30s"]))]
pub(super) struct Span(#[schemars(regex(pattern = SPAN), length(max = 128))] String);

/// Both notations, and some texts that are neither.
const SPAN: &str = r"^(0|P[0-9WDTHMS.,]+|(\s*[0-9]+(\.[0-9]+)?\s*[A-Za-zµμ]+)+\s*)$";

/// How many things a page has at most.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct Count(#[schemars(range(min = 1, max = 1000))] u32);

/// Jobs by their ids.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct SomeIds(#[schemars(length(min = 1, max = 100))] Vec<JobId>);

/// ASCII characters in quotes (a string of RFC 8941), or visible ones without.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct HeaderKey(
    #[schemars(regex(pattern = r#"^([!#-~][!-~]*|"([ !#-\[\]-~]|\\["\\])+")$"#), length(min = 1, max = 255))]
    String,
);

/// A text of visible ASCII characters.
#[derive(JsonSchema)]
#[schemars(inline)]
struct IdempotencyKey(#[schemars(regex(pattern = r"^[!-~]+$"), length(min = 1, max = 255))] String);

#[derive(JsonSchema)]
#[schemars(inline)]
struct LabelText(#[schemars(regex(pattern = r"^[^\x00-\x1f\x7f-\x9f]*$"), length(max = 255))] String);

/// A job to be done.
///
/// At most one of `run_at` and `delay`, of `expires_at` and `expires_in`, and of `unique`, `debounce` and `throttle`.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewJob {
    /// What the job is. Unless `api_unknown_kinds` is `accept`, a worker must have handled it before.
    kind: Kind,
    /// What the handler gets: any JSON that fits the kind's schema, if it has one.
    payload: Value,
    /// Unless given, the queue of the kind.
    queue: Option<QueueName>,
    /// 1 (normal) unless given.
    priority: Option<Priority>,
    /// When it is due; at once unless given.
    run_at: Option<Timestamp>,
    /// In what time it is due.
    delay: Option<Span>,
    /// It is not started from then on. To come, and after it is due.
    expires_at: Option<Timestamp>,
    /// In what time it is no longer started.
    expires_in: Option<Span>,
    /// It is over by then, whatever happens. To come, and after it is due.
    deadline: Option<Timestamp>,
    /// How many attempts it gets; unless given, as many as the kind says.
    #[schemars(range(min = 1, max = 1000))]
    max_attempts: Option<u32>,
    /// How long an attempt may take.
    timeout: Option<Span>,
    /// The limits that must have room for it, each `name` or `name/key`.
    #[schemars(length(max = 4))]
    limits: Option<Vec<LimitKey>>,
    /// Jobs of one key run one at a time, in the order of their acceptance.
    ordering_key: Option<OrderingKey>,
    /// What a failure means to its successors; only with an `ordering_key`.
    on_failure: Option<OnFailure>,
    /// On whose behalf it runs.
    tenant: Option<Tenant>,
    /// The version of the payload; 1 unless given.
    #[schemars(range(min = 1, max = 32767))]
    version: Option<u16>,
    unique: Option<Unique>,
    debounce: Option<Debounce>,
    throttle: Option<Throttle>,
    /// Up to 64 names of 1 to 63 bytes, each with a text of up to 255.
    #[schemars(extend("propertyNames" = {"minLength": 1, "maxLength": 63, "pattern": r"^[^\x00-\x1f\x7f-\x9f]+$"}, "maxProperties" = 64))]
    labels: Option<BTreeMap<String, LabelText>>,
}

/// There is one such job at a time. Either `key` or `fields`.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct Unique {
    #[schemars(length(min = 1, max = 255))]
    key: Option<String>,
    /// JSON pointers into the payload, whose values are the key.
    #[schemars(length(min = 1, max = 16))]
    fields: Option<Vec<Pointer>>,
    /// For this long, and not just until the job is over.
    #[serde(rename = "for")]
    period: Option<Span>,
    /// What becomes of a second one; `existing` unless given.
    on_conflict: Option<OnConflict>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
struct Pointer(#[schemars(regex(pattern = r"^(/.*)?$"), length(max = 255))] String);

#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum OnConflict {
    Existing,
    Replace,
    ReplaceAll,
    Refuse,
}

/// The job starts once there has been none with this key for some time.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct Debounce {
    #[schemars(length(min = 1, max = 255))]
    key: String,
    delay: Span,
    /// How long after the first one it starts at the latest.
    max_wait: Option<Span>,
}

/// At most one job in each period.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct Throttle {
    #[schemars(length(min = 1, max = 255))]
    key: String,
    period: Span,
}

/// Jobs, each with an answer of its own.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBatch {
    /// What is wrong with one is its own answer, and spoils no other.
    #[schemars(length(max = 10_000))]
    jobs: Vec<NewBatchJob>,
}

/// A job, with a key of its own if wanted.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewBatchJob {
    /// Makes it safe to repeat.
    idempotency_key: Option<IdempotencyKey>,
    #[serde(flatten)]
    job: NewJob,
}

/// Jobs that wait for each other.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWorkflow {
    /// What it is called; any number may have the same name.
    name: WorkflowName,
    jobs: Vec<NewWorkflowJob>,
}

/// A job with its place in the workflow. Either `after` or `after_all`.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewWorkflowJob {
    /// Each has another name.
    name: JobName,
    /// The jobs that it waits for.
    after: Option<Vec<Parent>>,
    /// It waits for all jobs that do not do so themselves.
    after_all: Option<Needs>,
    #[serde(flatten)]
    job: NewJob,
}

/// A parent, which has to succeed unless `needs` says otherwise.
#[derive(JsonSchema)]
#[serde(untagged)]
enum Parent {
    Name(JobName),
    Edge(Edge),
}

#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
struct Edge {
    job: JobName,
    #[serde(default)]
    needs: Needs,
}

/// When, and what. Either `cron` or `every`.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSchedule {
    /// A cron expression of five fields, or six with seconds first.
    cron: Option<String>,
    /// The time zone of the expression, such as `Europe/Berlin`; UTC unless given.
    zone: Option<String>,
    /// An interval.
    every: Option<Span>,
    missed: Option<Missed>,
    /// By how much each run is put off at most, at random; up to a day.
    jitter: Option<Span>,
    /// Unless given, a new schedule is enabled, and one that is there stays as it is.
    enabled: Option<bool>,
    /// What is enqueued at each tick: without `run_at`, `expires_at`, `deadline` and `debounce`.
    job: NewJob,
}

/// Which jobs: either `filter` or `ids`.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkSelection {
    filter: Option<JobFilter>,
    /// How many jobs to change at most; only with `filter`.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next_cursor` of an answer to the same filter.
    cursor: Option<String>,
    #[schemars(length(max = 1000))]
    ids: Option<Vec<JobId>>,
}

/// What fits all that is given.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
struct JobFilter {
    queue: Option<QueueName>,
    kind: Option<Kind>,
    /// In one of these states, of which the operation must have a use for each.
    state: Option<OneOrMany>,
    /// With all of these labels.
    labels: Option<BTreeMap<String, String>>,
    /// On behalf of this tenant.
    tenant: Option<Tenant>,
    created_after: Option<Timestamp>,
    created_before: Option<Timestamp>,
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
enum OneOrMany {
    One(State),
    Many(Vec<State>),
}

/// Which dead jobs: those that fit all that is given.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadSelection {
    queue: Option<QueueName>,
    kind: Option<Kind>,
    label: Option<Label>,
    /// On behalf of this tenant.
    tenant: Option<Tenant>,
    /// Dead since then or later.
    since: Option<Timestamp>,
    /// Dead before then.
    until: Option<Timestamp>,
    /// The `next_cursor` of an earlier answer.
    cursor: Option<String>,
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
}

/// A label as `name:value`.
#[derive(JsonSchema)]
#[schemars(inline)]
pub(super) struct Label(#[schemars(regex(pattern = r"^[^:]*:"))] String);

/// What a limit allows; what is left out is not limited.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewLimit {
    /// How many jobs run at a time.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    max_running: Option<u32>,
    /// How many may start in the time of `per`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    rate: Option<u32>,
    /// One second unless given; only with `rate`. From a millisecond to a year.
    per: Option<Span>,
    /// How many may start at once after a rest; as many as `rate` unless given, and only with it.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    burst: Option<u32>,
}

/// How many unfinished jobs a tenant may have.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewQuota {
    /// 0 takes no jobs at all; jobs beyond a lower number stay.
    #[schemars(range(max = 1_000_000_000))]
    max_unfinished: u32,
}

/// What a queue allows; what is left out is not limited.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewQueueLimit {
    #[serde(flatten)]
    limit: NewLimit,
    /// Whether tenants take turns.
    fair: Option<bool>,
    /// How many jobs of a fair queue may be on their way to workers; 100 unless given. Only with `"fair": true`.
    #[schemars(range(min = 1, max = 100_000))]
    fair_window: Option<u32>,
}

/// Who is to be told that jobs are over.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhook {
    #[serde(flatten)]
    webhook: ChangedWebhook,
    /// Whose jobs it hears of: by default of everyone's. A key with a tenant makes it that tenant's.
    tenant: Option<Tenant>,
    /// Whether it hears of jobs from now on; true unless given.
    enabled: Option<bool>,
}

/// Where a webhook is, and what it hears of.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangedWebhook {
    /// `https`, to a public address, unless the settings `webhook_allow` and `webhook_allow_http` say otherwise.
    #[schemars(length(max = 2048))]
    url: String,
    /// All unless given.
    #[schemars(length(min = 1, max = 3))]
    events: Option<Vec<JobEvent>>,
    /// The kinds of jobs; all unless given.
    #[schemars(length(min = 1, max = 100))]
    kinds: Option<Vec<Kind>>,
    /// The queues of jobs; all unless given.
    #[schemars(length(min = 1, max = 100))]
    queues: Option<Vec<QueueName>>,
}

#[derive(JsonSchema)]
#[schemars(inline)]
enum JobEvent {
    #[serde(rename = "job.succeeded")]
    Succeeded,
    #[serde(rename = "job.dead")]
    Dead,
    #[serde(rename = "job.cancelled")]
    Cancelled,
}
