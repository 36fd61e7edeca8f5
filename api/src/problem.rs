use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use windlass_client::{ClientError, EnvelopeError, ObjectsError, RequestRate};
use windlass_core::{JobId, Scope, StoreError, Tenant};

use crate::unpack::Coding;

/// An error as clients see it: a problem document, RFC 9457.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// In how many seconds to repeat the request.
    #[serde(skip)]
    retry_after: Option<u64>,
    #[serde(skip)]
    challenge: Option<Challenge>,
    /// Whether to say what a body may be compressed by.
    #[serde(skip)]
    name_codings: bool,
}

/// What is wrong with the token, by RFC 6750.
#[derive(Debug, Clone, Copy)]
enum Challenge {
    NoToken,
    InvalidToken,
    InsufficientScope(Scope),
}

/// What is wrong with one field of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FieldError {
    /// JSON pointer (RFC 6901) to the field, `header:name` or `query:name`.
    pub(crate) pointer: String,
    /// What is wrong, and what would be right.
    pub(crate) detail: String,
}

impl FieldError {
    /// An error of a top-level field.
    pub(crate) fn new(field: &str, detail: impl AsRef<str>) -> Self {
        Self::within("", field, detail)
    }

    /// An error of a field of the object at `parent`.
    pub(crate) fn within(parent: &str, field: &str, detail: impl AsRef<str>) -> Self {
        // RFC 6901, since the name may be anything a client has sent.
        let escaped = shorten(field, 64).replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("{parent}/{escaped}"), detail: shorten(detail.as_ref(), 256) }
    }

    /// An error at a place, given as a JSON pointer.
    pub(crate) fn at(pointer: String, detail: impl AsRef<str>) -> Self {
        Self { pointer: shorten(&pointer, 256), detail: shorten(detail.as_ref(), 256) }
    }

    /// An error of a parameter of the query.
    pub(crate) fn query(name: &str, detail: impl AsRef<str>) -> Self {
        Self { pointer: format!("query:{}", shorten(name, 64)), detail: shorten(detail.as_ref(), 256) }
    }

    /// An error of the request as a whole.
    pub(crate) fn whole(detail: impl AsRef<str>) -> Self {
        Self { pointer: String::new(), detail: shorten(detail.as_ref(), 256) }
    }
}

