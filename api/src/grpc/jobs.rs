use axum::http::{HeaderMap, Method};
use futures::{StreamExt as _, stream::BoxStream};
use serde_json::value::RawValue;
use tonic::{Request, Response, Status, Streaming};
use windlass_core::JobId;
use windlass_proto::{
    iso_8601,
    v1::{
        BulkResult, CancelJobRequest, CancelJobsRequest, DeleteJobRequest, DeleteJobsRequest, EnqueueRequest,
        EnqueueResponse, EnqueueStreamRequest, EnqueueStreamResponse, GetJobRequest, GetProgressRequest,
        GetProgressResponse, GetResultRequest, GetResultResponse, Job, JobState, ListErrorsRequest,
        ListErrorsResponse, ListJobsRequest, ListJobsResponse, ListLogsRequest, ListLogsResponse,
        RetryJobRequest, RetryJobsRequest, WaitJobRequest, WatchJobRequest, WatchJobsRequest,
        WatchJobsResponse, job_service_server::JobService,
    },
};

use super::{
    call::{Caller, Gateway, Query, answer, path_by_id, refused, required, write},
    stream, watch,
};
use crate::problem::{FieldError, Problem};

const JOBS: &str = "/v1/jobs/";
/// Longer than any server lets one wait.
const LONGEST_WAIT: &str = "PT24H";

#[tonic::async_trait]
impl JobService for Gateway {
    type WatchStream = BoxStream<'static, Result<Job, Status>>;
    type WatchManyStream = BoxStream<'static, Result<WatchJobsResponse, Status>>;

    async fn enqueue(&self, request: Request<EnqueueRequest>) -> Result<Response<EnqueueResponse>, Status> {
        let caller = Caller::of(&request);
        let body = write(&required(request.into_inner().job, "job")?)?;
        let (headers, job) = self.ask(&caller, Method::POST, "/v1/jobs", Some(body)).await?;
        let message = EnqueueResponse {
            job: Some(job),
            idempotency_replayed: is_replayed(&headers),
            unique_conflict: text(&headers, "unique-conflict"),
        };
        Ok(answer(&headers, message))
    }

    async fn enqueue_stream(
        &self,
        request: Request<Streaming<EnqueueStreamRequest>>,
    ) -> Result<Response<EnqueueStreamResponse>, Status> {
        let caller = Caller::of(&request).without_key()?;
        let outcomes = caller.bounded(stream::enqueue(self, &caller, request.into_inner())).await??;
        let refused = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
        let refused = u32::try_from(refused).unwrap_or(u32::MAX);
        Ok(Response::new(EnqueueStreamResponse { outcomes, refused }))
    }

