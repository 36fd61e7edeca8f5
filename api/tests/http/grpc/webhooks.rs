//! Webhooks, and what they were sent.

use windlass_client::WebhookSecret;
use windlass_core::Store as _;
use windlass_proto::v1::{
    ChangedWebhook, CreateWebhookRequest, DeleteWebhookRequest, DisableWebhookRequest, EnableWebhookRequest,
    GetWebhookRequest, ListDeliveriesRequest, ListWebhooksRequest, NewWebhook, PutWebhookRequest,
    RotateWebhookRequest, TestWebhookRequest, Webhook, WebhookEvent, WebhookWithSecret,
    webhook_service_client::WebhookServiceClient,
};

use super::*;

fn create(webhook: NewWebhook) -> CreateWebhookRequest {
    CreateWebhookRequest { webhook: Some(webhook) }
}

fn hook() -> NewWebhook {
    NewWebhook { url: "https://example.com/hook".into(), ..NewWebhook::default() }
}

/// The webhook, and its secret, which must be one.
fn opened(told: WebhookWithSecret) -> (Webhook, WebhookSecret) {
    assert!(!format!("{told:?}").contains(&told.secret));
    (told.webhook.unwrap(), told.secret.parse().unwrap())
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_deleted() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let mut webhooks = WebhookServiceClient::new(grpc.channel.clone());
    let (made, secret) = opened(webhooks.create(create(hook())).await.unwrap().into_inner());
    let jobs = [WebhookEvent::JobSucceeded, WebhookEvent::JobDead, WebhookEvent::JobCancelled];
    assert_eq!((&*made.url, made.events().collect::<Vec<_>>()), ("https://example.com/hook", jobs.into()));
    assert_eq!((made.kinds.len(), made.queues.len(), made.enabled), (0, 0, true));
    let id = || made.id.clone();
    assert_eq!(webhooks.get(GetWebhookRequest { id: id() }).await.unwrap().into_inner(), made);
    assert_eq!(
        webhooks.list(ListWebhooksRequest {}).await.unwrap().into_inner().webhooks,
        std::slice::from_ref(&made)
    );

    let change = ChangedWebhook {
        url: "https://b.example".into(),
        events: vec![WebhookEvent::JobDead.into()],
        kinds: vec!["mail".into()],
        queues: Vec::new(),
    };
    let put = PutWebhookRequest { id: id(), webhook: Some(change) };
    let put = webhooks.put(put).await.unwrap().into_inner();
    assert_eq!(
        (&*put.url, put.events().collect::<Vec<_>>()),
        ("https://b.example", vec![WebhookEvent::JobDead])
    );
    assert_eq!((put.kinds, put.queues.len(), put.created_at), (vec!["mail".to_owned()], 0, made.created_at));
    assert!(!webhooks.disable(DisableWebhookRequest { id: id() }).await.unwrap().into_inner().enabled);
    assert!(webhooks.enable(EnableWebhookRequest { id: id() }).await.unwrap().into_inner().enabled);

    let rotate = |seconds| {
        let grace = Some(ProtoDuration { seconds, nanos: 0 });
        RotateWebhookRequest { id: id(), grace }
    };
    let (rotated, another) = opened(webhooks.rotate(rotate(3600)).await.unwrap().into_inner());
    assert!(another != secret && rotated.old_secret_until.is_some());
    let refused = webhooks.rotate(rotate(31 * 86_400)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).1), (Code::InvalidArgument, vec!["query:grace".to_owned()]));

    webhooks.delete(DeleteWebhookRequest { id: id() }).await.unwrap();
    let gone = webhooks.get(GetWebhookRequest { id: id() }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let test = WebhookEvent::WebhookTest.into();
    for (new, pointer) in [
        (NewWebhook::default(), "/url"),
        (NewWebhook { url: "https://127.0.0.1/".into(), ..hook() }, "/url"),
        (NewWebhook { events: vec![test], ..hook() }, "/events"),
        (NewWebhook { kinds: vec!["a b".into()], ..hook() }, "/kinds"),
    ] {
        let refused = webhooks.create(create(new)).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).1), (Code::InvalidArgument, vec![pointer.to_owned()]));
    }
    let nothing = webhooks.create(CreateWebhookRequest { webhook: None }).await.unwrap_err();
    assert_eq!((nothing.code(), reason(&nothing).1), (Code::InvalidArgument, vec!["/webhook".to_owned()]));
    grpc.stop().await;
}

