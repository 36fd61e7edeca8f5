//! The API over gRPC, by a client on a real socket.

use std::{io, net::SocketAddr, time::Duration};

use futures::stream;
use prost_types::Duration as ProtoDuration;
use serde_json::value::RawValue;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;
use windlass_api::{ApiOptions, Authentication};
use windlass_core::{JobId, Outcome, Scope};
use windlass_proto::v1::{
    CancelJobRequest, CancelWorkflowRequest, DeleteJobRequest, DeleteScheduleRequest, EnqueueRequest,
    EnqueueStreamRequest, EnqueueWorkflowRequest, GetJobRequest, GetQueueRequest, GetScheduleRequest, Job,
    JobState, LimitQueueRequest, ListJobsRequest, Missed, NewJob, NewSchedule, NewWorkflowJob, Parent,
    PauseQueueRequest, PutScheduleRequest, QueueLimits, RetryJobRequest, WaitJobRequest, WatchJobRequest,
    WorkflowStatus, job_service_client::JobServiceClient, queue_service_client::QueueServiceClient,
    schedule_service_client::ScheduleServiceClient, workflow_service_client::WorkflowServiceClient,
};

use crate::{
    auth::scopes,
    support::{Api, soon},
    tls::Authority,
};

struct Grpc {
    api: Api,
    channel: Channel,
    shutdown: CancellationToken,
    serving: JoinHandle<io::Result<()>>,
}

impl Grpc {
    async fn new(options: ApiOptions) -> Self {
        Self::over(options, |address| Endpoint::from_shared(format!("http://{address}")).unwrap()).await
    }

    /// With a client of this kind.
    async fn over(options: ApiOptions, endpoint: impl FnOnce(SocketAddr) -> Endpoint) -> Self {
        let api = Api::with(options.clone()).await;
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = grpc.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving =
            windlass_api::serve_with_grpc(http, grpc, api.client.clone(), options, shutdown.clone());
        let serving = tokio::spawn(serving);
        let channel = soon("a connection", endpoint(address).connect()).await.unwrap();
        Self { api, channel, shutdown, serving }
    }

    fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone())
    }

    async fn stop(self) {
        drop(self.channel);
        self.shutdown.cancel();
        soon("the end of serving", self.serving).await.unwrap().unwrap();
    }
}

fn mail(payload: &str) -> NewJob {
    NewJob { kind: "mail".into(), payload: payload.to_owned().into(), ..NewJob::default() }
}

fn enqueue(job: NewJob) -> Request<EnqueueRequest> {
    Request::new(EnqueueRequest { job: Some(job) })
}

fn with<T>(name: &'static str, value: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, value.parse().unwrap());
    request
}

fn succeeded(result: Option<&str>) -> Outcome {
    let result = result.map(|json| RawValue::from_string(json.into()).unwrap());
    Outcome::Succeeded { result, keep: None }
}

fn id(job: &Job) -> JobId {
    job.id.parse().unwrap()
}

/// The name of the problem, and what is wrong with which field.
fn reason(status: &Status) -> (String, Vec<String>) {
    let details = status.get_error_details();
    let fields =
        details.bad_request().map(|bad| bad.field_violations.iter().map(|v| v.field.clone()).collect());
    (details.error_info().map(|info| info.reason.clone()).unwrap_or_default(), fields.unwrap_or_default())
}

