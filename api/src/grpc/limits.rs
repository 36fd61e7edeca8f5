use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    DeleteLimitRequest, GetLimitRequest, Limit, ListLimitsRequest, ListLimitsResponse, PutLimitRequest,
    limit_service_server::LimitService,
};

use super::call::{Caller, Gateway, path_of, write};

const LIMITS: &str = "/v1/limits/";

#[tonic::async_trait]
impl LimitService for Gateway {
    async fn list(
        &self,
        request: Request<ListLimitsRequest>,
    ) -> Result<Response<ListLimitsResponse>, Status> {
        self.call(&Caller::of(&request), Method::GET, "/v1/limits", None).await
    }

    async fn get(&self, request: Request<GetLimitRequest>) -> Result<Response<Limit>, Status> {
        let path = path_of(LIMITS, &request.get_ref().name, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn put(&self, request: Request<PutLimitRequest>) -> Result<Response<Limit>, Status> {
        let caller = Caller::of(&request);
        let PutLimitRequest { name, limit } = request.into_inner();
        let path = path_of(LIMITS, &name, "")?;
        let body = write(&limit.unwrap_or_default())?;
        self.call(&caller, Method::PUT, &path, Some(body)).await
    }

    async fn delete(&self, request: Request<DeleteLimitRequest>) -> Result<Response<()>, Status> {
        let path = path_of(LIMITS, &request.get_ref().name, "")?;
        self.order(&Caller::of(&request), Method::DELETE, &path).await
    }
}