#[tokio::test]
async fn what_a_webhook_was_sent_is_told() {
    let grpc = Grpc::new(ApiOptions::default()).await;
    let mut webhooks = WebhookServiceClient::new(grpc.channel.clone());
    let (made, _) = opened(webhooks.create(create(hook())).await.unwrap().into_inner());
    let job = grpc.dead().await;
    while grpc.api.store.follow_up(10).await.unwrap() > 0 {}
    let test = webhooks.test(TestWebhookRequest { id: made.id.clone() }).await.unwrap().into_inner().delivery;
    let list = async |webhooks: &mut WebhookServiceClient<_>, cursor, limit| {
        let request = ListDeliveriesRequest { id: made.id.clone(), cursor, limit };
        webhooks.list_deliveries(request).await.unwrap().into_inner()
    };
    let page = list(&mut webhooks, None, Some(1)).await;
    let [newest] = &*page.deliveries else { panic!("{page:?}") };
    assert_eq!((&newest.id, newest.event(), &newest.job), (&test, WebhookEvent::WebhookTest, &None));
    let page = list(&mut webhooks, page.next_cursor, None).await;
    let [oldest] = &*page.deliveries else { panic!("{page:?}") };
    assert_eq!((oldest.event(), oldest.job.clone()), (WebhookEvent::JobDead, Some(job.to_string())));
    assert_eq!((oldest.state(), oldest.attempt, oldest.status_code), (JobState::Queued, 0, None));
    grpc.stop().await;
}

#[tokio::test]
async fn webhooks_are_their_tenants() {
    let grpc = Grpc::guarded().await;
    let acme = grpc.bearer(Scope::Admin, Some("acme")).await;
    let globex = grpc.bearer(Scope::Admin, Some("globex")).await;
    let mut webhooks = WebhookServiceClient::new(grpc.channel.clone());
    let made = webhooks.create(with("authorization", &acme, create(hook()))).await.unwrap().into_inner();
    let (made, _) = opened(made);
    assert_eq!(made.tenant.as_deref(), Some("acme"));
    let list = async |webhooks: &mut WebhookServiceClient<_>, key: &str| {
        let list = webhooks.list(with("authorization", key, ListWebhooksRequest {})).await.unwrap();
        list.into_inner().webhooks
    };
    assert_eq!(list(&mut webhooks, &globex).await, []);
    let get = GetWebhookRequest { id: made.id.clone() };
    assert_eq!(webhooks.get(with("authorization", &globex, get)).await.unwrap_err().code(), Code::NotFound);
    let rotate = RotateWebhookRequest { id: made.id.clone(), grace: None };
    let rotated = webhooks.rotate(with("authorization", &globex, rotate)).await.unwrap_err();
    assert_eq!(rotated.code(), Code::NotFound);
    let delete = DeleteWebhookRequest { id: made.id.clone() };
    assert_eq!(
        webhooks.delete(with("authorization", &globex, delete)).await.unwrap_err().code(),
        Code::NotFound
    );
    let others = create(NewWebhook { tenant: Some("acme".into()), ..hook() });
    let others = webhooks.create(with("authorization", &globex, others)).await.unwrap_err();
    assert_eq!(others.code(), Code::PermissionDenied);
    assert_eq!(list(&mut webhooks, &acme).await, [made]);
    grpc.stop().await;
}
