use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_client::ClientError;
use windlass_core::{Limit, LimitName, Rate};

use crate::{
    Service,
    body::{self, Fields},
    duration,
    name::Name,
    problem::{FieldError, Problem},
};

/// A limit as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "LimitRules"))]
pub(crate) struct LimitView {
    max_running: Option<u32>,
    rate: Option<u32>,
    #[serde(serialize_with = "per")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    per: Option<Duration>,
    burst: Option<u32>,
}

impl From<Limit> for LimitView {
    fn from(limit: Limit) -> Self {
        Self {
            max_running: limit.max_running,
            rate: limit.rate.map(|rate| rate.count),
            per: limit.rate.map(|rate| rate.per),
            burst: limit.rate.map(|rate| rate.burst),
        }
    }
}

fn per<S: serde::Serializer>(per: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    per.map(|per| humantime::format_duration(per).to_string()).serialize(serializer)
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Limit"))]
pub(crate) struct NamedLimit {
    name: LimitName,
    #[serde(flatten)]
    limit: LimitView,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "LimitList"))]
pub(crate) struct LimitsView {
    limits: Vec<NamedLimit>,
}

/// `GET /v1/limits`
pub(crate) async fn list(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let limits = service.client.store().operations().limits().await.map_err(ClientError::from)?;
    let limits =
        limits.into_iter().map(|record| NamedLimit { name: record.name, limit: record.limit.into() });
    Ok(Json(LimitsView { limits: limits.collect() }).into_response())
}

/// `GET /v1/limits/{name}`
pub(crate) async fn get(
    State(service): State<Arc<Service>>,
    Name(name): Name<LimitName>,
) -> Result<Response, Problem> {
    let limits = service.client.store().operations().limits().await.map_err(ClientError::from)?;
    match limits.into_iter().find(|record| record.name == name) {
        Some(record) => Ok(Json(NamedLimit { name, limit: record.limit.into() }).into_response()),
        None => Err(no_such_limit(&name)),
    }
}

/// `PUT /v1/limits/{name}`
pub(crate) async fn put(
    State(service): State<Arc<Service>>,
    Name(name): Name<LimitName>,
    request: Request,
) -> Result<Response, Problem> {
    let bytes = body::read_request(&service, request).await?;
    let mut fields = Fields::parse(body::text(&bytes)?)?;
    let mut errors = Vec::new();
    let limit = read(&mut fields, &mut errors);
    body::no_more(fields, &mut errors, "max_running, rate, per, burst");
    let (Some(limit), true) = (limit, errors.is_empty()) else { return Err(Problem::invalid(errors)) };
    service.client.store().operations().set_limit(&name, limit).await.map_err(ClientError::from)?;
    Ok(Json(NamedLimit { name, limit: limit.into() }).into_response())
}

/// `DELETE /v1/limits/{name}`
pub(crate) async fn delete(
    State(service): State<Arc<Service>>,
    Name(name): Name<LimitName>,
) -> Result<Response, Problem> {
    match service.client.store().operations().remove_limit(&name).await.map_err(ClientError::from)? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(no_such_limit(&name)),
    }
}

fn no_such_limit(name: &LimitName) -> Problem {
    Problem::not_found(format!("there is no limit named {:?}", name.as_str()))
}

/// Reads the fields of a limit. `None`: there is an error.
pub(crate) fn read(fields: &mut Fields<'_>, errors: &mut Vec<FieldError>) -> Option<Limit> {
    let before = errors.len();
    let count = |number: i64| match u32::try_from(number) {
        Ok(number @ 1..=1_000_000_000) => Ok(number),
        _ => Err("use 1 to 1000000000".to_owned()),
    };
    let max_running = fields.take("max_running", errors, count);
    let rate = fields.take("rate", errors, count);
    let per = fields.take("per", errors, |text: String| duration::parse(&text));
    let burst = fields.take("burst", errors, count);
    if errors.len() > before {
        return None;
    }
    let rate = match (rate, per, burst) {
        (Some(count), per, burst) => {
            Some(Rate { count, per: per.unwrap_or(Duration::from_secs(1)), burst: burst.unwrap_or(count) })
        }
        (None, None, None) => None,
        (None, ..) => {
            errors
                .push(FieldError::new("rate", "required with per or burst: how many may start in that time"));
            return None;
        }
    };
    let limit = Limit { max_running, rate };
    if let Err((field, rule)) = limit.check() {
        errors.push(FieldError::new(field, rule));
        return None;
    }
    Some(limit)
}
