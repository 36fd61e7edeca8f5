//! From a call to a request, and from the answer back.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::{
        Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request as HttpRequest, Uri,
        header::{self, AUTHORIZATION, FORWARDED},
    },
    response::Response as HttpResponse,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use super::{memory::Taken, refusal::Refusal};
use crate::{
    ApiOptions,
    guard::REQUEST_ID,
    headers::Secure,
    problem::{FieldError, Problem},
    shed::Crowded,
};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// [`REQUEST_ID`], as metadata has it.
pub(super) const REQUEST_ID_KEY: &str = "x-request-id";
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The metadata that is the same as the header.
const PASSED: [HeaderName; 6] = [
    AUTHORIZATION,
    FORWARDED,
    IDEMPOTENCY_KEY,
    REQUEST_ID,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-forwarded-for"),
];

/// The routes of HTTP, which all services stand before.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    http: Router,
    /// How long the next message of a stream may take.
    pub(super) patience: Duration,
}

/// Who calls, and until when they want to hear the answer. Not to be shown, since it has their key.
#[derive(Clone)]
pub(super) struct Caller {
    headers: HeaderMap,
    extensions: Extensions,
    deadline: Option<Instant>,
    /// Of the message, for as long as there is work with it.
    _memory: Option<Taken>,
}

impl Caller {
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata().clone().into_headers();
        let mut headers = HeaderMap::new();
        for name in PASSED {
            for value in metadata.get_all(&name) {
                headers.append(&name, value.clone());
            }
        }
        let mut extensions = Extensions::new();
        if let Some(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
            extensions.insert(*peer);
        }
        if let Some(crowded) = request.extensions().get::<Crowded>() {
            extensions.insert(*crowded);
        }
        if let Some(secure) = request.extensions().get::<Secure>() {
            extensions.insert(*secure);
        }
        let patience = metadata.get(GRPC_TIMEOUT).and_then(read_timeout);
        Self {
            headers,
            extensions,
            deadline: patience.and_then(|patience| Instant::now().checked_add(patience)),
            _memory: request.extensions().get().cloned(),
        }
    }

    /// Streams take no idempotency key: it could not say which of their messages it means.
    pub(super) fn without_key(self) -> Result<Self, Status> {
        if self.headers.contains_key(IDEMPOTENCY_KEY) {
            let detail = "not for a stream: give each message its own, or leave it out";
            let error = FieldError { pointer: format!("header:{IDEMPOTENCY_KEY}"), detail: detail.into() };
            return Err(refused(&Problem::invalid(vec![error])));
        }
        Ok(self)
    }

    /// What comes of this, unless the caller gives up before.
    pub(super) async fn bounded<T>(&self, work: impl Future<Output = T>) -> Result<T, Status> {
        match self.deadline {
            None => Ok(work.await),
            Some(deadline) => timeout_at(deadline, work).await.map_err(|_| {
                Status::deadline_exceeded(
                    "the call's time is up; it may have been carried out, so repeat it with the same idempotency-key",
                )
            }),
        }
    }
}

/// `grpc-timeout`: up to eight digits and a unit. What is anything else is none.
fn read_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = number.parse::<u64>().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl Gateway {
    pub(super) fn new(http: Router, options: &ApiOptions) -> Self {
        Self { http, patience: options.request_timeout }
    }

    /// Sends a request, and gives its answer if that is a good one.
    pub(super) async fn send(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<HttpResponse, Box<Refusal>> {
        let mut request = HttpRequest::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| {
            Box::new(Refusal::from(&Problem::malformed("the names or values are too long to be asked for")))
        })?;
        *request.headers_mut() = caller.headers.clone();
        *request.extensions_mut() = caller.extensions.clone();
        if let Some(body) = body {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Body::from(body);
        }
        let response = match self.http.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(Box::new(Refusal::read(response).await))
        }
    }

    /// Sends a request within the caller's time, and gives what it answers, with its headers.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<(HeaderMap, T), Status> {
        let asking = async {
            let response =
                self.send(caller, method, path, body).await.map_err(|refusal| Status::from(*refusal))?;
            let (head, body) = response.into_parts();
            Ok((head.headers, read(&whole(body).await?)?))
        };
        caller.bounded(asking).await?
    }

    /// The same where the answer is the message.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Response<T>, Status> {
        let (headers, message) = self.ask(caller, method, path, body).await?;
        Ok(answer(&headers, message))
    }

    /// The same where there is nothing to be said but that it is done.
    pub(super) async fn order(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
    ) -> Result<Response<()>, Status> {
        let sent = caller.bounded(self.send(caller, method, path, None)).await?;
        Ok(answer(sent.map_err(|refusal| Status::from(*refusal))?.headers(), ()))
    }

    /// Begins an event stream of HTTP, within the caller's time.
    pub(super) async fn events(&self, caller: &Caller, path: &str) -> Result<(HeaderMap, Body), Status> {
        let begun = caller.bounded(self.send(caller, Method::GET, path, None)).await?;
        let (head, body) = begun.map_err(|refusal| Status::from(*refusal))?.into_parts();
        Ok((head.headers, body))
    }

    /// Whether jobs are accepted.
    pub(super) async fn is_ready(&self) -> bool {
        let mut request = HttpRequest::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/readyz");
        match self.http.clone().oneshot(request).await {
            Ok(response) => response.status().is_success(),
            Err(never) => match never {},
        }
    }
}

