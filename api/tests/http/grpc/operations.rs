//! Operations on what there is.

use windlass_proto::v1::{
    CancelJobsRequest, CancelWorkflowRequest, DeadSelection, DeleteDeadRequest, DeleteJobsRequest,
    DeleteScheduleRequest, DisableScheduleRequest, DrainQueueRequest, EnableScheduleRequest,
    EnqueueWorkflowRequest, GetQueueRequest, GetScheduleRequest, GetWorkflowRequest, JobFilter, JobSelection,
    JobState, LimitQueueRequest, ListDeadRequest, ListErrorsRequest, ListJobsResponse, ListQueuesRequest,
    ListSchedulesRequest, Missed, NewSchedule, NewWorkflowJob, Parent, PauseQueueRequest, PutScheduleRequest,
    QueueLimits, ResumeQueueRequest, RetryDeadRequest, RetryJobsRequest, RetryWorkflowRequest,
    WorkflowStatus, dead_service_client::DeadServiceClient, queue_service_client::QueueServiceClient,
    schedule_service_client::ScheduleServiceClient, workflow_service_client::WorkflowServiceClient,
};

use super::*;

#[tokio::test]
async fn workflows_queues_and_schedules_are_at_hand() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let step = |name: &str, after: Vec<Parent>| NewWorkflowJob {
        name: name.into(),
        job: Some(mail("1")),
        after,
        after_all: 0,
    };
    let jobs = vec![step("a", Vec::new()), step("b", vec![Parent { job: "a".into(), needs: 0 }])];
    let mut workflows = WorkflowServiceClient::new(grpc.channel.clone());
    let made =
        workflows.enqueue(EnqueueWorkflowRequest { name: "w".into(), jobs }).await.unwrap().into_inner();
    let workflow = made.workflow.unwrap();
    assert_eq!(workflow.status(), WorkflowStatus::Running);
    let states = workflow.jobs.iter().map(|step| (&*step.name, step.job.as_ref().unwrap().state()));
    assert_eq!(states.collect::<Vec<_>>(), [("a", JobState::Queued), ("b", JobState::Waiting)]);
    let id = || workflow.id.clone();
    let page = GetWorkflowRequest { id: id(), cursor: None, limit: Some(1) };
    let page = workflows.get(page).await.unwrap().into_inner();
    assert_eq!((page.jobs.len(), page.next_cursor.is_some(), page.counts["waiting"]), (1, true, 1));
    let cancelled = workflows.cancel(CancelWorkflowRequest { id: id() }).await.unwrap().into_inner();
    assert_eq!(cancelled.status(), WorkflowStatus::Cancelled);
    let again = workflows.retry(RetryWorkflowRequest { id: id() }).await.unwrap().into_inner();
    assert_eq!(again.status(), WorkflowStatus::Running);

    let mut queues = QueueServiceClient::new(grpc.channel.clone());
    let per = Some(ProtoDuration { seconds: 90, nanos: 0 });
    let limits = QueueLimits { rate: Some(5), per, fair: true, ..QueueLimits::default() };
    let name = || "letters".to_owned();
    queues.limit(LimitQueueRequest { name: name(), limits: Some(limits) }).await.unwrap();
    queues.pause(PauseQueueRequest { name: name() }).await.unwrap();
    let queue = queues.get(GetQueueRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!((queue.rate, queue.per, queue.fair, queue.paused), (Some(5), per, true, true));
    assert!(queues.drain(DrainQueueRequest { name: name() }).await.unwrap().into_inner().draining);
    let queue = queues.resume(ResumeQueueRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!((queue.paused, queue.draining), (false, false));
    let list = queues.list(ListQueuesRequest {}).await.unwrap().into_inner().queues;
    assert_eq!(list.iter().map(|queue| &*queue.name).collect::<Vec<_>>(), ["letters"]);
    let nameless = queues.get(GetQueueRequest::default()).await.unwrap_err();
    assert_eq!((nameless.code(), reason(&nameless).1), (Code::InvalidArgument, vec!["/name".to_owned()]));

    let mut schedules = ScheduleServiceClient::new(grpc.channel.clone());
    let schedule = NewSchedule {
        every: Some(ProtoDuration { seconds: 3600, nanos: 0 }),
        missed: Missed::Once.into(),
        job: Some(mail("{}")),
        ..NewSchedule::default()
    };
    let name = || "hourly".to_owned();
    let put = PutScheduleRequest { name: name(), schedule: Some(schedule) };
    let put = schedules.put(put).await.unwrap().into_inner();
    assert_eq!((put.missed(), put.enabled, put.next_runs.len()), (Missed::Once, true, 5));
    assert_eq!(put.job.unwrap().payload, &b"{}"[..]);
    assert!(!schedules.disable(DisableScheduleRequest { name: name() }).await.unwrap().into_inner().enabled);
    assert!(schedules.enable(EnableScheduleRequest { name: name() }).await.unwrap().into_inner().enabled);
    let list = schedules.list(ListSchedulesRequest {}).await.unwrap().into_inner().schedules;
    assert_eq!(list.iter().map(|schedule| &*schedule.name).collect::<Vec<_>>(), ["hourly"]);
    schedules.delete(DeleteScheduleRequest { name: name() }).await.unwrap();
    let gone = schedules.get(GetScheduleRequest { name: name() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn jobs_are_cancelled_retried_and_deleted_by_filter_or_id() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let in_queue = async |queue: &str| {
        let job = NewJob { queue: Some(queue.into()), ..mail("1") };
        id(&grpc.jobs().enqueue(enqueue(job)).await.unwrap().into_inner().job.unwrap())
    };
    let (one, other, elsewhere) = (in_queue("a").await, in_queue("a").await, in_queue("b").await);
    let filter = |filter| Some(JobSelection { filter: Some(filter), ..JobSelection::default() });
    let of_a = JobFilter { queue: Some("a".into()), ..JobFilter::default() };
    let half = JobSelection { filter: Some(of_a.clone()), limit: Some(1), ..JobSelection::default() };
    let first = CancelJobsRequest { jobs: Some(half.clone()) };
    let first = grpc.jobs().cancel_many(first).await.unwrap().into_inner();
    assert_eq!((first.count, first.next_cursor.is_some()), (1, true));
    let rest = JobSelection { cursor: first.next_cursor, limit: None, ..half };
    let rest = grpc.jobs().cancel_many(CancelJobsRequest { jobs: Some(rest) }).await.unwrap().into_inner();
    assert_eq!((rest.count, rest.next_cursor), (1, None));
    for (job, state) in
        [(one, JobState::Cancelled), (other, JobState::Cancelled), (elsewhere, JobState::Queued)]
    {
        assert_eq!(grpc.state(job).await, state);
    }

    // Unless states are named, the dead are meant.
    let all = RetryJobsRequest { jobs: filter(JobFilter::default()) };
    assert_eq!(grpc.jobs().retry_many(all).await.unwrap().into_inner().count, 0);
    let states = vec![JobState::Cancelled.into(), JobState::Succeeded.into()];
    let cancelled = RetryJobsRequest { jobs: filter(JobFilter { states, ..of_a }) };
    assert_eq!(grpc.jobs().retry_many(cancelled).await.unwrap().into_inner().count, 2);
    assert_eq!(grpc.state(one).await, JobState::Queued);

    let dead = grpc.dead().await;
    let ids = JobSelection { ids: vec![dead.to_string(), one.to_string()], ..JobSelection::default() };
    let deleted = grpc.jobs().delete_many(DeleteJobsRequest { jobs: Some(ids) }).await.unwrap().into_inner();
    assert_eq!((deleted.count, grpc.api.jobs().await), (1, 3));

    // Nothing means nothing, and not all.
    for jobs in [None, Some(JobSelection::default())] {
        let refused = grpc.jobs().cancel_many(CancelJobsRequest { jobs }).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).1), (Code::InvalidArgument, vec!["/filter".to_owned()]));
    }
    for state in [0, 99, JobState::Queued.into()] {
        let jobs = filter(JobFilter { states: vec![state], ..JobFilter::default() });
        let refused = grpc.jobs().delete_many(DeleteJobsRequest { jobs }).await.unwrap_err();
        assert_eq!(reason(&refused).1, ["/filter/state"], "{state}");
    }
    assert_eq!(grpc.api.jobs().await, 3);
    grpc.stop().await;
}

