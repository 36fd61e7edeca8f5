//! Problem documents as statuses, with details as `google.rpc` has them.

use std::time::Duration;

use axum::{
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use tonic::{Code, Status, metadata::MetadataMap};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};
use windlass_proto::v1;

use super::call::REQUEST_ID_KEY;
use crate::problem::Problem;

/// Whose reasons they are.
const DOMAIN: &str = "windlass";
const TYPES: &str = "urn:windlass:problem:";
/// How much of what is wrong with fields a status tells, in bytes. It comes in the answer's trailers, of which clients take
/// no more than some KiB.
const MOST_TOLD: usize = 4096;

/// Why a request was refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) problem: v1::Problem,
    retry_after: Option<Duration>,
    request_id: Option<String>,
}

impl Refusal {
    /// Reads it from an answer.
    pub(super) async fn read(response: Response) -> Self {
        let (head, body) = response.into_parts();
        let request_id =
            head.headers.get(REQUEST_ID_KEY).and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let retry_after = seconds(&head.headers);
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        // All of ours are problem documents.
        let problem = serde_json::from_slice(&body).unwrap_or_else(|error| {
            tracing::error!(status = %head.status, %error, "an answer is neither good nor a problem");
            document(&Problem::internal())
        });
        Self { problem, retry_after, request_id }
    }
}

impl From<&Problem> for Refusal {
    fn from(problem: &Problem) -> Self {
        let response = problem.clone().into_response();
        let retry_after = seconds(response.headers());
        Self { problem: document(problem), retry_after, request_id: None }
    }
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The same as a message.
pub(super) fn document(problem: &Problem) -> v1::Problem {
    let message = serde_json::to_vec(problem).and_then(|json| serde_json::from_slice(&json));
    message.unwrap_or_else(|error| {
        tracing::error!(%error, "a problem cannot be told over gRPC");
        v1::Problem { r#type: format!("{TYPES}internal"), status: 500, ..v1::Problem::default() }
    })
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let Refusal { problem, retry_after, request_id } = refusal;
        let name = problem.r#type.strip_prefix(TYPES).unwrap_or(&problem.r#type);
        let reason = name.to_ascii_uppercase().replace('-', "_");
        let metadata = [
            ("type".to_owned(), problem.r#type.clone()),
            ("http_status".to_owned(), problem.status.to_string()),
        ];
        let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
        let mut left = MOST_TOLD;
        let violations = problem.errors.iter().map_while(|error| {
            left = left.checked_sub(error.pointer.len() + error.detail.len())?;
            Some(FieldViolation::new(&*error.pointer, &*error.detail))
        });
        let violations = violations.collect::<Vec<_>>();
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        let mut sent = MetadataMap::new();
        if let Some(id) = request_id {
            if let Ok(value) = id.parse() {
                sent.insert(REQUEST_ID_KEY, value);
            }
            details.set_request_info(id, "");
        }
        let code = code(name, problem.status);
        Self::with_error_details_and_metadata(code, problem.detail, details, sent)
    }
}

/// The code that tells a client what to do.
fn code(name: &str, status: u32) -> Code {
    match (name, status) {
        ("not-unique", _) => Code::AlreadyExists,
        ("idempotency-key-in-flight", _) => Code::Aborted,
        ("idempotency-key-reused", _) => Code::FailedPrecondition,
        (_, 400 | 413 | 415 | 422) => Code::InvalidArgument,
        (_, 401) => Code::Unauthenticated,
        (_, 403) => Code::PermissionDenied,
        (_, 404) => Code::NotFound,
        (_, 409) => Code::FailedPrecondition,
        (_, 429) => Code::ResourceExhausted,
        (_, 500) => Code::Internal,
        (_, 408 | 503) => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::{JobId, Scope, State};

    use super::*;
    use crate::problem::FieldError;

    fn status(problem: &Problem) -> Status {
        Refusal::from(problem).into()
    }

    #[test]
    fn every_problem_has_a_code_that_tells_what_to_do() {
        for (problem, code) in [
            (Problem::malformed("x"), Code::InvalidArgument),
            (Problem::invalid(vec![FieldError::new("kind", "x")]), Code::InvalidArgument),
            (Problem::unknown_kind("mail"), Code::InvalidArgument),
            (Problem::too_large(1), Code::InvalidArgument),
            (Problem::key_reused(), Code::FailedPrecondition),
            (Problem::key_in_flight(), Code::Aborted),
            (Problem::not_unique(JobId::new()), Code::AlreadyExists),
            (Problem::finished(State::Dead), Code::FailedPrecondition),
            (Problem::no_token(), Code::Unauthenticated),
            (Problem::missing_scope(Scope::Read), Code::PermissionDenied),
            (Problem::not_found("x"), Code::NotFound),
            (Problem::over_quota(None), Code::ResourceExhausted),
            (Problem::unavailable("x", 1), Code::Unavailable),
            (Problem::internal(), Code::Internal),
        ] {
            assert_eq!(status(&problem).code(), code, "{problem:?}");
        }
    }

    #[test]
    fn the_details_say_what_the_document_does() {
        let status = status(&Problem::invalid(vec![FieldError::new("kind", "required")]));
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("INVALID_FIELD", "windlass"));
        assert_eq!(info.metadata["type"], "urn:windlass:problem:invalid-field");
        assert_eq!(info.metadata["http_status"], "422");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!((&*violations[0].field, &*violations[0].description), ("/kind", "required"));
        assert!(details.retry_info().is_none());

        let busy: Status = Refusal::from(&Problem::unavailable("x", 7)).into();
        let retry = busy.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_status_is_never_too_large_for_trailers() {
        let errors = (0..20).map(|_| FieldError::new(&"é".repeat(64), "é".repeat(256))).collect();
        let status = status(&Problem::invalid(errors));
        assert!(status.details().len() < 8192, "{} bytes", status.details().len());
        assert!(!status.get_error_details().bad_request().unwrap().field_violations.is_empty());
    }
}
