//! Who may call, by what means, and how the server ends.

use tonic::transport::{Certificate, ClientTlsConfig};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use windlass_proto::v1::{EnqueueRequest, EnqueueStreamRequest, GetJobRequest, JobState};

use super::*;
use crate::tls::Authority;

#[tokio::test]
async fn calls_need_the_keys_that_requests_do() {
    let grpc = Grpc::guarded().await;
    let none = grpc.jobs().enqueue(enqueue(mail("1"))).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    let message = || EnqueueRequest { job: Some(mail("1")) };
    let reader = grpc.bearer(Scope::Read, None).await;
    let refused = grpc.jobs().enqueue(with("authorization", &reader, message())).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused).0), (Code::PermissionDenied, "MISSING_SCOPE"));
    let streamed = stream::iter([EnqueueStreamRequest { job: Some(mail("1")), idempotency_key: None }]);
    let refused = grpc.jobs().enqueue_stream(with("authorization", &reader, streamed)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(grpc.api.jobs().await, 0);
    let writer = grpc.bearer(Scope::Enqueue, None).await;
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
        "windlass.v1.DeadService",
        "windlass.v1.JobService",
        "windlass.v1.KindService",
        "windlass.v1.LimitService",
        "windlass.v1.QueueService",
        "windlass.v1.QuotaService",
        "windlass.v1.ScheduleService",
        "windlass.v1.WebhookService",
        "windlass.v1.WorkerService",
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