/// What a client has sent may be as long as a body, and is not sent back in full.
fn shorten(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How many wrong fields one problem names.
pub(crate) const MOST_ERRORS: usize = 20;

impl Problem {
    fn new(status: StatusCode, name: &str, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:windlass:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
            name_codings: false,
        }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    /// Names the first [`MOST_ERRORS`] of these, or else a small body could make a large answer.
    pub(crate) fn invalid(mut errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} fields are not as they should be", several.len()),
        };
        errors.truncate(MOST_ERRORS);
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-field",
            "The request has fields that are not as they should be",
            detail,
        );
        Self { errors, ..problem }
    }

    /// The same problem, of an object at `parent` within the request.
    pub(crate) fn within(mut self, parent: &str) -> Self {
        for error in &mut self.errors {
            error.pointer.insert_str(0, parent);
        }
        self
    }

    /// Whether the same request may succeed later without anyone's doing.
    pub(crate) fn passes(&self) -> bool {
        self.retry_after.is_some()
    }

    pub(crate) fn unknown_kind(kind: &str) -> Self {
        let detail =
            format!("no worker has ever handled the kind {kind}; start one that does, or correct the name");
        let title = "The kind is unknown";
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-kind", title, &*detail);
        Self { errors: vec![FieldError::new("kind", &detail)], ..problem }
    }

    pub(crate) fn payload_misfit(kind: &str, version: u16, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} errors in the payload", several.len()),
        };
        let detail = format!("{detail}; GET /v1/kinds/{kind} has the schema of version {version}");
        let title = "The payload does not fit its kind";
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "payload-misfit", title, detail) }
    }

    pub(crate) fn key_reused() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The idempotency key was used for another request",
            "use a new Idempotency-Key for a new job, and the same key only to repeat the very same request",
        )
    }

    pub(crate) fn key_in_flight() -> Self {
        let title = "A request with the idempotency key is being answered";
        let detail = "repeat the request in a moment; it is then answered with what this one has made";
        let problem = Self::new(StatusCode::CONFLICT, "idempotency-key-in-flight", title, detail);
        Self { retry_after: Some(1), ..problem }
    }

    pub(crate) fn not_unique(holder: JobId) -> Self {
        let detail = format!("job {holder} has the same unique key; nothing was stored");
        Self::new(StatusCode::CONFLICT, "not-unique", "Another job has the unique key", detail)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let detail = format!("the body may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
    }

    pub(crate) fn too_deep(field: &str, limit: usize) -> Self {
        let error = FieldError::new(field, format!("JSON may be nested at most {limit} levels deep"));
        let title = "The JSON is nested too deeply";
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "nested-too-deeply", title, &*error.detail);
        Self { errors: vec![error], ..problem }
    }

    pub(crate) fn media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media-type",
            "The body is not JSON",
            "send JSON with the header content-type: application/json, or CBOR with application/cbor",
        )
    }

    pub(crate) fn coding() -> Self {
        let known = Coding::KNOWN;
        let detail =
            format!("compress the body by one of {known}, once, and name it in the header content-encoding");
        let title = "The body is compressed in a way that is not known";
        let problem = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-coding", title, detail);
        Self { name_codings: true, ..problem }
    }

    /// There is no key or token.
    pub(crate) fn no_token() -> Self {
        let detail = "send an API key, or a token of the issuer: Authorization: Bearer …";
        Self { challenge: Some(Challenge::NoToken), ..Self::unauthorized(detail) }
    }

    /// The key or token is not good.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        let title = "The request needs a key";
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", title, detail);
        Self { challenge: Some(Challenge::InvalidToken), ..problem }
    }

    pub(crate) fn missing_scope(scope: Scope) -> Self {
        let detail = format!("this needs the scope {scope}, which the key does not have");
        let problem = Self::new(StatusCode::FORBIDDEN, "missing-scope", "The key may not do this", detail);
        Self { challenge: Some(Challenge::InsufficientScope(scope)), ..problem }
    }

    pub(crate) fn not_for_tenants(tenant: &Tenant) -> Self {
        let detail = format!("this is the whole fleet's, and the key acts for the tenant {tenant} only");
        Self::new(StatusCode::FORBIDDEN, "not-for-tenants", "The key may not do this", detail)
    }

    pub(crate) fn other_tenant(own: &Tenant) -> Self {
        let detail =
            format!("the key acts for the tenant {own} only: leave the tenant out, or use another key");
        let title = "The key may not act for this tenant";
        Self::new(StatusCode::FORBIDDEN, "other-tenant", title, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The method is not allowed here",
            "the Allow header lists those that are",
        )
    }

    pub(crate) fn finished(state: windlass_core::State) -> Self {
        let detail = format!("the job is {state}, and can no longer be cancelled");
        Self::new(StatusCode::CONFLICT, "job-finished", "The job is over", detail)
    }

    pub(crate) fn unfinished(state: windlass_core::State, wanted: &str) -> Self {
        let detail = match state.is_terminal() {
            // A deletion, which waits for the store to see to what the job's end means to others.
            true => format!("the job has only just become {state}; it can be {wanted} in a moment"),
            false => format!("the job is {state}, and can only be {wanted} once it is over"),
        };
        Self::new(StatusCode::CONFLICT, "job-unfinished", "The job is not over", detail)
    }

    pub(crate) fn no_result_yet(state: windlass_core::State) -> Self {
        let detail = format!("the job is {state}; there is a result once it has succeeded");
        Self::new(StatusCode::CONFLICT, "job-unfinished", "The job is not over", detail)
    }

    pub(crate) fn draining(queue: &windlass_core::QueueName) -> Self {
        let detail = format!("the queue {queue} takes no new jobs until it is resumed; nothing was stored");
        Self::new(StatusCode::CONFLICT, "queue-draining", "The queue is being drained", detail)
    }

    pub(crate) fn too_many_webhooks() -> Self {
        let most = windlass_core::MOST_WEBHOOKS;
        let detail =
            format!("there are {most} webhooks already, which is the most of one tenant; delete one first");
        Self::new(StatusCode::CONFLICT, "too-many-webhooks", "There are too many webhooks", detail)
    }

    pub(crate) fn slow_body() -> Self {
        let detail = "the body did not arrive in time; nothing was stored";
        Self::new(StatusCode::REQUEST_TIMEOUT, "slow-body", "The request took too long to arrive", detail)
    }

    /// There is no place left under the tenant's quota.
    pub(crate) fn over_quota(tenant: Option<&Tenant>) -> Self {
        let whose = tenant.map_or("no one", |tenant| tenant.as_str());
        let detail = format!(
            "the tenant {whose} has as many unfinished jobs as its quota allows; nothing was stored, so repeat it once \
             some are over"
        );
        let title = "The tenant has too many unfinished jobs";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "over-quota", title, detail);
        // Whoever knows better when a job is over may come sooner.
        Self { retry_after: Some(5), ..problem }
    }

    /// More than a rate allows, `whose` requests they are.
    pub(crate) fn too_many_requests(whose: &str, rate: &RequestRate, retry_after: u64) -> Self {
        let detail = format!(
            "more than {rate} come {whose}; nothing was stored, so repeat it in {retry_after} s, and ask less often"
        );
        let title = "There are too many requests";
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", title, detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    pub(crate) fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        let title = "The service cannot do this now";
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title, detail);
        Self { retry_after: Some(retry_after), ..problem }
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here",
            "the log has the details, under the id in the x-request-id header",
        )
    }
}

