use std::{fmt::Display, str::FromStr, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{FromRequestParts, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_core::{
    DeliveryRecord, JobId, Kind, QueueName, State as JobState, Tenant, Timestamp, WebhookEvent,
    WebhookFilter, WebhookId, WebhookRecord, Webhooks,
};

use crate::{
    Service,
    auth::Identity,
    body::{self, Fields},
    dead::json,
    duration,
    problem::{FieldError, Problem},
    view,
};

/// Deliveries on a page unless the request says otherwise, and at most.
const LISTED: usize = 100;
const MOST: usize = 1000;
/// How long the secret before the newest one goes on unless the request says otherwise, and at most.
const GRACE: Duration = Duration::from_secs(86_400);
const LONGEST_GRACE: Duration = Duration::from_secs(30 * 86_400);

const CREATED: &str = "url, events, kinds, queues, tenant, enabled";
const CHANGED: &str = "url, events, kinds, queues";

/// A webhook as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Webhook"))]
pub(crate) struct WebhookView<'a> {
    id: WebhookId,
    /// Whose jobs it hears of; without one, of everyone's.
    tenant: Option<&'a Tenant>,
    url: &'a str,
    events: &'a [WebhookEvent],
    /// Of which kinds; without any, of all.
    kinds: Option<&'a [Kind]>,
    /// Of which queues; without any, of all.
    queues: Option<&'a [QueueName]>,
    enabled: bool,
    #[serde(serialize_with = "view::time")]
    created_at: Timestamp,
    /// Until when the secret before the newest one signs as well.
    #[serde(serialize_with = "view::optional_time")]
    old_secret_until: Option<Timestamp>,
}

impl<'a> From<&'a WebhookRecord> for WebhookView<'a> {
    fn from(webhook: &'a WebhookRecord) -> Self {
        let WebhookFilter { events, kinds, queues } = &webhook.filter;
        Self {
            id: webhook.id,
            tenant: webhook.tenant.as_ref(),
            url: &webhook.url,
            events: if events.is_empty() { &WebhookEvent::OF_JOBS } else { events },
            kinds: Some(&**kinds).filter(|kinds| !kinds.is_empty()),
            queues: Some(&**queues).filter(|queues| !queues.is_empty()),
            enabled: webhook.enabled,
            created_at: webhook.created_at,
            old_secret_until: webhook.old_until,
        }
    }
}

/// A webhook with its newest secret, which is shown this once.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookWithSecret"))]
pub(crate) struct SecretView<'a> {
    #[serde(flatten)]
    webhook: WebhookView<'a>,
    /// What deliveries are signed with: `whsec_` and base64.
    secret: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookList"))]
pub(crate) struct WebhooksView<'a> {
    webhooks: Vec<WebhookView<'a>>,
}

/// A delivery, and what its newest attempt came to.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Delivery"))]
pub(crate) struct DeliveryView<'a> {
    /// Also the `webhook-id` of its requests, and the id of the job that makes them.
    id: JobId,
    event: WebhookEvent,
    /// The job that is over; none for a test.
    job: Option<JobId>,
    #[serde(serialize_with = "view::time")]
    at: Timestamp,
    /// Where the job that makes it stands; none once that is no longer kept.
    state: Option<JobState>,
    /// Which attempt was the newest; 0 before the first.
    attempt: u32,
    /// What the receiver answered to it.
    status_code: Option<u16>,
    error: Option<&'a str>,
    #[serde(serialize_with = "view::optional_time")]
    attempted_at: Option<Timestamp>,
    #[serde(serialize_with = "view::optional_time")]
    next_attempt_at: Option<Timestamp>,
}

impl<'a> From<&'a DeliveryRecord> for DeliveryView<'a> {
    fn from(delivery: &'a DeliveryRecord) -> Self {
        let last = delivery.last.as_ref();
        Self {
            id: delivery.id,
            event: delivery.event,
            job: delivery.job,
            at: delivery.at,
            state: delivery.state,
            attempt: last.map_or(0, |last| last.attempt),
            status_code: last.and_then(|last| last.status),
            error: last.and_then(|last| last.error.as_deref()),
            attempted_at: delivery.attempted_at,
            next_attempt_at: delivery.next_at,
        }
    }
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "DeliveryList"))]
pub(crate) struct DeliveriesView<'a> {
    deliveries: Vec<DeliveryView<'a>>,
    next_cursor: Option<JobId>,
}

/// A test that is under way.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WebhookTest"))]
pub(crate) struct TestView {
    /// The delivery, which the log shows.
    delivery: JobId,
}

