//! The API over gRPC. Each call becomes a request to the routes of HTTP, so that who may do what, how often, and what
//! comes of it are decided in one place.

mod call;
mod dead;
mod health;
mod jobs;
mod kinds;
mod limits;
mod memory;
#[cfg(test)]
mod parity;
mod queues;
mod quotas;
mod refusal;
mod schedules;
mod stream;
mod watch;
mod webhooks;
mod workers;
mod workflows;

use std::sync::Arc;

use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use windlass_proto::v1::{
    FILE_DESCRIPTOR_SET, dead_service_server::DeadServiceServer, job_service_server::JobServiceServer,
    kind_service_server::KindServiceServer, limit_service_server::LimitServiceServer,
    queue_service_server::QueueServiceServer, quota_service_server::QuotaServiceServer,
    schedule_service_server::ScheduleServiceServer, webhook_service_server::WebhookServiceServer,
    worker_service_server::WorkerServiceServer, workflow_service_server::WorkflowServiceServer,
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
        .add_service(DeadServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(KindServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(WorkerServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(LimitServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(QuotaServiceServer::new(gateway.clone()).max_decoding_message_size(most))
        .add_service(WebhookServiceServer::new(gateway.clone()).max_decoding_message_size(most))
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
