use axum::http::Method;
use tonic::{Request, Response, Status};
use windlass_proto::v1::{
    DeleteScheduleRequest, DisableScheduleRequest, EnableScheduleRequest, GetScheduleRequest,
    ListSchedulesRequest, ListSchedulesResponse, PutScheduleRequest, Schedule,
    schedule_service_server::ScheduleService,
};

use super::call::{Caller, Gateway, path_of, required, write};

const SCHEDULES: &str = "/v1/schedules/";

#[tonic::async_trait]
impl ScheduleService for Gateway {
    async fn list(
        &self,
        request: Request<ListSchedulesRequest>,
    ) -> Result<Response<ListSchedulesResponse>, Status> {
        self.call(&Caller::of(&request), Method::GET, "/v1/schedules", None).await
    }

    async fn get(&self, request: Request<GetScheduleRequest>) -> Result<Response<Schedule>, Status> {
        let path = path_of(SCHEDULES, &request.get_ref().name, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn put(&self, request: Request<PutScheduleRequest>) -> Result<Response<Schedule>, Status> {
        let caller = Caller::of(&request);
        let PutScheduleRequest { name, schedule } = request.into_inner();
        let path = path_of(SCHEDULES, &name, "")?;
        let body = write(&required(schedule, "schedule")?)?;
        self.call(&caller, Method::PUT, &path, Some(body)).await
    }

    async fn delete(&self, request: Request<DeleteScheduleRequest>) -> Result<Response<()>, Status> {
        let path = path_of(SCHEDULES, &request.get_ref().name, "")?;
        self.order(&Caller::of(&request), Method::DELETE, &path).await
    }

    async fn enable(&self, request: Request<EnableScheduleRequest>) -> Result<Response<Schedule>, Status> {
        let path = path_of(SCHEDULES, &request.get_ref().name, "/enable")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn disable(&self, request: Request<DisableScheduleRequest>) -> Result<Response<Schedule>, Status> {
        let path = path_of(SCHEDULES, &request.get_ref().name, "/disable")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }
}
