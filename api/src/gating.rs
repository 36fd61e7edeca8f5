use windlass_core::{Gating, LimitKey, OnFailure, OrderingKey, Tenant};

use crate::{
    body::Fields,
    problem::{FieldError, Problem},
};

/// Reads what a job may have to wait for.
pub(crate) fn read(fields: &mut Fields<'_>, errors: &mut Vec<FieldError>) -> Gating {
    let limits = fields.take("limits", errors, |limits: Vec<String>| match limits.len() {
        0..=Gating::MAX_LIMITS => Ok(limits),
        _ => Err(format!("at most {} limits", Gating::MAX_LIMITS)),
    });
    let mut read = Vec::new();
    for (at, limit) in limits.unwrap_or_default().iter().enumerate() {
        match limit.parse::<LimitKey>() {
            Ok(limit) => read.push(limit),
            Err(error) => errors.push(FieldError::within("/limits", &at.to_string(), error.to_string())),
        }
    }
    let ordering_key = fields.take("ordering_key", errors, |text: String| {
        text.parse::<OrderingKey>().map_err(|error| error.to_string())
    });
    let on_failure = fields.take("on_failure", errors, |text: String| match text.as_str() {
        "block" => Ok(OnFailure::Block),
        "skip" => Ok(OnFailure::Skip),
        _ => Err("use \"block\" or \"skip\"".to_owned()),
    });
    if on_failure.is_some() && ordering_key.is_none() {
        errors.push(FieldError::new("on_failure", "only with an ordering_key"));
    }
    let tenant = fields
        .take("tenant", errors, |text: String| text.parse::<Tenant>().map_err(|error| error.to_string()));
    Gating { limits: read, ordering_key, on_failure: on_failure.unwrap_or_default(), tenant }
}

/// Nobody has defined the job's limit with this index.
pub(crate) fn unknown_limit(gating: &Gating, at: usize) -> Problem {
    let name = gating.limits.get(at).map_or("", |limit| limit.name());
    let detail =
        format!("there is no limit named {name:?}: define it with PUT /v1/limits, or correct the name");
    Problem::invalid(vec![FieldError::within("/limits", &at.to_string(), detail)])
}