#[tokio::test]
async fn the_dead_are_listed_retried_and_deleted() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let mut client = DeadServiceClient::new(grpc.channel.clone());
    let (oldest, middle, newest) = (grpc.dead().await, grpc.dead().await, grpc.dead().await);
    let some = |limit, cursor| Some(DeadSelection { limit: Some(limit), cursor, ..DeadSelection::default() });
    let ids = |page: &ListJobsResponse| page.jobs.iter().map(id).collect::<Vec<_>>();
    let page = client.list(ListDeadRequest { jobs: some(2, None) }).await.unwrap().into_inner();
    assert_eq!(ids(&page), [newest, middle]);
    let rest = client.list(ListDeadRequest { jobs: some(2, page.next_cursor) }).await.unwrap().into_inner();
    assert_eq!((ids(&rest), rest.next_cursor), (vec![oldest], None));

    let retried = client.retry_many(RetryDeadRequest { jobs: some(1, None) }).await.unwrap().into_inner();
    assert_eq!((retried.count, grpc.state(newest).await), (1, JobState::Queued));
    let elsewhere = DeadSelection { queue: Some("parcels".into()), ..DeadSelection::default() };
    let none = client.delete_many(DeleteDeadRequest { jobs: Some(elsewhere) }).await.unwrap().into_inner();
    assert_eq!((none.count, grpc.api.jobs().await), (0, 3));
    let all = client.delete_many(DeleteDeadRequest { jobs: None }).await.unwrap().into_inner();
    assert_eq!((all.count, grpc.api.jobs().await), (2, 1));

    let label = Some(DeadSelection { label: Some("x".into()), ..DeadSelection::default() });
    let refused = client.list(ListDeadRequest { jobs: label.clone() }).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).1), (Code::InvalidArgument, vec!["query:label".to_owned()]));
    let refused = client.retry_many(RetryDeadRequest { jobs: label }).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).1), (Code::InvalidArgument, vec!["/label".to_owned()]));
    grpc.stop().await;
}

