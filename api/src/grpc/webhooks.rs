use axum::http::Method;
use serde::Deserialize;
use tonic::{Request, Response, Status};
use windlass_core::WebhookId;
use windlass_proto::{
    iso_8601,
    v1::{
        CreateWebhookRequest, DeleteWebhookRequest, DisableWebhookRequest, EnableWebhookRequest,
        GetWebhookRequest, ListDeliveriesRequest, ListDeliveriesResponse, ListWebhooksRequest,
        ListWebhooksResponse, PutWebhookRequest, RotateWebhookRequest, TestWebhookRequest,
        TestWebhookResponse, Webhook, WebhookWithSecret, webhook_service_server::WebhookService,
    },
};

use super::call::{Caller, Gateway, Query, answer, path_by_id, required, write};

#[tonic::async_trait]
impl WebhookService for Gateway {
    async fn list(
        &self,
        request: Request<ListWebhooksRequest>,
    ) -> Result<Response<ListWebhooksResponse>, Status> {
        self.call(&Caller::of(&request), Method::GET, "/v1/webhooks", None).await
    }

    async fn create(
        &self,
        request: Request<CreateWebhookRequest>,
    ) -> Result<Response<WebhookWithSecret>, Status> {
        let caller = Caller::of(&request);
        let body = write(&required(request.into_inner().webhook, "webhook")?)?;
        with_secret(self, &caller, "/v1/webhooks", Some(body)).await
    }

    async fn get(&self, request: Request<GetWebhookRequest>) -> Result<Response<Webhook>, Status> {
        let path = path(&request.get_ref().id, "")?;
        self.call(&Caller::of(&request), Method::GET, &path, None).await
    }

    async fn put(&self, request: Request<PutWebhookRequest>) -> Result<Response<Webhook>, Status> {
        let caller = Caller::of(&request);
        let PutWebhookRequest { id, webhook } = request.into_inner();
        let path = path(&id, "")?;
        let body = write(&required(webhook, "webhook")?)?;
        self.call(&caller, Method::PUT, &path, Some(body)).await
    }

    async fn delete(&self, request: Request<DeleteWebhookRequest>) -> Result<Response<()>, Status> {
        let path = path(&request.get_ref().id, "")?;
        self.order(&Caller::of(&request), Method::DELETE, &path).await
    }

    async fn enable(&self, request: Request<EnableWebhookRequest>) -> Result<Response<Webhook>, Status> {
        let path = path(&request.get_ref().id, "/enable")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn disable(&self, request: Request<DisableWebhookRequest>) -> Result<Response<Webhook>, Status> {
        let path = path(&request.get_ref().id, "/disable")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn rotate(
        &self,
        request: Request<RotateWebhookRequest>,
    ) -> Result<Response<WebhookWithSecret>, Status> {
        let caller = Caller::of(&request);
        let message = request.get_ref();
        let mut query = Query::new(path(&message.id, "/rotate")?);
        query.add_some("grace", message.grace.as_ref().map(iso_8601));
        with_secret(self, &caller, query.path(), None).await
    }

    async fn test(
        &self,
        request: Request<TestWebhookRequest>,
    ) -> Result<Response<TestWebhookResponse>, Status> {
        let path = path(&request.get_ref().id, "/test")?;
        self.call(&Caller::of(&request), Method::POST, &path, None).await
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let caller = Caller::of(&request);
        let message = request.get_ref();
        let mut query = Query::new(path(&message.id, "/deliveries")?);
        query.add_page(message.cursor.as_deref(), message.limit);
        self.call(&caller, Method::GET, query.path(), None).await
    }
}

fn path(id: &str, after: &str) -> Result<String, Status> {
    path_by_id::<WebhookId>("/v1/webhooks/", id, after)
}

/// HTTP has the secret beside the webhook's fields.
#[derive(Deserialize)]
struct Told {
    #[serde(flatten)]
    webhook: Webhook,
    secret: String,
}

async fn with_secret(
    gateway: &Gateway,
    caller: &Caller,
    path: &str,
    body: Option<String>,
) -> Result<Response<WebhookWithSecret>, Status> {
    let (headers, Told { webhook, secret }) = gateway.ask(caller, Method::POST, path, body).await?;
    Ok(answer(&headers, WebhookWithSecret { webhook: Some(webhook), secret }))
}
