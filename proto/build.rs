//! Generates the code from the `.proto` files, without `protoc`.

use std::{env, error::Error, fs, path::Path};

use prost::Message as _;
use prost_types::{
    FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const ROOT: &str = "../api/proto";
const FILES: [&str; 4] = [
    "windlass/v1/windlass.proto",
    "windlass/v1/dead.proto",
    "windlass/v1/fleet.proto",
    "windlass/v1/webhooks.proto",
];
const PACKAGE: &str = "windlass.v1";
/// What is written as the body of a request to the HTTP API.
const WRITTEN: [&str; 17] = [
    "ChangedWebhook",
    "DeadSelection",
    "Debounce",
    "EnqueueStreamRequest",
    "EnqueueWorkflowRequest",
    "JobFilter",
    "JobSelection",
    "NewJob",
    "NewLimit",
    "NewQuota",
    "NewSchedule",
    "NewWebhook",
    "NewWorkflowJob",
    "Parent",
    "QueueLimits",
    "Throttle",
    "Unique",
];
/// What is read from its answers.
const READ: [&str; 34] = [
    "AttemptError",
    "BulkResult",
    "Delivery",
    "EnqueueOutcome",
    "FieldError",
    "GetProgressResponse",
    "Job",
    "JobStanding",
    "KindInfo",
    "KindWorker",
    "Lane",
    "Limit",
    "ListDeliveriesResponse",
    "ListErrorsResponse",
    "ListJobsResponse",
    "ListKindsResponse",
    "ListLimitsResponse",
    "ListLogsResponse",
    "ListQueuesResponse",
    "ListSchedulesResponse",
    "ListWebhooksResponse",
    "ListWorkersResponse",
    "LogLine",
    "Problem",
    "Progress",
    "Queue",
    "Quota",
    "Schedule",
    "ScheduledJob",
    "TestWebhookResponse",
    "Webhook",
    "Worker",
    "WorkerKind",
    "Workflow",
];

/// What is not to be seen in logs: `Debug` is written by hand.
const SECRET: [&str; 1] = ["WebhookWithSecret"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let files = protox::compile(FILES, [ROOT])?;
    let out = env::var("OUT_DIR")?;
    fs::write(Path::new(&out).join("windlass.bin"), files.encode_to_vec())?;

    let mut builder = tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .skip_debug(SECRET.map(|name| format!(".{PACKAGE}.{name}")));
    let messages =
        files.file.iter().filter(|file| file.package() == PACKAGE).flat_map(|file| &file.message_type);
    for message in messages {
        let derived = match message.name() {
            name if WRITTEN.contains(&name) => "#[derive(serde::Serialize)]",
            name if READ.contains(&name) => "#[derive(serde::Deserialize)]\n#[serde(default)]",
            _ => continue,
        };
        let path = format!(".{PACKAGE}.{}", message.name());
        builder = builder.message_attribute(&path, derived);
        for field in &message.field {
            if let Some(attribute) = attribute(message.name(), field) {
                let path = format!("{path}.{}", field.name());
                builder = builder.field_attribute(path, format!("#[serde({attribute})]"));
            }
        }
    }
    builder.compile_fds(files)?;
    Ok(())
}

/// How a field is written as JSON, and read from it, where that is not as serde does it.
fn attribute(message: &str, field: &FieldDescriptorProto) -> Option<String> {
    let repeated = field.label() == Label::Repeated;
    let with = |module: &str| Some(format!("with = \"crate::json::{module}\""));
    match (message, field.name()) {
        // The API takes these as they are beside it.
        ("EnqueueStreamRequest" | "NewWorkflowJob", "job") => return Some("flatten".to_owned()),
        ("Workflow", "jobs") => return Some("deserialize_with = \"crate::json::workflow_jobs\"".to_owned()),
        ("Unique", "period") => return Some("rename = \"for\", with = \"crate::json::duration\"".to_owned()),
        ("KindInfo", "schemas") => return Some("deserialize_with = \"crate::json::raws\"".to_owned()),
        ("Webhook", "kinds" | "queues") => {
            return Some("deserialize_with = \"crate::json::list\"".to_owned());
        }
        // An empty list is a list, too.
        ("Unique", "fields")
        | ("NewWorkflowJob", "after")
        | ("JobSelection", "ids")
        | ("NewWebhook" | "ChangedWebhook", "kinds" | "queues") => {
            return Some("skip_serializing_if = \"Vec::is_empty\"".to_owned());
        }
        _ => {}
    }
    match (field.r#type(), field.type_name()) {
        (Type::Bytes, _) if field.proto3_optional() => with("optional_raw"),
        (Type::Bytes, _) => with("raw"),
        (Type::Message, ".google.protobuf.Timestamp") if repeated => with("times"),
        (Type::Message, ".google.protobuf.Timestamp") => with("time"),
        (Type::Message, ".google.protobuf.Duration") => with("duration"),
        (Type::Enum, name) if repeated => {
            let name = name.rsplit('.').next().unwrap_or(name);
            let rename =
                if (message, field.name()) == ("JobFilter", "states") { "rename = \"state\", " } else { "" };
            Some(format!(
                "{rename}serialize_with = \"crate::json::write_names::<{name}, _>\", \
                 deserialize_with = \"crate::json::read_names::<{name}, _>\", \
                 skip_serializing_if = \"Vec::is_empty\""
            ))
        }
        (Type::Enum, name) => {
            let name = name.rsplit('.').next().unwrap_or(name);
            Some(format!(
                "serialize_with = \"crate::json::write_name::<{name}, _>\", \
                 deserialize_with = \"crate::json::read_name::<{name}, _>\", \
                 skip_serializing_if = \"crate::json::is_unspecified\""
            ))
        }
        _ => None,
    }
}
