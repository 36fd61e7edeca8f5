//! JetStream's interface: requests in JSON, over subjects.

use async_nats::{Client, RequestErrorKind};
use serde_json::Value;

use super::link::Link;
use super::problem::Problem;

/// What JetStream calls its errors.
pub(super) const CONSUMER_NOT_FOUND: u64 = 10014;
pub(super) const STREAM_NAME_TAKEN: u64 = 10058;
pub(super) const STREAM_NOT_FOUND: u64 = 10059;
const NOT_ENABLED: [u64; 2] = [10039, 10076];

/// Why a request failed.
#[derive(Debug)]
pub(super) enum ApiError {
    /// JetStream says so.
    Refused { code: u64, status: u64, text: String },
    /// It did not come to that.
    Problem(Problem),
}

/// Asks JetStream for something.
pub(super) async fn ask(link: &Link, subject: &str, question: &Value) -> Result<Value, ApiError> {
    let subject = format!("$JS.API.{subject}");
    let question = if question.is_null() { Vec::new() } else { question.to_string().into_bytes() };
    let asked = link.run(|client: Client| async move { request(&client, subject, question).await }).await;
    match asked.map_err(ApiError::Problem)? {
        Some(answer) => read(&answer),
        // A server with JetStream answers everything; another one of its cluster may just be down.
        None => Err(ApiError::Problem(unanswered(link).await)),
    }
}

/// One request, and its answer; none when nothing listens to the subject.
pub(super) async fn request(
    client: &Client,
    subject: String,
    payload: Vec<u8>,
) -> Result<Option<Vec<u8>>, Problem> {
    match client.request(subject, payload.into()).await {
        Ok(answer) => Ok(Some(answer.payload.into())),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(None),
        Err(error) => Err(Problem::Outage(error.to_string())),
    }
}

/// Reads an answer that may be an error.
pub(super) fn read(answer: &[u8]) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(answer)
        .map_err(|_| ApiError::Problem(Problem::Outage("the broker's answer makes no sense".into())))?;
    let Some(error) = answer.get("error") else { return Ok(answer) };
    let number = |name: &str| error.get(name).and_then(Value::as_u64).unwrap_or_default();
    let text = error.get("description").and_then(Value::as_str).unwrap_or("no reason given");
    Err(ApiError::Refused { code: number("err_code"), status: number("code"), text: text.into() })
}

/// What it means that nothing listens where JetStream should.
pub(super) async fn unanswered(link: &Link) -> Problem {
    match link.client().await {
        Ok(client) if !client.server_info().jetstream => Problem::no_jetstream(link.address()),
        Ok(_) => Problem::Outage("JetStream does not answer".into()),
        Err(problem) => problem,
    }
}

impl ApiError {
    pub(super) fn is(&self, code: u64) -> bool {
        matches!(self, Self::Refused { code: found, .. } if *found == code)
    }

    /// As a problem with `what`.
    pub(super) fn concerning(self, link: &Link, what: &str) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Refused { code, .. } if NOT_ENABLED.contains(&code) => {
                Problem::no_jetstream(link.address())
            }
            // What the server counts as its own trouble passes.
            Self::Refused { status: 408 | 429 | 500.., text, .. } => {
                Problem::Outage(format!("{what}: {text}"))
            }
            Self::Refused { text, code, .. } => Problem::Config {
                problem: format!("broker_url: NATS refuses {what}: {text} (error {code})"),
                remedy:
                    "delete what is in the way (unfinished jobs are published again), lift the limit, or use \
                         another account"
                        .into(),
            },
        }
    }
}
