use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_core::WorkflowId;
use windlass_proto::v1::{
    CancelWorkflowRequest, EnqueueWorkflowRequest, EnqueueWorkflowResponse, GetWorkflowRequest,
    RetryWorkflowRequest, Workflow, workflow_service_server::WorkflowService,
};

use super::{
    call::{Caller, Gateway, Query, answer, path_by_id, write},
    jobs::is_replayed,
};

const WORKFLOWS: &str = "/v1/workflows/";

#[tonic::async_trait]
impl WorkflowService for Gateway {
    async fn enqueue(
        &self,
        request: Request<EnqueueWorkflowRequest>,
    ) -> Result<Response<EnqueueWorkflowResponse>, Status> {
        let caller = Caller::of(&request);
        let body = write(request.get_ref())?;
        let (headers, workflow) = self.ask(&caller, Method::POST, "/v1/workflows", Some(body)).await?;
        let message =
            EnqueueWorkflowResponse { workflow: Some(workflow), idempotency_replayed: is_replayed(&headers) };
        Ok(answer(&headers, message))
    }

    async fn get(&self, request: Request<GetWorkflowRequest>) -> Result<Response<Workflow>, Status> {
        let caller = Caller::of(&request);
        let message = request.get_ref();
        let mut query = Query::new(path_by_id::<WorkflowId>(WORKFLOWS, &message.id, "")?);
        query.add_page(message.cursor.as_deref(), message.limit);
        self.call(&caller, Method::GET, query.path(), None).await
    }

    async fn cancel(&self, request: Request<CancelWorkflowRequest>) -> Result<Response<Workflow>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<WorkflowId>(WORKFLOWS, &request.get_ref().id, "/cancel")?;
        self.call(&caller, Method::POST, &path, None).await
    }

    async fn retry(&self, request: Request<RetryWorkflowRequest>) -> Result<Response<Workflow>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<WorkflowId>(WORKFLOWS, &request.get_ref().id, "/retry")?;
        self.call(&caller, Method::POST, &path, None).await
    }
}