/// `GET /v1/webhooks`
pub(crate) async fn list(State(service): State<Arc<Service>>, caller: Identity) -> Result<Response, Problem> {
    let mut webhooks = service.webhooks().all_webhooks().await?;
    webhooks.retain(|webhook| caller.sees(webhook.tenant.as_ref()));
    Ok(Json(WebhooksView { webhooks: webhooks.iter().map(WebhookView::from).collect() }).into_response())
}

/// `POST /v1/webhooks`
pub(crate) async fn create(
    State(service): State<Arc<Service>>,
    caller: Identity,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body::read_request(&service, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let mut errors = Vec::new();
    let (url, filter) = read(&service, &mut fields, &mut errors);
    let mut tenant = fields.take("tenant", &mut errors, parse::<Tenant>);
    let enabled = fields.take("enabled", &mut errors, Ok::<bool, String>);
    body::no_more(fields, &mut errors, CREATED);
    let (Some(url), true) = (url, errors.is_empty()) else { return Err(Problem::invalid(errors)) };
    caller.confine(&mut tenant)?;
    let created = service.client.create_webhook(tenant, url, filter, enabled.unwrap_or(true)).await?;
    let (id, secret) = created.ok_or_else(Problem::too_many_webhooks)?;
    let webhook = service.webhook(&caller, id).await?;
    let shown = SecretView { webhook: WebhookView::from(&webhook), secret: secret.expose() };
    let mut response = (StatusCode::CREATED, json(&shown)).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/webhooks/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /v1/webhooks/{id}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.show(&caller, id).await
}

/// `PUT /v1/webhooks/{id}`
pub(crate) async fn put(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    request: Request,
) -> Result<Response, Problem> {
    service.webhook(&caller, id).await?;
    let bytes = body::read_request(&service, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let mut errors = Vec::new();
    let (url, filter) = read(&service, &mut fields, &mut errors);
    body::no_more(fields, &mut errors, CHANGED);
    let (Some(url), true) = (url, errors.is_empty()) else { return Err(Problem::invalid(errors)) };
    found(id, service.webhooks().change_webhook(id, &url, &filter).await?)?;
    service.show(&caller, id).await
}

/// `DELETE /v1/webhooks/{id}`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.webhook(&caller, id).await?;
    found(id, service.webhooks().delete_webhook(id).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/webhooks/{id}/enable`
pub(crate) async fn enable(
    service: State<Arc<Service>>,
    caller: Identity,
    id: Id,
) -> Result<Response, Problem> {
    switch(service, caller, id, true).await
}

/// `POST /v1/webhooks/{id}/disable`
pub(crate) async fn disable(
    service: State<Arc<Service>>,
    caller: Identity,
    id: Id,
) -> Result<Response, Problem> {
    switch(service, caller, id, false).await
}

async fn switch(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    enabled: bool,
) -> Result<Response, Problem> {
    service.webhook(&caller, id).await?;
    found(id, service.webhooks().enable_webhook(id, enabled).await?)?;
    service.show(&caller, id).await
}

/// `POST /v1/webhooks/{id}/rotate`
pub(crate) async fn rotate(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let mut grace = GRACE;
    parameters(query, "grace", |name, value| {
        let given = (name == "grace").then(|| match duration::parse(value)? {
            longer if longer > LONGEST_GRACE => Err("may be at most 30 days".to_owned()),
            given => {
                grace = given;
                Ok(())
            }
        });
        given.transpose()
    })?;
    service.webhook(&caller, id).await?;
    let secret = service.client.rotate_webhook(id, grace).await?.ok_or_else(|| no_such_webhook(id))?;
    let webhook = service.webhook(&caller, id).await?;
    Ok(json(&SecretView { webhook: WebhookView::from(&webhook), secret: secret.expose() }))
}

/// `POST /v1/webhooks/{id}/test`
pub(crate) async fn test(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
) -> Result<Response, Problem> {
    service.webhook(&caller, id).await?;
    let delivery = service.client.test_webhook(id).await?.ok_or_else(|| no_such_webhook(id))?;
    Ok((StatusCode::ACCEPTED, json(&TestView { delivery })).into_response())
}

/// `GET /v1/webhooks/{id}/deliveries`
pub(crate) async fn deliveries(
    State(service): State<Arc<Service>>,
    caller: Identity,
    Id(id): Id,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let (mut before, mut limit) = (None, LISTED);
    parameters(query, "cursor, limit", |name, value| match (name, value.parse()) {
        ("cursor", _) => match value.parse() {
            Ok(cursor) => {
                before = Some(cursor);
                Ok(Some(()))
            }
            Err(_) => Err("give the next_cursor of an earlier answer".into()),
        },
        ("limit", Ok(number @ 1..=MOST)) => {
            limit = number;
            Ok(Some(()))
        }
        ("limit", _) => Err(format!("use 1 to {MOST}")),
        _ => Ok(None),
    })?;
    service.webhook(&caller, id).await?;
    let found = service.webhooks().deliveries(id, before, limit).await?;
    let next_cursor = found.last().filter(|_| found.len() == limit).map(|last| last.id);
    Ok(json(&DeliveriesView { deliveries: found.iter().map(DeliveryView::from).collect(), next_cursor }))
}

/// Reads the parameters of a query, each at most once: `Ok(None)` for one that is not known.
fn parameters(
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    known: &str,
    mut read: impl FnMut(&str, &str) -> Result<Option<()>, String>,
) -> Result<(), Problem> {
    let Query(parameters) = query.map_err(|error| Problem::malformed(error.body_text()))?;
    let errors = parameters.iter().filter_map(|(name, value)| {
        let detail = match read(name, value) {
            Ok(Some(())) => return None,
            Ok(None) => format!("unknown; known are {known}"),
            Err(detail) => detail,
        };
        Some(FieldError::query(name, detail))
    });
    let errors: Vec<FieldError> = errors.collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::invalid(errors)) }
}

/// Reads where a webhook is, and what it hears of.
fn read(
    service: &Service,
    fields: &mut Fields<'_>,
    errors: &mut Vec<FieldError>,
) -> (Option<String>, WebhookFilter) {
    let before = errors.len();
    let url = fields.take("url", errors, |url: String| match service.options.outside.check_url(&url) {
        Ok(_) => Ok(url),
        Err(refused) => Err(refused.to_string()),
    });
    if url.is_none() && errors.len() == before {
        errors.push(FieldError::new(
            "url",
            "required: where webhooks are sent, such as https://example.com/hook",
        ));
    }
    let events = fields.take("events", errors, |names: Vec<String>| {
        let events = names_of::<WebhookEvent>(names, WebhookEvent::OF_JOBS.len())?;
        match events.contains(&WebhookEvent::Test) {
            true => {
                Err("a test is sent when it is asked for; use job.succeeded, job.dead or job.cancelled"
                    .into())
            }
            false => Ok(events),
        }
    });
    let most = WebhookFilter::MOST_NAMES;
    let kinds = fields.take("kinds", errors, |names| names_of::<Kind>(names, most));
    let queues = fields.take("queues", errors, |names| names_of::<QueueName>(names, most));
    let filter = WebhookFilter {
        events: events.unwrap_or_default(),
        kinds: kinds.unwrap_or_default(),
        queues: queues.unwrap_or_default(),
    };
    (url, filter)
}

/// At least one, since none would mean all, and each only once.
fn names_of<T: FromStr<Err: Display> + PartialEq>(names: Vec<String>, most: usize) -> Result<Vec<T>, String> {
    if !(1..=most).contains(&names.len()) {
        return Err(format!("use 1 to {most}, or leave the field out for all"));
    }
    let mut items = Vec::with_capacity(names.len());
    for name in names {
        let item = parse(name)?;
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(items)
}

fn parse<T: FromStr<Err: Display>>(text: String) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The webhook's id in the path.
pub(crate) struct Id(WebhookId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text =
            Path::<String>::from_request_parts(parts, state).await.map(|Path(text)| text).unwrap_or_default();
        parse(text).map(Self).map_err(Problem::malformed)
    }
}

impl Service {
    fn webhooks(&self) -> &dyn Webhooks {
        self.client.store().webhooks()
    }

    /// The webhook with this id. Its tenant never changes.
    async fn webhook(&self, caller: &Identity, id: WebhookId) -> Result<WebhookRecord, Problem> {
        let webhook = self.webhooks().webhook(id).await?;
        webhook.filter(|webhook| caller.sees(webhook.tenant.as_ref())).ok_or_else(|| no_such_webhook(id))
    }

    async fn show(&self, caller: &Identity, id: WebhookId) -> Result<Response, Problem> {
        Ok(Json(WebhookView::from(&self.webhook(caller, id).await?)).into_response())
    }
}

fn found(id: WebhookId, found: bool) -> Result<(), Problem> {
    if found { Ok(()) } else { Err(no_such_webhook(id)) }
}

fn no_such_webhook(id: WebhookId) -> Problem {
    Problem::not_found(format!("there is no webhook {id}"))
}
