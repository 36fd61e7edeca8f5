//! How many unfinished jobs a tenant may have.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_client::ClientError;
use windlass_core::Tenant;

use crate::{
    Service,
    body::{self, Fields},
    name::Name,
    problem::{FieldError, Problem},
};

/// The largest quota.
const MOST: i64 = 1_000_000_000;

/// A tenant's quota, and how far it is used.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Quota"))]
pub(crate) struct QuotaView {
    tenant: Tenant,
    max_unfinished: u32,
    /// Of the jobs accepted since the quota was set: those that are not over, or have been for a moment only.
    unfinished: u64,
}

/// `GET /v1/tenants/{tenant}/quota`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Name(tenant): Name<Tenant>,
) -> Result<Response, Problem> {
    show(&service, tenant).await
}

/// `PUT /v1/tenants/{tenant}/quota`
pub(crate) async fn put(
    State(service): State<Arc<Service>>,
    Name(tenant): Name<Tenant>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body::read_request(&service, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let mut errors = Vec::new();
    let most = fields.take("max_unfinished", &mut errors, |number: i64| match u32::try_from(number) {
        Ok(most) if number <= MOST => Ok(most),
        _ => Err(format!("use 0 to {MOST}")),
    });
    if most.is_none() && errors.is_empty() {
        errors.push(FieldError::new("max_unfinished", "required: how many unfinished jobs there may be"));
    }
    body::no_more(fields, &mut errors, "max_unfinished");
    let (Some(most), true) = (most, errors.is_empty()) else { return Err(Problem::invalid(errors)) };
    service.client.store().quotas().set_quota(&tenant, most).await.map_err(ClientError::from)?;
    show(&service, tenant).await
}

/// `DELETE /v1/tenants/{tenant}/quota`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Name(tenant): Name<Tenant>,
) -> Result<Response, Problem> {
    match service.client.store().quotas().remove_quota(&tenant).await.map_err(ClientError::from)? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(no_such_quota(&tenant)),
    }
}

async fn show(service: &Service, tenant: Tenant) -> Result<Response, Problem> {
    match service.client.store().quotas().quota(&tenant).await.map_err(ClientError::from)? {
        Some(quota) => {
            let (max_unfinished, unfinished) = (quota.max_unfinished, quota.unfinished);
            Ok(Json(QuotaView { tenant, max_unfinished, unfinished }).into_response())
        }
        None => Err(no_such_quota(&tenant)),
    }
}

fn no_such_quota(tenant: &Tenant) -> Problem {
    Problem::not_found(format!("the tenant {:?} has no quota", tenant.as_str()))
}
