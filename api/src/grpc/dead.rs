use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    BulkResult, DeadSelection, DeleteDeadRequest, ListDeadRequest, ListJobsResponse, RetryDeadRequest,
    dead_service_server::DeadService,
};

use super::call::{Caller, Gateway, Query, write};

#[tonic::async_trait]
impl DeadService for Gateway {
    async fn list(&self, request: Request<ListDeadRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let caller = Caller::of(&request);
        let query = query(&request.into_inner().jobs.unwrap_or_default());
        self.call(&caller, Method::GET, query.path(), None).await
    }

    async fn retry_many(&self, request: Request<RetryDeadRequest>) -> Result<Response<BulkResult>, Status> {
        let caller = Caller::of(&request);
        let body = write(&request.into_inner().jobs.unwrap_or_default())?;
        self.call(&caller, Method::POST, "/v1/dead/retry", Some(body)).await
    }

    async fn delete_many(&self, request: Request<DeleteDeadRequest>) -> Result<Response<BulkResult>, Status> {
        let caller = Caller::of(&request);
        let body = write(&request.into_inner().jobs.unwrap_or_default())?;
        self.call(&caller, Method::POST, "/v1/dead/delete", Some(body)).await
    }
}

fn query(jobs: &DeadSelection) -> Query {
    let mut query = Query::new("/v1/dead");
    let texts =
        [("queue", &jobs.queue), ("kind", &jobs.kind), ("label", &jobs.label), ("tenant", &jobs.tenant)];
    for (name, value) in texts {
        query.add_some(name, value.as_ref());
    }
    for (name, time) in [("since", &jobs.since), ("until", &jobs.until)] {
        query.add_some(name, time.map(|time| time.to_string()));
    }
    query.add_page(jobs.cursor.as_deref(), jobs.limit);
    query
}
