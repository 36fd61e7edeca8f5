use std::error::Error;
use std::io;
use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind};
use windlass_core::BrokerError;

use super::address::Address;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Passes by itself.
    Outage(String),
    /// No answer in time.
    Timeout(Duration),
    /// A message was not taken.
    Refused(String),
    /// Someone has to change something.
    Config { problem: String, remedy: String },
    /// Closed by this process.
    Closed,
}

impl Problem {
    /// An error while connecting.
    pub(super) fn connecting(error: &ConnectError, address: &Address) -> Self {
        let chain = || std::iter::successors(error.source(), |error| (*error).source());
        let insecure = chain()
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|io| io.kind() == io::ErrorKind::InvalidData);
        let text = chain().fold(error.to_string(), |text, source| {
            let source = source.to_string();
            if text.contains(&source) { text } else { format!("{text}: {source}") }
        });
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                Self::login_refused(address)
            }
            _ if text.contains("invalid server operation") => Self::other_protocol(address),
            _ if insecure => Self::Config {
                problem: format!("broker_url: no secure connection to {address}: {text}"),
                remedy: "check that the port speaks TLS and that its certificate is valid for the host"
                    .into(),
            },
            _ => Self::Outage(format!("{address}: {text}")),
        }
    }

    pub(super) fn login_refused(address: &Address) -> Self {
        Self::Config {
            problem: format!("broker_url: {address} refused the login {}", address.who()),
            remedy: "check the user name and the password, or the token".into(),
        }
    }

    fn other_protocol(address: &Address) -> Self {
        Self::Config {
            problem: format!("broker_url: what answers at {address} does not speak the NATS protocol"),
            remedy: "check host and port".into(),
        }
    }

    /// A subject that the user may not use.
    pub(super) fn right(text: &str) -> Self {
        Self::Config {
            problem: format!("broker_url: the user lacks a right: {text}"),
            remedy: "let the user publish to windlass.>, $JS.API.STREAM.*.windlass, $JS.API.CONSUMER.> and \
                     $JS.ACK.windlass.>, and subscribe to _INBOX.>"
                .into(),
        }
    }

    pub(super) fn no_jetstream(address: &Address) -> Self {
        Self::Config {
            problem: format!("broker_url: {address} has no JetStream for this user's account"),
            remedy: "enable JetStream in the server's configuration, and for the account".into(),
        }
    }
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Timeout(time) => Self::Timeout(time),
            Problem::Refused(text) => Self::Refused(text),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
            Problem::Closed => Self::Closed,
        }
    }
}
