//! What workers can do, who does it, and how much of it.

use windlass_proto::v1::{
    DeleteLimitRequest, DeleteQuotaRequest, GetKindRequest, GetLimitRequest, GetQuotaRequest,
    GetWorkerRequest, ListKindsRequest, ListLimitsRequest, ListWorkersRequest, NewLimit, NewQuota,
    PutLimitRequest, PutQuotaRequest, kind_service_client::KindServiceClient,
    limit_service_client::LimitServiceClient, quota_service_client::QuotaServiceClient,
    worker_service_client::WorkerServiceClient,
};

use super::*;

#[tokio::test]
async fn kinds_and_workers_are_told_of() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let schema = r#"{"type":  "object"}"#;
    grpc.api.publish("typed", 3, Some(schema)).await;
    let mut kinds = KindServiceClient::new(grpc.channel.clone());
    let list = kinds.list(ListKindsRequest {}).await.unwrap().into_inner().kinds;
    assert_eq!(list.iter().map(|kind| &*kind.kind).collect::<Vec<_>>(), ["mail", "typed"]);
    assert_eq!((&*list[0].queue, list[0].max_attempts, &*list[0].workers[0].label), ("letters", 8, "w1"));
    let get = async |kinds: &mut KindServiceClient<_>, kind: &str| {
        kinds.get(GetKindRequest { kind: kind.into() }).await.map(tonic::Response::into_inner)
    };
    let typed = get(&mut kinds, "typed").await.unwrap();
    assert_eq!((typed.version, &typed.schemas[&3][..], &typed), (3, schema.as_bytes(), &list[1]));
    assert_eq!(get(&mut kinds, "unheard-of").await.unwrap_err().code(), Code::NotFound);
    let none = get(&mut kinds, "").await.unwrap_err();
    assert_eq!((none.code(), reason(&none).1), (Code::InvalidArgument, vec!["/kind".to_owned()]));

    let mut workers = WorkerServiceClient::new(grpc.channel.clone());
    let job = grpc.api.job().await;
    grpc.api.claim(job).await;
    let list = async |workers: &mut WorkerServiceClient<_>, cursor, limit| {
        workers.list(ListWorkersRequest { cursor, limit }).await.unwrap().into_inner()
    };
    let page = list(&mut workers, None, Some(1)).await;
    assert_eq!((&*page.workers[0].label, page.workers[0].lease.map(|lease| lease.seconds)), ("w", Some(30)));
    let rest = list(&mut workers, page.next_cursor, None).await;
    let [first] = &*rest.workers else { panic!("{rest:?}") };
    assert_eq!((&*first.label, first.alive, first.running, rest.next_cursor), ("w1", true, 1, None));
    assert_eq!((&*first.kinds[0].kind, &first.jobs), ("mail", &vec![job.to_string()]));
    let got = workers.get(GetWorkerRequest { id: first.id.clone() }).await.unwrap().into_inner();
    assert_eq!(got, *first);
    let unknown = workers.get(GetWorkerRequest { id: JobId::new().to_string() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let wrong = workers.list(ListWorkersRequest { cursor: None, limit: Some(0) }).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).1), (Code::InvalidArgument, vec!["query:limit".to_owned()]));
    grpc.stop().await;
}

#[tokio::test]
async fn limits_are_set_and_removed() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let mut limits = LimitServiceClient::new(grpc.channel.clone());
    let per = Some(ProtoDuration { seconds: 60, nanos: 0 });
    let name = || "smtp".to_owned();
    let limit = NewLimit { rate: Some(100), per, ..NewLimit::default() };
    let put = PutLimitRequest { name: name(), limit: Some(limit) };
    let put = limits.put(put).await.unwrap().into_inner();
    assert_eq!(
        (&*put.name, put.max_running, put.rate, put.per, put.burst),
        ("smtp", None, Some(100), per, Some(100))
    );
    assert_eq!(limits.get(GetLimitRequest { name: name() }).await.unwrap().into_inner(), put);
    assert_eq!(limits.list(ListLimitsRequest {}).await.unwrap().into_inner().limits, [put]);
    let limit = NewLimit { max_running: Some(0), ..NewLimit::default() };
    let refused = limits.put(PutLimitRequest { name: name(), limit: Some(limit) }).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).1),
        (Code::InvalidArgument, vec!["/max_running".to_owned()])
    );
    limits.delete(DeleteLimitRequest { name: name() }).await.unwrap();
    let gone = limits.delete(DeleteLimitRequest { name: name() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    grpc.stop().await;
}

#[tokio::test]
async fn quotas_are_set_and_removed_by_those_of_the_fleet() {
    let grpc = Grpc::guarded().await;
    let (operator, acme) =
        (grpc.bearer(Scope::Admin, None).await, grpc.bearer(Scope::Admin, Some("acme")).await);
    let mut quotas = QuotaServiceClient::new(grpc.channel.clone());
    let tenant = || "acme".to_owned();
    let put = |most| PutQuotaRequest { tenant: tenant(), quota: Some(NewQuota { max_unfinished: most }) };
    let set = quotas.put(with("authorization", &operator, put(Some(1)))).await.unwrap().into_inner();
    assert_eq!((&*set.tenant, set.max_unfinished, set.unfinished), ("acme", 1, 0));
    let new = || with("authorization", &acme, EnqueueRequest { job: Some(mail("1")) });
    grpc.jobs().enqueue(new()).await.unwrap();
    let over = grpc.jobs().enqueue(new()).await.unwrap_err();
    assert_eq!((over.code(), &*reason(&over).0), (Code::ResourceExhausted, "OVER_QUOTA"));
    let get = || GetQuotaRequest { tenant: tenant() };
    let got = quotas.get(with("authorization", &operator, get())).await.unwrap().into_inner();
    assert_eq!((got.max_unfinished, got.unfinished), (1, 1));

    let refused = quotas.put(with("authorization", &operator, put(None))).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).1),
        (Code::InvalidArgument, vec!["/max_unfinished".to_owned()])
    );
    let own = quotas.put(with("authorization", &acme, put(Some(100)))).await.unwrap_err();
    assert_eq!(own.code(), Code::PermissionDenied);
    let nobody = GetQuotaRequest::default();
    let nobody = quotas.get(with("authorization", &operator, nobody)).await.unwrap_err();
    assert_eq!((nobody.code(), reason(&nobody).1), (Code::InvalidArgument, vec!["/tenant".to_owned()]));
    let delete = || with("authorization", &operator, DeleteQuotaRequest { tenant: tenant() });
    quotas.delete(delete()).await.unwrap();
    assert_eq!(quotas.delete(delete()).await.unwrap_err().code(), Code::NotFound);
    grpc.jobs().enqueue(new()).await.unwrap();
    grpc.stop().await;
}
