//! The API over gRPC. Each call becomes a request to the routes of HTTP, so that who may do what, how often, and what
//! comes of it are decided in one place.

mod call;
mod health;
mod jobs;
mod memory;
mod queues;
mod refusal;
mod schedules;
mod stream;
mod watch;
mod workflows;

use std::sync::Arc;

use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use windlass_proto::v1::{
    FILE_DESCRIPTOR_SET, job_service_server::JobServiceServer, queue_service_server::QueueServiceServer,
    schedule_service_server::ScheduleServiceServer, workflow_service_server::WorkflowServiceServer,
};

use self::{call::Gateway, health::Health};
use crate::ApiOptions;

/// The services, as routes for the same kind of server. `http` are the API's routes, and `bodies` the bytes that there are
/// for what comes to both.
pub(crate) fn router(
    http: Router,
    bodies: Arc<Semaphore>,
    options: &ApiOptions,
    ending: CancellationToken,
) -> Router {
    let gateway = Gateway::new(http, options);
    // A payload is as large in its message as in a body of JSON.
    let most = options.max_body;
    let routes = Routes::default()
        .add_service(JobServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(WorkflowServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(QueueServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(ScheduleServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(HealthServer::new(Health::new(gateway, ending)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1();
    match reflection {
        Ok(reflection) => routes.add_service(reflection),
        // What it tells is built in, so a test would have seen it.
        Err(error) => {
            tracing::error!(%error, "there is no reflection over gRPC");
            routes
        }
    }
    .into_axum_router()
    .layer(middleware::from_fn_with_state(memory::Bounds::new(bodies, most), memory::count))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
    use serde_json::Value;

    use super::*;

    fn file() -> FileDescriptorProto {
        let files = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap().file;
        files.into_iter().find(|file| file.package() == "windlass.v1").unwrap()
    }

    fn schemas() -> Value {
        let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
        document["components"]["schemas"].clone()
    }

    fn fields(message: &DescriptorProto) -> BTreeSet<String> {
        let rename = |name: &str| match (message.name(), name) {
            // A word of too many languages.
            ("Unique", "period") => "for".to_owned(),
            _ => name.to_owned(),
        };
        message.field.iter().map(|field| rename(field.name())).collect()
    }

    #[test]
    fn messages_have_the_fields_that_bodies_have() {
        let (file, schemas) = (file(), schemas());
        let named = |name: &str| file.message_type.iter().find(|message| message.name() == name).unwrap();
        for (message, schema) in [
            ("AttemptError", "AttemptError"),
            ("Debounce", "Debounce"),
            ("FieldError", "FieldError"),
            ("Job", "Job"),
            ("Lane", "Lane"),
            ("ListJobsResponse", "JobList"),
            ("ListQueuesResponse", "QueueList"),
            ("ListSchedulesResponse", "ScheduleList"),
            ("NewJob", "NewJob"),
            ("NewSchedule", "NewSchedule"),
            ("EnqueueWorkflowRequest", "NewWorkflow"),
            ("Problem", "Problem"),
            ("Progress", "Progress"),
            ("Queue", "Queue"),
            ("QueueLimits", "NewQueueLimit"),
            ("Schedule", "Schedule"),
            ("ScheduledJob", "ScheduledJob"),
            ("Throttle", "Throttle"),
            ("Unique", "Unique"),
            ("Workflow", "Workflow"),
        ] {
            let properties = schemas[schema]["properties"].as_object().unwrap();
            assert_eq!(fields(named(message)), properties.keys().cloned().collect(), "{message}");
        }
        // These hold a job where HTTP has its fields beside theirs.
        for (message, schema) in
            [("EnqueueStreamRequest", "NewBatchJob"), ("NewWorkflowJob", "NewWorkflowJob")]
        {
            let mut all = fields(named(message));
            assert!(all.remove("job"), "{message}");
            all.extend(fields(named("NewJob")));
            let properties = schemas[schema]["properties"].as_object().unwrap();
            assert_eq!(all, properties.keys().cloned().collect(), "{message}");
        }
    }

    #[test]
    fn enumerations_have_the_values_that_texts_have() {
        let (file, schemas) = (file(), schemas());
        for (name, prefix, texts) in [
            ("JobState", "JOB_STATE_", &schemas["State"]["enum"]),
            ("Missed", "MISSED_", &schemas["Missed"]["enum"]),
            ("Needs", "NEEDS_", &schemas["Needs"]["enum"]),
            ("OnConflict", "ON_CONFLICT_", &schemas["Unique"]["properties"]["on_conflict"]["enum"]),
            ("OnFailure", "ON_FAILURE_", &schemas["OnFailure"]["enum"]),
            ("WorkflowStatus", "WORKFLOW_STATUS_", &schemas["WorkflowStatus"]["enum"]),
        ] {
            let values = &file.enum_type.iter().find(|found| found.name() == name).unwrap().value;
            assert_eq!(values[0].name(), format!("{prefix}UNSPECIFIED"));
            let values =
                values[1..].iter().map(|value| value.name().strip_prefix(prefix).unwrap().to_lowercase());
            // null is what is unspecified here.
            let texts =
                texts.as_array().unwrap().iter().filter_map(|text| text.as_str().map(ToOwned::to_owned));
            assert_eq!(values.collect::<BTreeSet<_>>(), texts.collect(), "{name}");
        }
    }
}