#[tokio::test]
async fn a_job_is_accepted_once_for_a_key_and_told_of() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let message = || EnqueueRequest {
        job: Some(NewJob {
            priority: Some(3),
            labels: [("a".into(), "b".into())].into(),
            ..mail(r#"{"to": "x"}"#)
        }),
    };
    let first = grpc.jobs().enqueue(with("idempotency-key", "order-17", message())).await.unwrap();
    assert!(first.metadata().get("x-request-id").is_some());
    let first = first.into_inner();
    assert!(!first.idempotency_replayed);
    let job = first.job.unwrap();
    assert_eq!(
        (job.state(), job.priority, &*job.queue, job.max_attempts),
        (JobState::Queued, 3, "letters", 8)
    );

    let second =
        grpc.jobs().enqueue(with("idempotency-key", "order-17", message())).await.unwrap().into_inner();
    assert!(second.idempotency_replayed);
    assert_eq!(second.job.unwrap().id, job.id);
    let other = EnqueueRequest { job: Some(mail("2")) };
    let refused = grpc.jobs().enqueue(with("idempotency-key", "order-17", other)).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused).0), (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(grpc.api.jobs().await, 1);

    // To the letter.
    let claimed = grpc.api.claim(id(&job)).await;
    assert_eq!(claimed.payload.get(), r#"{"to": "x"}"#);
    grpc.api.end(claimed, succeeded(Some("{\"n\":1}"))).await;
    let got = grpc.jobs().get(GetJobRequest { id: job.id.clone() }).await.unwrap().into_inner();
    assert_eq!((got.state(), got.result.as_deref()), (JobState::Succeeded, Some(&b"{\"n\":1}"[..])));
    let list = ListJobsRequest {
        states: vec![JobState::Succeeded.into()],
        labels: [("a".into(), "b".into())].into(),
        ..ListJobsRequest::default()
    };
    let list = grpc.jobs().list(list).await.unwrap().into_inner();
    assert_eq!(list.jobs.iter().map(|job| &job.id).collect::<Vec<_>>(), [&job.id]);
    let deleted = grpc.jobs().delete(DeleteJobRequest { id: job.id.clone() }).await;
    deleted.unwrap();
    let gone = grpc.jobs().get(GetJobRequest { id: job.id }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn a_stream_of_jobs_has_an_outcome_for_each() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    // So that the kind is known, and a key is taken.
    let first = grpc.jobs().enqueue(enqueue(mail("0"))).await.unwrap().into_inner();
    let messages = (0..5_000).map(|at| EnqueueStreamRequest {
        job: match at {
            1_000 => Some(mail("{")),
            2_000 => Some(NewJob { kind: "unheard-of".into(), ..mail("1") }),
            3_000 => None,
            _ => Some(mail(&at.to_string())),
        },
        idempotency_key: (at >= 4_998).then(|| "twice".to_owned()),
    });
    // Equal requests, as one key needs.
    let messages = messages.map(|message| match message.idempotency_key {
        Some(_) => EnqueueStreamRequest { job: Some(mail("1")), ..message },
        None => message,
    });
    let answer =
        soon("the answer", grpc.jobs().enqueue_stream(stream::iter(messages.collect::<Vec<_>>()))).await;
    let answer = answer.unwrap().into_inner();
    assert_eq!((answer.outcomes.len(), answer.refused), (5_000, 3));
    for (at, outcome) in answer.outcomes.iter().enumerate() {
        let error = outcome.error.as_ref().map(|error| &*error.r#type);
        let expected = match at {
            1_000 | 3_000 => Some("urn:windlass:problem:malformed"),
            2_000 => Some("urn:windlass:problem:unknown-kind"),
            _ => None,
        };
        assert_eq!((error, outcome.id.is_none()), (expected, expected.is_some()), "{at}: {outcome:?}");
    }
    assert_eq!(answer.outcomes[4_998].id, answer.outcomes[4_999].id);
    assert_ne!(answer.outcomes[0].id, first.job.map(|job| job.id));
    assert_eq!(grpc.api.jobs().await, 1 + 5_000 - 3 - 1);

    let one = stream::iter([EnqueueStreamRequest { job: Some(mail("1")), idempotency_key: None }]);
    let refused = grpc.jobs().enqueue_stream(with("idempotency-key", "k", one)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(reason(&refused).1, ["header:idempotency-key"]);
    let none = grpc.jobs().enqueue_stream(stream::iter(Vec::new())).await.unwrap().into_inner();
    assert!(none.outcomes.is_empty());
    grpc.stop().await;
}

#[tokio::test]
async fn messages_take_no_more_memory_than_there_is_for_bodies() {
    let options = ApiOptions { max_body: 50_000, body_memory: 100_000, ..ApiOptions::default() };
    let grpc = Grpc::new(options).await;
    let large = || mail(&format!("\"{}\"", "x".repeat(40_000)));
    grpc.jobs().enqueue(enqueue(large())).await.unwrap();

    // It keeps what it has come with, until it ends.
    let (messages, coming) = futures::channel::mpsc::unbounded();
    let mut jobs = grpc.jobs();
    let held = tokio::spawn(async move { jobs.enqueue_stream(coming).await });
    messages.unbounded_send(EnqueueStreamRequest { job: Some(large()), idempotency_key: None }).unwrap();
    let stored = async {
        while grpc.api.jobs().await < 2 {
            tokio::task::yield_now().await;
        }
    };
    soon("the job of the stream", stored).await;
    let refused = grpc.jobs().enqueue(enqueue(large())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    grpc.jobs().enqueue(enqueue(mail("1"))).await.unwrap();

    drop(messages);
    let answer = soon("the end of the stream", held).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.outcomes.len(), answer.refused), (1, 0));
    grpc.jobs().enqueue(enqueue(large())).await.unwrap();
    grpc.stop().await;
}

#[tokio::test]
async fn a_job_is_watched_until_it_is_over() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let job = grpc.api.job().await;
    let watch = WatchJobRequest { id: job.to_string() };
    let mut changes = grpc.jobs().watch(watch.clone()).await.unwrap().into_inner();
    let first = soon("the job", changes.message()).await.unwrap().unwrap();
    assert_eq!(first.state(), JobState::Queued);
    let claimed = grpc.api.claim(job).await;
    grpc.api.end(claimed, succeeded(None)).await;
    let mut last = first;
    while let Some(next) = soon("a change", changes.message()).await.unwrap() {
        last = next;
    }
    assert_eq!(last.state(), JobState::Succeeded);

    let other = grpc.api.job().await;
    let mut changes =
        grpc.jobs().watch(WatchJobRequest { id: other.to_string() }).await.unwrap().into_inner();
    soon("the job", changes.message()).await.unwrap().unwrap();
    grpc.shutdown.cancel();
    let ended = soon("the end", changes.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    drop(changes);
    grpc.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_job_or_with_the_time() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let job = grpc.api.job().await;
    let timeout = |seconds, nanos| Some(ProtoDuration { seconds, nanos });
    let wait = |timeout| WaitJobRequest { id: job.to_string(), timeout };
    let early = grpc.jobs().wait(wait(timeout(0, 1_000_000))).await.unwrap().into_inner();
    assert_eq!(early.state(), JobState::Queued);
    let past = grpc.jobs().wait(wait(timeout(-1, 0))).await.unwrap_err();
    assert_eq!((past.code(), reason(&past).1), (Code::InvalidArgument, vec!["query:wait".to_owned()]));

    let mut client = grpc.jobs();
    let waiting = client.wait(wait(None));
    let ending = grpc.api.finish(job, succeeded(None));
    let (over, ()) = tokio::join!(soon("the end of the job", waiting), ending);
    assert_eq!(over.unwrap().into_inner().state(), JobState::Succeeded);

    let again = grpc.jobs().retry(RetryJobRequest { id: job.to_string() }).await.unwrap().into_inner();
    assert_eq!(again.state(), JobState::Queued);
    let cancelled = grpc.jobs().cancel(CancelJobRequest { id: job.to_string() }).await.unwrap().into_inner();
    assert_eq!(cancelled.state(), JobState::Cancelled);
    grpc.stop().await;
}

#[tokio::test]
async fn problems_become_statuses() {
    let grpc = Grpc::new(ApiOptions { max_body: 64 * 1024, ..ApiOptions::default() }).await;
    let refused = async |job| grpc.jobs().enqueue(enqueue(job)).await.unwrap_err();
    let unknown = refused(NewJob { kind: "unheard-of".into(), ..mail("1") }).await;
    assert_eq!((unknown.code(), &*reason(&unknown).0), (Code::InvalidArgument, "UNKNOWN_KIND"));
    let wrong = refused(NewJob { priority: Some(7), version: Some(0), ..mail("1") }).await;
    let (name, mut fields) = reason(&wrong);
    fields.sort_unstable();
    assert_eq!((wrong.code(), &*name), (Code::InvalidArgument, "INVALID_FIELD"));
    assert_eq!(fields, ["/priority", "/version"]);
    assert!(wrong.get_error_details().request_info().is_some());
    assert_eq!(refused(mail("no JSON")).await.code(), Code::InvalidArgument);
    assert_eq!(refused(mail(&"1".repeat(70_000))).await.code(), Code::OutOfRange);
    let none = grpc.jobs().enqueue(EnqueueRequest::default()).await.unwrap_err();
    assert_eq!(reason(&none).1, ["/job"]);

    let get = async |id: &str| grpc.jobs().get(GetJobRequest { id: id.into() }).await.unwrap_err().code();
    assert_eq!(get("events").await, Code::InvalidArgument);
    assert_eq!(get(&JobId::new().to_string()).await, Code::NotFound);
    assert_eq!(grpc.api.jobs().await, 0);
    grpc.stop().await;
}

#[tokio::test]
async fn calls_need_the_keys_that_requests_do() {
    let options = ApiOptions {
        authentication: Authentication::Required { jwt: None },
        keys_fresh: Duration::ZERO,
        ..ApiOptions::default()
    };
    let grpc = Grpc::new(options).await;
    let none = grpc.jobs().enqueue(enqueue(mail("1"))).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    let message = || EnqueueRequest { job: Some(mail("1")) };
    let bearer = async |scope| format!("Bearer {}", grpc.api.key(scopes(&[scope]), None).await.expose());
    let reader = bearer(Scope::Read).await;
    let refused = grpc.jobs().enqueue(with("authorization", &reader, message())).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused).0), (Code::PermissionDenied, "MISSING_SCOPE"));
    let streamed = stream::iter([EnqueueStreamRequest { job: Some(mail("1")), idempotency_key: None }]);
    let refused = grpc.jobs().enqueue_stream(with("authorization", &reader, streamed)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(grpc.api.jobs().await, 0);
    let writer = bearer(Scope::Enqueue).await;
    let accepted = grpc.jobs().enqueue(with("authorization", &writer, message())).await.unwrap();
    let id = accepted.into_inner().job.unwrap().id;
    let get = with("authorization", &reader, GetJobRequest { id });
    assert_eq!(grpc.jobs().get(get).await.unwrap().into_inner().state(), JobState::Queued);
    grpc.stop().await;
}

#[tokio::test]
async fn it_speaks_tls_where_the_api_does() {
    let authority = Authority::new();
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("api.test");
    let options = ApiOptions { tls: Some(authority.tls()), ..ApiOptions::default() };
    let endpoint = |address: SocketAddr| {
        Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap()
    };
    let grpc = Grpc::over(options, endpoint).await;
    let job = grpc.jobs().enqueue(enqueue(mail("1"))).await.unwrap().into_inner().job.unwrap();
    assert_eq!(job.state(), JobState::Queued);
    grpc.stop().await;
}

#[tokio::test]
async fn a_stream_under_way_is_still_answered_when_the_server_ends() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let (sender, messages) = futures::channel::mpsc::unbounded();
    let message = || EnqueueStreamRequest { job: Some(mail("1")), idempotency_key: None };
    sender.unbounded_send(message()).unwrap();
    let mut client = grpc.jobs();
    let streaming = tokio::spawn(async move { client.enqueue_stream(messages).await });
    let stored = async {
        while grpc.api.jobs().await == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the first job", stored).await;
    grpc.shutdown.cancel();
    sender.unbounded_send(message()).unwrap();
    drop(sender);
    let answer = soon("the answer", streaming).await.unwrap().unwrap().into_inner();
    assert_eq!((answer.outcomes.len(), answer.refused), (2, 0));
    grpc.stop().await;
}

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
    let cancelled = workflows.cancel(CancelWorkflowRequest { id: workflow.id }).await.unwrap().into_inner();
    assert_eq!(cancelled.status(), WorkflowStatus::Cancelled);

    let mut queues = QueueServiceClient::new(grpc.channel.clone());
    let per = Some(ProtoDuration { seconds: 90, nanos: 0 });
    let limits = QueueLimits { rate: Some(5), per, fair: true, ..QueueLimits::default() };
    let name = || "letters".to_owned();
    queues.limit(LimitQueueRequest { name: name(), limits: Some(limits) }).await.unwrap();
    queues.pause(PauseQueueRequest { name: name() }).await.unwrap();
    let queue = queues.get(GetQueueRequest { name: name() }).await.unwrap().into_inner();
    assert_eq!((queue.rate, queue.per, queue.fair, queue.paused), (Some(5), per, true, true));
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
    schedules.delete(DeleteScheduleRequest { name: name() }).await.unwrap();
    let gone = schedules.get(GetScheduleRequest { name: name() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn health_is_told_until_the_server_ends() {
    let options =
        ApiOptions { authentication: Authentication::Required { jwt: None }, ..ApiOptions::default() };
    let grpc = Grpc::new(options).await;
    let mut health = HealthClient::new(grpc.channel.clone());
    let of = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "windlass.v1.JobService"] {
        let answer = health.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(health.check(of("other")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = health.watch(of("other")).await.unwrap().into_inner();
    let first = soon("the first word", unknown.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let mut changes = health.watch(of("")).await.unwrap().into_inner();
    let first = soon("the first word", changes.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    grpc.shutdown.cancel();
    let last = soon("the last word", changes.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(soon("the end", changes.message()).await.unwrap().is_none());
    drop(health);
    grpc.stop().await;
}

#[tokio::test]
async fn reflection_tells_of_the_services() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("windlass.v1.NewJob".into())),
        ask(MessageRequest::FileByFilename("google/protobuf/timestamp.proto".into())),
    ];
    let mut client = ServerReflectionClient::new(grpc.channel.clone());
    let mut answers = client.server_reflection_info(stream::iter(asked)).await.unwrap().into_inner();
    let mut next = async || {
        let answer = soon("an answer", answers.message()).await.unwrap().unwrap();
        answer.message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!("no list") };
    let mut names = services.service.into_iter().map(|service| service.name).collect::<Vec<_>>();
    names.sort_unstable();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "windlass.v1.JobService",
        "windlass.v1.QueueService",
        "windlass.v1.ScheduleService",
        "windlass.v1.WorkflowService",
    ];
    assert_eq!(names, expected);
    for _ in 0..2 {
        let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("no file") };
        assert_eq!(file.file_descriptor_proto.len(), 1);
    }
    drop(answers);
    drop(client);
    grpc.stop().await;
}
