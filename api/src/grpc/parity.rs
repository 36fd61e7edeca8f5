//! That gRPC has what HTTP has, as `openapi.json` tells it, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use axum::{
    body::Body,
    http::{Request, Uri, header},
};
use prost::{Message as _, encoding};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::Type,
};
use serde_json::Value;
use tower::ServiceExt as _;
use windlass_core::{JobId, Standing, State};

use super::*;
use crate::queue_events::StandingView;

/// Each call, and the operation of HTTP that it becomes.
const CALLS: [(&str, &str); 58] = [
    ("DeadService/DeleteMany", "POST /v1/dead/delete"),
    ("DeadService/List", "GET /v1/dead"),
    ("DeadService/RetryMany", "POST /v1/dead/retry"),
    ("JobService/Cancel", "POST /v1/jobs/{id}/cancel"),
    ("JobService/CancelMany", "POST /v1/jobs/cancel"),
    ("JobService/Delete", "DELETE /v1/jobs/{id}"),
    ("JobService/DeleteMany", "POST /v1/jobs/delete"),
    ("JobService/Enqueue", "POST /v1/jobs"),
    ("JobService/EnqueueStream", "POST /v1/jobs/batch"),
    ("JobService/Get", "GET /v1/jobs/{id}"),
    ("JobService/GetProgress", "GET /v1/jobs/{id}/progress"),
    ("JobService/GetResult", "GET /v1/jobs/{id}/result"),
    ("JobService/List", "GET /v1/jobs"),
    ("JobService/ListErrors", "GET /v1/jobs/{id}/errors"),
    ("JobService/ListLogs", "GET /v1/jobs/{id}/logs"),
    ("JobService/Retry", "POST /v1/jobs/{id}/retry"),
    ("JobService/RetryMany", "POST /v1/jobs/retry"),
    ("JobService/Wait", "GET /v1/jobs/{id}"),
    ("JobService/Watch", "GET /v1/jobs/{id}/events"),
    ("JobService/WatchMany", "GET /v1/jobs/events"),
    ("KindService/Get", "GET /v1/kinds/{kind}"),
    ("KindService/List", "GET /v1/kinds"),
    ("LimitService/Delete", "DELETE /v1/limits/{name}"),
    ("LimitService/Get", "GET /v1/limits/{name}"),
    ("LimitService/List", "GET /v1/limits"),
    ("LimitService/Put", "PUT /v1/limits/{name}"),
    ("QueueService/Drain", "POST /v1/queues/{name}/drain"),
    ("QueueService/Get", "GET /v1/queues/{name}"),
    ("QueueService/Limit", "PUT /v1/queues/{name}/limit"),
    ("QueueService/List", "GET /v1/queues"),
    ("QueueService/Pause", "POST /v1/queues/{name}/pause"),
    ("QueueService/Resume", "POST /v1/queues/{name}/resume"),
    ("QueueService/Watch", "GET /v1/queues/{name}/events"),
    ("QuotaService/Delete", "DELETE /v1/tenants/{tenant}/quota"),
    ("QuotaService/Get", "GET /v1/tenants/{tenant}/quota"),
    ("QuotaService/Put", "PUT /v1/tenants/{tenant}/quota"),
    ("ScheduleService/Delete", "DELETE /v1/schedules/{name}"),
    ("ScheduleService/Disable", "POST /v1/schedules/{name}/disable"),
    ("ScheduleService/Enable", "POST /v1/schedules/{name}/enable"),
    ("ScheduleService/Get", "GET /v1/schedules/{name}"),
    ("ScheduleService/List", "GET /v1/schedules"),
    ("ScheduleService/Put", "PUT /v1/schedules/{name}"),
    ("WebhookService/Create", "POST /v1/webhooks"),
    ("WebhookService/Delete", "DELETE /v1/webhooks/{id}"),
    ("WebhookService/Disable", "POST /v1/webhooks/{id}/disable"),
    ("WebhookService/Enable", "POST /v1/webhooks/{id}/enable"),
    ("WebhookService/Get", "GET /v1/webhooks/{id}"),
    ("WebhookService/List", "GET /v1/webhooks"),
    ("WebhookService/ListDeliveries", "GET /v1/webhooks/{id}/deliveries"),
    ("WebhookService/Put", "PUT /v1/webhooks/{id}"),
    ("WebhookService/Rotate", "POST /v1/webhooks/{id}/rotate"),
    ("WebhookService/Test", "POST /v1/webhooks/{id}/test"),
    ("WorkerService/Get", "GET /v1/workers/{id}"),
    ("WorkerService/List", "GET /v1/workers"),
    ("WorkflowService/Cancel", "POST /v1/workflows/{id}/cancel"),
    ("WorkflowService/Enqueue", "POST /v1/workflows"),
    ("WorkflowService/Get", "GET /v1/workflows/{id}"),
    ("WorkflowService/Retry", "POST /v1/workflows/{id}/retry"),
];
/// What fields have whose name is that of an id, and all other texts.
const ID: &str = "0199d5a2-7c1e-7cc3-98c4-dc0c0c07398f";
const TEXT: &str = "sample";

