use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    DeleteQuotaRequest, GetQuotaRequest, PutQuotaRequest, Quota, quota_service_server::QuotaService,
};

use super::call::{Caller, Gateway, path_by, write};

#[tonic::async_trait]
impl QuotaService for Gateway {
    async fn get(&self, request: Request<GetQuotaRequest>) -> Result<Response<Quota>, Status> {
        let path = path(&request.get_ref().tenant)?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn put(&self, request: Request<PutQuotaRequest>) -> Result<Response<Quota>, Status> {
        let caller = Caller::of(&request);
        let PutQuotaRequest { tenant, quota } = request.into_inner();
        let body = write(&quota.unwrap_or_default())?;
        self.call(&caller, Method::PUT, &path(&tenant)?, Some(body)).await
    }

    async fn delete(&self, request: Request<DeleteQuotaRequest>) -> Result<Response<()>, Status> {
        let path = path(&request.get_ref().tenant)?;
        self.order(&Caller::of(&request), Method::DELETE, &path).await
    }
}

fn path(tenant: &str) -> Result<String, Status> {
    path_by("/v1/tenants/", "tenant", tenant, "/quota")
}
