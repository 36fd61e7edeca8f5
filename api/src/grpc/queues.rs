use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    DrainQueueRequest, GetQueueRequest, LimitQueueRequest, ListQueuesRequest, ListQueuesResponse,
    PauseQueueRequest, Queue, ResumeQueueRequest, queue_service_server::QueueService,
};

use super::call::{Caller, Gateway, path_of, write};

const QUEUES: &str = "/v1/queues/";

#[tonic::async_trait]
impl QueueService for Gateway {
    async fn list(
        &self,
        request: Request<ListQueuesRequest>,
    ) -> Result<Response<ListQueuesResponse>, Status> {
        self.call(&Caller::of(&request), Method::GET, "/v1/queues", None).await
    }

    async fn get(&self, request: Request<GetQueueRequest>) -> Result<Response<Queue>, Status> {
        let path = path_of(QUEUES, &request.get_ref().name, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn limit(&self, request: Request<LimitQueueRequest>) -> Result<Response<Queue>, Status> {
        let caller = Caller::of(&request);
        let LimitQueueRequest { name, limits } = request.into_inner();
        let path = path_of(QUEUES, &name, "/limit")?;
        // Without any, nothing is limited.
        let body = write(&limits.unwrap_or_default())?;
        self.call(&caller, Method::PUT, &path, Some(body)).await
    }

    async fn pause(&self, request: Request<PauseQueueRequest>) -> Result<Response<Queue>, Status> {
        let path = path_of(QUEUES, &request.get_ref().name, "/pause")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn resume(&self, request: Request<ResumeQueueRequest>) -> Result<Response<Queue>, Status> {
        let path = path_of(QUEUES, &request.get_ref().name, "/resume")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn drain(&self, request: Request<DrainQueueRequest>) -> Result<Response<Queue>, Status> {
        let path = path_of(QUEUES, &request.get_ref().name, "/drain")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }
}