fn files() -> Vec<FileDescriptorProto> {
    let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
    files.into_iter().filter(|file| file.package() == "windlass.v1").collect()
}

/// All messages by name.
fn messages() -> BTreeMap<String, DescriptorProto> {
    let messages = files().into_iter().flat_map(|file| file.message_type);
    messages.map(|message| (message.name().to_owned(), message)).collect()
}

/// All calls, each with the name of its request.
fn calls() -> BTreeMap<String, String> {
    let services = files().into_iter().flat_map(|file| file.service);
    let calls = services.flat_map(|service| {
        let name = service.name().to_owned();
        service.method.into_iter().map(move |method| (format!("{name}/{}", method.name()), method))
    });
    let last = |path: &str| path.rsplit('.').next().unwrap().to_owned();
    calls.map(|(name, method)| (name, last(method.input_type()))).collect()
}

fn document() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).unwrap()
}

/// The operations that are about something, each with the parameters of its query.
fn operations() -> BTreeMap<String, BTreeSet<String>> {
    let document = document();
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let of_query = parameters.filter(|parameter| parameter["in"] == "query");
            let names = of_query.map(|parameter| parameter["name"].as_str().unwrap().to_owned());
            operations.insert(format!("{} {path}", method.to_uppercase()), names.collect());
        }
    }
    // What is left are pages, the document itself, and `grpc.health.v1`.
    operations.retain(|operation, _| operation.contains(" /v1/"));
    operations
}

#[test]
fn every_operation_has_a_call_and_every_call_an_operation() {
    let calls = calls();
    assert_eq!(CALLS.map(|(call, _)| call).as_slice(), calls.keys().collect::<Vec<_>>());
    let reached = CALLS.into_iter().map(|(_, operation)| operation.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(reached, operations().into_keys().collect());
}

#[test]
fn every_service_has_its_health() {
    let services = files().into_iter().flat_map(|file| file.service);
    let mut names =
        services.map(|service| format!("windlass.v1.{}", service.name())).collect::<BTreeSet<_>>();
    // The server as a whole.
    names.insert(String::new());
    assert_eq!(names, health::KNOWN.map(ToOwned::to_owned).into());
}

/// A message in which every field has something.
fn full(messages: &BTreeMap<String, DescriptorProto>, message: &DescriptorProto) -> Vec<u8> {
    let mut encoded = Vec::new();
    for field in &message.field {
        let tag = field.number().unsigned_abs();
        let text = |text: &str| text.as_bytes().to_vec();
        let bytes = match field.r#type() {
            Type::String if ["id", "ids"].contains(&field.name()) => text(ID),
            Type::String => text(TEXT),
            // JSON.
            Type::Bytes => text("1"),
            Type::Message => {
                let name = field.type_name().rsplit('.').next().unwrap();
                let nested = message.nested_type.iter().find(|nested| nested.name() == name);
                match nested.or_else(|| messages.get(name)) {
                    Some(message) => full(messages, message),
                    // A time or a duration.
                    None => prost_types::Duration { seconds: 1, nanos: 0 }.encode_to_vec(),
                }
            }
            _ => {
                encoding::uint64::encode(tag, &1, &mut encoded);
                continue;
            }
        };
        encoding::bytes::encode(tag, &bytes, &mut encoded);
    }
    encoded
}