impl Challenge {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::NoToken => r#"Bearer realm="windlass""#,
            Self::InvalidToken => r#"Bearer realm="windlass", error="invalid_token""#,
            Self::InsufficientScope(scope) => match scope {
                Scope::Enqueue => r#"Bearer realm="windlass", error="insufficient_scope", scope="enqueue""#,
                Scope::Read => r#"Bearer realm="windlass", error="insufficient_scope", scope="read""#,
                Scope::Operate => r#"Bearer realm="windlass", error="insufficient_scope", scope="operate""#,
                Scope::Admin => r#"Bearer realm="windlass", error="insufficient_scope", scope="admin""#,
            },
        })
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::KeyReused => Self::key_reused(),
            ClientError::NotUnique(holder) => Self::not_unique(*holder),
            ClientError::Envelope(EnvelopeError::ReservedKey) => {
                Self::invalid(vec![FieldError::new("payload", error.to_string())])
            }
            ClientError::Envelope(EnvelopeError::Objects(ObjectsError::Unavailable(_))) => {
                tracing::warn!(%error, "object store call failed");
                Self::unavailable("the object store does not answer; nothing was stored", 1)
            }
            ClientError::Envelope(_) => {
                tracing::error!(%error, "what the store keeps cannot be read");
                Self::unavailable("the service is not set up correctly; its log has the details", 30)
            }
            ClientError::Overloaded => {
                Self::unavailable("too many jobs are being accepted; nothing was stored", 1)
            }
            ClientError::Closed => Self::unavailable("this instance is shutting down; nothing was stored", 1),
            ClientError::Store(store) => match &**store {
                StoreError::Unavailable(_) | StoreError::Timeout(_) => {
                    tracing::warn!(%error, "store call failed");
                    Self::unavailable(
                        "the store does not answer; the request may have been carried out, so repeat it with the \
                         same Idempotency-Key",
                        1,
                    )
                }
                StoreError::Config { .. } => {
                    tracing::error!(%error, "store call failed");
                    Self::unavailable("the service is not set up correctly; its log has the details", 30)
                }
                StoreError::WorkerUnknown(_) | StoreError::Unexpected(_) => {
                    tracing::error!(%error, "store call failed");
                    Self::internal()
                }
            },
            _ => {
                tracing::error!(%error, "request failed");
                Self::internal()
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        ClientError::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // It consists of texts and numbers only, so it always can be written.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge.header());
        }
        if self.name_codings {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(Coding::KNOWN));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
