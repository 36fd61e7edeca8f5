use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    GetKindRequest, KindInfo, ListKindsRequest, ListKindsResponse, kind_service_server::KindService,
};

use super::call::{Caller, Gateway, path_by};

#[tonic::async_trait]
impl KindService for Gateway {
    async fn list(&self, request: Request<ListKindsRequest>) -> Result<Response<ListKindsResponse>, Status> {
        self.call(&Caller::of(&request), Method::GET, "/v1/kinds", None).await
    }

    async fn get(&self, request: Request<GetKindRequest>) -> Result<Response<KindInfo>, Status> {
        let path = path_by("/v1/kinds/", "kind", &request.get_ref().kind, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }
}
