use std::time::Duration;

use axum::http::Method;
use futures::{StreamExt as _, stream::BoxStream};
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use windlass_proto::{
    iso_8601,
    v1::{
        DrainQueueRequest, GetQueueRequest, LimitQueueRequest, ListQueuesRequest, ListQueuesResponse,
        PauseQueueRequest, Queue, ResumeQueueRequest, WatchQueueRequest, WatchQueueResponse,
        queue_service_server::QueueService,
    },
};

use super::{
    call::{Caller, Gateway, Query, answer, path_of, write},
    watch,
};

const QUEUES: &str = "/v1/queues/";

#[tonic::async_trait]
impl QueueService for Gateway {
    type WatchStream = BoxStream<'static, Result<WatchQueueResponse, Status>>;

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

    async fn watch(
        &self,
        request: Request<WatchQueueRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request).without_key()?;
        let WatchQueueRequest { name, timeout } = request.into_inner();
        let mut query = Query::new(path_of(QUEUES, &name, "/events")?);
        query.add_some("for", timeout.as_ref().map(iso_8601));
        let begun = Instant::now();
        let (headers, body) = self.events(&caller, query.path()).await?;
        // The route has taken it for a duration.
        let enough: Option<Duration> = timeout.and_then(|timeout| timeout.try_into().ok());
        // Its clock began after this one, so a stream that ends before has not come to its end.
        let is_over = move || enough.is_some_and(|enough| begun.elapsed() >= enough);
        Ok(answer(&headers, watch::follow(caller, body, move |event| watch::queue(event, is_over)).boxed()))
    }
}
