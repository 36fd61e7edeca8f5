use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_core::WorkerId;
use windlass_proto::v1::{
    GetWorkerRequest, ListWorkersRequest, ListWorkersResponse, Worker, worker_service_server::WorkerService,
};

use super::call::{Caller, Gateway, Query, path_by_id};

#[tonic::async_trait]
impl WorkerService for Gateway {
    async fn list(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        let caller = Caller::of(&request);
        let mut query = Query::new("/v1/workers");
        query.add_page(request.get_ref().cursor.as_deref(), request.get_ref().limit);
        self.call(&caller, Method::GET, query.path(), None).await
    }

    async fn get(&self, request: Request<GetWorkerRequest>) -> Result<Response<Worker>, Status> {
        let path = path_by_id::<WorkerId>("/v1/workers/", &request.get_ref().id, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }
}
