//! `grpc.health.v1`: whether jobs are accepted, as `/readyz` says it. Open to all, like that.

use std::{sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};
use windlass_proto::v1::{
    dead_service_server, job_service_server, kind_service_server, limit_service_server, queue_service_server,
    quota_service_server, schedule_service_server, webhook_service_server, worker_service_server,
    workflow_service_server,
};

use super::call::Gateway;

/// The server as a whole, and its services: they are well or ill together.
pub(super) const KNOWN: [&str; 11] = [
    "",
    dead_service_server::SERVICE_NAME,
    job_service_server::SERVICE_NAME,
    kind_service_server::SERVICE_NAME,
    limit_service_server::SERVICE_NAME,
    queue_service_server::SERVICE_NAME,
    quota_service_server::SERVICE_NAME,
    schedule_service_server::SERVICE_NAME,
    webhook_service_server::SERVICE_NAME,
    worker_service_server::SERVICE_NAME,
    workflow_service_server::SERVICE_NAME,
];
/// How often it is looked at for those who watch.
const EVERY: Duration = Duration::from_secs(5);
/// How many may watch at a time, each of whom costs a look.
const MOST_WATCHING: usize = 100;

#[derive(Debug, Clone)]
pub(super) struct Health {
    gateway: Gateway,
    ending: CancellationToken,
    places: Arc<Semaphore>,
}

impl Health {
    pub(super) fn new(gateway: Gateway, ending: CancellationToken) -> Self {
        Self { gateway, ending, places: Arc::new(Semaphore::new(MOST_WATCHING)) }
    }

    async fn look(&self) -> ServingStatus {
        match !self.ending.is_cancelled() && self.gateway.is_ready().await {
            true => ServingStatus::Serving,
            false => ServingStatus::NotServing,
        }
    }

    /// How it is, once that is not `last` any more. `None` once the server ends, and that has been told.
    async fn changed(&self, last: Option<ServingStatus>) -> Option<ServingStatus> {
        loop {
            let now = self.look().await;
            if Some(now) != last {
                return Some(now);
            }
            // It may have begun to end since.
            if now == ServingStatus::NotServing && self.ending.is_cancelled() {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.ending.cancelled() => {}
            }
        }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !KNOWN.contains(&&*request.get_ref().service) {
            return Err(Status::not_found("there is no such service; leave the name out for all of them"));
        }
        Ok(Response::new(told(self.look().await)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(
                "too many watch the health of this server; check it instead",
            ));
        };
        if !KNOWN.contains(&&*request.get_ref().service) {
            // Such a call is not ended: the service could come. Here none does before the server ends.
            let unknown = stream::iter([Ok(told(ServingStatus::ServiceUnknown))]);
            let silence = stream::once(self.ending.clone().cancelled_owned()).filter_map(|()| async { None });
            let held = unknown.chain(silence).map(move |told| {
                let _place = &place;
                told
            });
            return Ok(Response::new(held.boxed()));
        }
        let changes = stream::unfold((self.clone(), None, place), |(health, last, place)| async move {
            let now = health.changed(last).await?;
            Some((Ok(told(now)), (health, Some(now), place)))
        });
        Ok(Response::new(changes.boxed()))
    }
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