#[tokio::test]
async fn calls_become_the_requests_of_their_operations() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = seen.clone();
    let http = Router::new().fallback(move |method: axum::http::Method, uri: Uri| async move {
        seeing.lock().unwrap().push((method, uri));
        axum::http::StatusCode::NOT_FOUND
    });
    let bodies = Arc::new(Semaphore::new(1 << 20));
    let router = router(http, bodies, &ApiOptions::default(), CancellationToken::new());
    let (requests, messages) = (calls(), messages());
    let mut asked = BTreeMap::<_, BTreeSet<String>>::new();
    for (call, operation) in CALLS {
        let message = full(&messages, &messages[&requests[call]]);
        let mut body = vec![0];
        body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend(message);
        let request = Request::post(format!("/windlass.v1.{call}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(Body::from(body));
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        let [(method, uri)] = &*seen else { panic!("{call}: {seen:?}, {response:?}") };
        let expected = operation.replace("{id}", ID);
        let expected =
            ["{kind}", "{name}", "{tenant}"].iter().fold(expected, |path, name| path.replace(name, TEXT));
        let path = percent_encoding::percent_decode_str(uri.path()).decode_utf8().unwrap();
        assert_eq!(format!("{method} {path}"), expected, "{call}");
        let parameters = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        asked.entry(operation).or_default().extend(parameters.map(|(name, _)| name.to_owned()));
    }
    let operations = operations();
    for (operation, parameters) in asked {
        assert_eq!(parameters, operations[operation], "{operation}");
    }
}

fn fields(message: &DescriptorProto) -> BTreeSet<String> {
    let rename = |name: &str| match (message.name(), name) {
        // A word of too many languages.
        ("Unique", "period") => "for".to_owned(),
        // It may be one text there.
        ("JobFilter", "states") => "state".to_owned(),
        _ => name.to_owned(),
    };
    message.field.iter().map(|field| rename(field.name())).collect()
}

#[test]
fn messages_have_the_fields_that_bodies_have() {
    let (messages, schemas) = (messages(), document()["components"]["schemas"].take());
    let named = |name: &str| messages.get(name).unwrap();
    for (message, schema) in [
        ("AttemptError", "AttemptError"),
        ("BulkResult", "BulkResult"),
        ("ChangedWebhook", "ChangedWebhook"),
        ("DeadSelection", "DeadSelection"),
        ("Debounce", "Debounce"),
        ("Delivery", "Delivery"),
        ("FieldError", "FieldError"),
        ("GetProgressResponse", "JobProgress"),
        ("Job", "Job"),
        ("JobFilter", "JobFilter"),
        ("JobSelection", "BulkSelection"),
        ("KindInfo", "KindInfo"),
        ("KindWorker", "KindWorker"),
        ("Lane", "Lane"),
        ("Limit", "Limit"),
        ("ListDeliveriesResponse", "DeliveryList"),
        ("ListErrorsResponse", "AttemptErrors"),
        ("ListJobsResponse", "JobList"),
        ("ListKindsResponse", "KindList"),
        ("ListLimitsResponse", "LimitList"),
        ("ListLogsResponse", "LogLines"),
        ("ListQueuesResponse", "QueueList"),
        ("ListSchedulesResponse", "ScheduleList"),
        ("ListWebhooksResponse", "WebhookList"),
        ("ListWorkersResponse", "WorkerList"),
        ("LogLine", "LogLine"),
        ("NewJob", "NewJob"),
        ("NewLimit", "NewLimit"),
        ("NewQuota", "NewQuota"),
        ("NewSchedule", "NewSchedule"),
        ("NewWebhook", "NewWebhook"),
        ("EnqueueWorkflowRequest", "NewWorkflow"),
        ("Problem", "Problem"),
        ("Progress", "Progress"),
        ("Queue", "Queue"),
        ("QueueLimits", "NewQueueLimit"),
        ("Quota", "Quota"),
        ("Schedule", "Schedule"),
        ("ScheduledJob", "ScheduledJob"),
        ("TestWebhookResponse", "WebhookTest"),
        ("Throttle", "Throttle"),
        ("Unique", "Unique"),
        ("Webhook", "Webhook"),
        ("Worker", "Worker"),
        ("WorkerKind", "WorkerKind"),
        ("Workflow", "Workflow"),
    ] {
        let properties = schemas[schema]["properties"].as_object().unwrap();
        assert_eq!(fields(named(message)), properties.keys().cloned().collect(), "{message}");
    }
    // The document has it within a text.
    let standing = Standing {
        id: JobId::new(),
        state: State::Queued,
        attempt: 0,
        run_at: None,
        cancel_requested: false,
        progress_at: None,
    };
    let told = serde_json::to_value(StandingView::from(standing)).unwrap();
    assert_eq!(fields(named("JobStanding")), told.as_object().unwrap().keys().cloned().collect());
    // These hold a message where HTTP has its fields beside theirs.
    for (message, field, held, schema) in [
        ("EnqueueStreamRequest", "job", "NewJob", "NewBatchJob"),
        ("NewWorkflowJob", "job", "NewJob", "NewWorkflowJob"),
        ("WebhookWithSecret", "webhook", "Webhook", "WebhookWithSecret"),
        ("WorkflowJob", "job", "Job", "WorkflowJob"),
    ] {
        let mut all = fields(named(message));
        assert!(all.remove(field), "{message}");
        all.extend(fields(named(held)));
        let properties = schemas[schema]["properties"].as_object().unwrap();
        assert_eq!(all, properties.keys().cloned().collect(), "{message}");
    }
}

#[test]
fn enumerations_have_the_values_that_texts_have() {
    let schemas = document()["components"]["schemas"].take();
    let enums = files().into_iter().flat_map(|file| file.enum_type).collect::<Vec<EnumDescriptorProto>>();
    for (name, prefix, texts) in [
        ("JobState", "JOB_STATE_", &schemas["State"]["enum"]),
        ("LogLevel", "LOG_LEVEL_", &schemas["LogLevel"]["enum"]),
        ("Missed", "MISSED_", &schemas["Missed"]["enum"]),
        ("Needs", "NEEDS_", &schemas["Needs"]["enum"]),
        ("OnConflict", "ON_CONFLICT_", &schemas["Unique"]["properties"]["on_conflict"]["enum"]),
        ("OnFailure", "ON_FAILURE_", &schemas["OnFailure"]["enum"]),
        ("WebhookEvent", "WEBHOOK_EVENT_", &schemas["WebhookEvent"]["enum"]),
        ("WorkflowStatus", "WORKFLOW_STATUS_", &schemas["WorkflowStatus"]["enum"]),
    ] {
        let values = &enums.iter().find(|found| found.name() == name).unwrap().value;
        assert_eq!(values[0].name(), format!("{prefix}UNSPECIFIED"));
        let values =
            values[1..].iter().map(|value| value.name().strip_prefix(prefix).unwrap().to_lowercase());
        // null is what is unspecified here.
        let texts = texts
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|text| text.as_str().map(|text| text.replace('.', "_")));
        assert_eq!(values.collect::<BTreeSet<_>>(), texts.collect(), "{name}");
    }
}