#[tokio::test]
async fn a_tenant_operates_on_its_own_jobs_only() {
    let grpc = Grpc::guarded().await;
    let acme = grpc.bearer(Scope::Admin, Some("acme")).await;
    let globex = grpc.bearer(Scope::Admin, Some("globex")).await;
    let message = EnqueueRequest { job: Some(mail("1")) };
    let job =
        grpc.jobs().enqueue(with("authorization", &acme, message)).await.unwrap().into_inner().job.unwrap();
    grpc.api.finish(id(&job), Outcome::Dead { error: "no".into() }).await;

    let mut client = DeadServiceClient::new(grpc.channel.clone());
    let seen = async |client: &mut DeadServiceClient<_>, key: &str| {
        let listed = client.list(with("authorization", key, ListDeadRequest::default())).await.unwrap();
        listed.into_inner().jobs.len()
    };
    assert_eq!(seen(&mut client, &globex).await, 0);
    let deleted = client.delete_many(with("authorization", &globex, DeleteDeadRequest::default())).await;
    assert_eq!(deleted.unwrap().into_inner().count, 0);
    let ids = JobSelection { ids: vec![job.id.clone()], ..JobSelection::default() };
    let retry = RetryJobsRequest { jobs: Some(ids) };
    let retried = grpc.jobs().retry_many(with("authorization", &globex, retry)).await.unwrap();
    assert_eq!(retried.into_inner().count, 0);
    let errors = ListErrorsRequest { id: job.id };
    let errors = grpc.jobs().list_errors(with("authorization", &globex, errors)).await.unwrap_err();
    assert_eq!(errors.code(), Code::NotFound);
    assert_eq!(seen(&mut client, &acme).await, 1);
    grpc.stop().await;
}