/// An answer, with what the caller may look for in the log.
pub(super) fn answer<T>(headers: &HeaderMap, message: T) -> Response<T> {
    let mut response = Response::new(message);
    let id = headers.get(REQUEST_ID_KEY).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    if let Some(id) = id {
        response.metadata_mut().insert(REQUEST_ID_KEY, id);
    }
    response
}

/// The whole of an answer's body, which is one of our own.
pub(super) async fn whole(body: Body) -> Result<Bytes, Status> {
    axum::body::to_bytes(body, usize::MAX).await.map_err(|error| broken(&error))
}

/// Reads an answer of our own.
pub(super) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(json).map_err(|error| broken(&error))
}

fn broken(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "an answer cannot be told over gRPC");
    refused(&Problem::internal())
}

/// Writes a message as a request's body.
pub(super) fn write(message: &impl Serialize) -> Result<String, Status> {
    serde_json::to_string(message).map_err(|error| refused(&Problem::malformed(error.to_string())))
}

/// A field that must be there.
pub(super) fn required<T>(field: Option<T>, name: &str) -> Result<T, Status> {
    field.ok_or_else(|| refused(&Problem::invalid(vec![FieldError::new(name, "required")])))
}

pub(super) fn refused(problem: &Problem) -> Status {
    Refusal::from(problem).into()
}

/// The path of something that has a name: `before`, the name, `after`.
pub(super) fn path_of(before: &str, name: &str, after: &str) -> Result<String, Status> {
    path_by(before, "name", name, after)
}

/// The same where the name is in another field.
pub(super) fn path_by(before: &str, field: &str, name: &str, after: &str) -> Result<String, Status> {
    required(Some(name).filter(|name| !name.is_empty()), field)?;
    Ok(format!("{before}{}{after}", utf8_percent_encode(name, NON_ALPHANUMERIC)))
}

/// The path of something that has an id.
pub(super) fn path_by_id<T>(before: &str, id: &str, after: &str) -> Result<String, Status>
where
    T: std::str::FromStr<Err: std::fmt::Display> + std::fmt::Display,
{
    // What is no id could be another route.
    let id = id.parse::<T>().map_err(|error| refused(&Problem::malformed(error.to_string())))?;
    Ok(format!("{before}{id}{after}"))
}

/// A path with parameters.
#[derive(Debug)]
pub(super) struct Query(String);

impl Query {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    pub(super) fn add(&mut self, name: &str, value: impl AsRef<str>) {
        let separator = if self.0.contains('?') { '&' } else { '?' };
        let value = utf8_percent_encode(value.as_ref(), NON_ALPHANUMERIC);
        self.0.extend([&*separator.to_string(), name, "="]);
        self.0.extend(value);
    }

    /// The same where it may be missing.
    pub(super) fn add_some(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Which page, and how much is on it.
    pub(super) fn add_page(&mut self, cursor: Option<&str>, limit: Option<u32>) {
        self.add_some("cursor", cursor);
        self.add_some("limit", limit.map(|limit| limit.to_string()));
    }

    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let read = |text| read_timeout(&HeaderValue::from_static(text));
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0S", Some(Duration::ZERO)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_no_longer_than_they_said() {
        let mut request = Request::new(());
        request.metadata_mut().insert("grpc-timeout", "2S".parse().unwrap());
        let caller = Caller::of(&request);
        assert_eq!(caller.bounded(async { 1 }).await.unwrap(), 1);
        let began = Instant::now();
        let late = caller.bounded(std::future::pending::<()>()).await.unwrap_err();
        assert_eq!((late.code(), began.elapsed()), (tonic::Code::DeadlineExceeded, Duration::from_secs(2)));
    }

    #[test]
    fn of_the_metadata_only_what_is_meant_is_passed_on() {
        let mut request = Request::new(());
        for (name, value) in
            [("authorization", "Bearer x"), ("content-type", "application/grpc"), ("te", "trailers")]
        {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        request.metadata_mut().insert("idempotency-key", "k".parse().unwrap());
        let caller = Caller::of(&request);
        let mut passed = caller.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>();
        passed.sort_unstable();
        assert_eq!(passed, ["authorization", "idempotency-key"]);
        assert_eq!(
            caller.without_key().err().map(|status| status.code()),
            Some(tonic::Code::InvalidArgument)
        );
    }

    #[test]
    fn names_and_values_are_escaped() {
        assert_eq!(path_of("/v1/queues/", "a/b?c", "/pause").unwrap(), "/v1/queues/a%2Fb%3Fc/pause");
        assert_eq!(path_of("/v1/queues/", "", "/pause").unwrap_err().code(), tonic::Code::InvalidArgument);
        let mut query = Query::new("/v1/jobs");
        query.add("label", "a:b&c=é");
        query.add_some("queue", None::<&str>);
        query.add_page(None, Some(5));
        assert_eq!(query.path(), "/v1/jobs?label=a%3Ab%26c%3D%C3%A9&limit=5");
    }

    #[test]
    fn what_is_no_id_is_no_path() {
        let path = |id: &str| path_by_id::<windlass_core::JobId>("/v1/jobs/", id, "");
        for id in ["", "events", "batch", "../queues"] {
            assert_eq!(path(id).unwrap_err().code(), tonic::Code::InvalidArgument, "{id:?}");
        }
        let id = windlass_core::JobId::new();
        assert_eq!(path(&id.to_string()).unwrap(), format!("/v1/jobs/{id}"));
    }
}