    async fn get(&self, request: Request<GetJobRequest>) -> Result<Response<Job>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "")?;
        self.call(&caller, Method::GET, &path, None).await
    }

    async fn list(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let caller = Caller::of(&request);
        let query = query(request.get_ref())?;
        self.call(&caller, Method::GET, query.path(), None).await
    }

    async fn cancel(&self, request: Request<CancelJobRequest>) -> Result<Response<Job>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/cancel")?;
        self.call(&caller, Method::POST, &path, None).await
    }

    async fn retry(&self, request: Request<RetryJobRequest>) -> Result<Response<Job>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/retry")?;
        self.call(&caller, Method::POST, &path, None).await
    }

    async fn delete(&self, request: Request<DeleteJobRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request);
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "")?;
        self.order(&caller, Method::DELETE, &path).await
    }

    async fn cancel_many(&self, request: Request<CancelJobsRequest>) -> Result<Response<BulkResult>, Status> {
        let caller = Caller::of(&request);
        let body = write(&request.into_inner().jobs.unwrap_or_default())?;
        self.call(&caller, Method::POST, "/v1/jobs/cancel", Some(body)).await
    }

    async fn retry_many(&self, request: Request<RetryJobsRequest>) -> Result<Response<BulkResult>, Status> {
        let caller = Caller::of(&request);
        let body = write(&request.into_inner().jobs.unwrap_or_default())?;
        self.call(&caller, Method::POST, "/v1/jobs/retry", Some(body)).await
    }

    async fn delete_many(&self, request: Request<DeleteJobsRequest>) -> Result<Response<BulkResult>, Status> {
        let caller = Caller::of(&request);
        let body = write(&request.into_inner().jobs.unwrap_or_default())?;
        self.call(&caller, Method::POST, "/v1/jobs/delete", Some(body)).await
    }

    async fn list_errors(
        &self,
        request: Request<ListErrorsRequest>,
    ) -> Result<Response<ListErrorsResponse>, Status> {
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/errors")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn list_logs(
        &self,
        request: Request<ListLogsRequest>,
    ) -> Result<Response<ListLogsResponse>, Status> {
        let caller = Caller::of(&request);
        let message = request.get_ref();
        let mut query = Query::new(path_by_id::<JobId>(JOBS, &message.id, "/logs")?);
        query.add_page(message.cursor.as_deref(), message.limit);
        self.call(&caller, Method::GET, query.path(), None).await
    }

    async fn get_progress(
        &self,
        request: Request<GetProgressRequest>,
    ) -> Result<Response<GetProgressResponse>, Status> {
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/progress")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn get_result(
        &self,
        request: Request<GetResultRequest>,
    ) -> Result<Response<GetResultResponse>, Status> {
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/result")?;
        let (headers, result) =
            self.ask::<Box<RawValue>>(&Caller::of(&request), Method::GET, &path, None).await?;
        let result = String::from(Box::<str>::from(result)).into();
        Ok(answer(&headers, GetResultResponse { result }))
    }

    async fn watch(&self, request: Request<WatchJobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let caller = Caller::of(&request).without_key()?;
        let path = path_by_id::<JobId>(JOBS, &request.get_ref().id, "/events")?;
        let (headers, body) = self.events(&caller, &path).await?;
        Ok(answer(&headers, watch::follow(caller, body, watch::one).boxed()))
    }

    async fn watch_many(
        &self,
        request: Request<WatchJobsRequest>,
    ) -> Result<Response<Self::WatchManyStream>, Status> {
        let caller = Caller::of(&request).without_key()?;
        let mut query = Query::new("/v1/jobs/events");
        for id in &request.get_ref().ids {
            query.add("id", id);
        }
        let (headers, body) = self.events(&caller, query.path()).await?;
        Ok(answer(&headers, watch::follow(caller, body, watch::many).boxed()))
    }

    async fn wait(&self, request: Request<WaitJobRequest>) -> Result<Response<Job>, Status> {
        let caller = Caller::of(&request);
        let message = request.get_ref();
        let mut query = Query::new(path_by_id::<JobId>(JOBS, &message.id, "")?);
        query.add("wait", message.timeout.as_ref().map_or_else(|| LONGEST_WAIT.to_owned(), iso_8601));
        self.call(&caller, Method::GET, query.path(), None).await
    }
}

/// Whether the answer is what an earlier request has made.
pub(super) fn is_replayed(headers: &HeaderMap) -> bool {
    text(headers, "idempotency-replayed").is_some()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
}

/// The same question as HTTP has it.
fn query(message: &ListJobsRequest) -> Result<Query, Status> {
    let mut query = Query::new("/v1/jobs");
    for id in &message.ids {
        query.add("id", id);
    }
    let texts = [("queue", &message.queue), ("kind", &message.kind), ("tenant", &message.tenant)];
    for (name, value) in texts {
        query.add_some(name, value.as_ref());
    }
    for state in &message.states {
        match JobState::try_from(*state) {
            Ok(state) if state != JobState::Unspecified => query.add("state", state.name()),
            _ => {
                let detail = format!("{state} is no state that is known here; leave it out");
                return Err(refused(&Problem::invalid(vec![FieldError::query("state", detail)])));
            }
        }
    }
    for (name, value) in &message.labels {
        query.add("label", format!("{name}:{value}"));
    }
    for (name, time) in
        [("created_after", &message.created_after), ("created_before", &message.created_before)]
    {
        query.add_some(name, time.map(|time| time.to_string()));
    }
    query.add_page(message.cursor.as_deref(), message.limit);
    Ok(query)
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn a_list_is_asked_for_by_all_that_is_given() {
        let message = ListJobsRequest {
            queue: Some("mail".into()),
            states: vec![JobState::Dead.into(), JobState::Queued.into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            created_after: Some(Timestamp { seconds: 0, nanos: 0 }),
            limit: Some(5),
            ..ListJobsRequest::default()
        };
        let expected = "/v1/jobs?queue=mail&state=dead&state=queued&label=a%3Ab&created_after=1970%2D01%2D01T00%3A00%3A00Z&limit=5";
        assert_eq!(query(&message).unwrap().path(), expected);
        assert_eq!(query(&ListJobsRequest::default()).unwrap().path(), "/v1/jobs");
        for state in [0, 99] {
            let message = ListJobsRequest { states: vec![state], ..ListJobsRequest::default() };
            assert_eq!(query(&message).unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    }
}
