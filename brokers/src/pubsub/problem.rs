use std::error::Error;
use std::io;
use std::time::Duration;

use tonic::{Code, Status};
use windlass_core::BrokerError;

use super::address::Address;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers, and what is an answer rather
/// than an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// There is no such topic or subscription.
    NotFound(String),
    /// There is one already.
    Exists,
    /// Passes by itself.
    Outage(String),
    /// No answer in this time. Passes by itself.
    Silence(Duration),
    /// Someone has to change something.
    Config { problem: String, remedy: String },
}

impl Problem {
    pub(super) fn config(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Config { problem: problem.into(), remedy: remedy.into() }
    }

    pub(super) fn retryable(&self) -> bool {
        !matches!(self, Self::Config { .. })
    }

    /// What a failed call says.
    pub(super) fn of(status: &Status, address: &Address) -> Self {
        let said = status.message();
        match status.code() {
            Code::NotFound => Self::NotFound(said.into()),
            Code::AlreadyExists => Self::Exists,
            Code::Unauthenticated => Self::config(
                format!("broker_url: {address} refused the login: {said}"),
                "check the application default credentials of this process (GOOGLE_APPLICATION_CREDENTIALS)",
            ),
            Code::PermissionDenied => Self::config(
                format!("broker_url: a right is missing at {address}: {said}"),
                "give the account of this process the role Pub/Sub Editor (roles/pubsub.editor) in the project",
            ),
            Code::InvalidArgument | Code::FailedPrecondition => Self::config(
                format!("broker_url: {address} refuses the request: {said}"),
                "check the project's name and its settings for Pub/Sub",
            ),
            Code::Unimplemented => Self::no_pubsub(address, said),
            _ => match cause(status) {
                Cause::Tls(error) => Self::config(
                    format!("broker_url: no secure connection to {address}: {error}"),
                    "check that the endpoint is right and that its certificate is valid for the host",
                ),
                Cause::Protocol(error) => Self::no_pubsub(address, &error),
                Cause::Other(error) => Self::Outage(format!("{address}: {error}")),
            },
        }
    }

    fn no_pubsub(address: &Address, said: &str) -> Self {
        Self::config(
            format!("broker_url: what answers is not Pub/Sub at {address}: {said}"),
            "check the endpoint, and PUBSUB_EMULATOR_HOST if that is set",
        )
    }

    /// Not to find what is to be created, or the list of all topics, is not to find the project.
    pub(super) fn no_project(self, address: &Address) -> Self {
        match self {
            Self::NotFound(said) => Self::config(
                format!("broker_url: no project for {address}: {said}"),
                "check the project's name, and that the account of this process has access to it",
            ),
            other => other,
        }
    }
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NotFound(said) => Self::Unavailable(format!("it vanished meanwhile: {said}").into()),
            Problem::Exists => Self::Unavailable("it was made by somebody else meanwhile".into()),
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Silence(deadline) => Self::Timeout(deadline),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
        }
    }
}

enum Cause {
    Tls(String),
    Protocol(String),
    Other(String),
}

/// What is at the bottom of a status that the transport made up.
fn cause(status: &Status) -> Cause {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut next = status.source();
    while let Some(error) = next {
        text = error.to_string();
        if error.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) {
            return Cause::Tls(text);
        }
        // What came is no HTTP/2.
        if error
            .downcast_ref::<h2::Error>()
            .is_some_and(|h2| h2.reason() == Some(h2::Reason::FRAME_SIZE_ERROR))
        {
            return Cause::Protocol(text);
        }
        next = error.source();
    }
    Cause::Other(text)
}
