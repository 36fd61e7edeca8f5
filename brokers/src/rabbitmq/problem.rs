use std::io;

use lapin::ErrorKind;
use windlass_core::BrokerError;

use super::address::Address;

/// What AMQP 0-9-1 calls its errors.
pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
pub(super) const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Passes by itself.
    Outage(String),
    /// Someone has to change something.
    Config { problem: String, remedy: String },
    /// Closed by this process.
    Closed,
}

impl Problem {
    /// An error while connecting.
    pub(super) fn connecting(error: &lapin::Error, address: &Address) -> Self {
        match (code(error), error.kind()) {
            (Some(ACCESS_REFUSED), _) | (_, ErrorKind::AuthProviderError(_)) => Self::Config {
                problem: format!("broker_url: {address} refused the login of user {:?}", address.user()),
                remedy: "check the user name and the password".into(),
            },
            (Some(NOT_ALLOWED), _) => Self::Config {
                problem: format!(
                    "broker_url: {address} refused virtual host {:?} to user {:?}",
                    address.vhost(),
                    address.user()
                ),
                remedy: "create the virtual host and give the user rights to it, or name another".into(),
            },
            (_, ErrorKind::IOError(io)) if io.kind() == io::ErrorKind::InvalidData => Self::Config {
                problem: format!("broker_url: no secure connection to {address}: {io}"),
                remedy:
                    "check that the port speaks TLS (amqps), that its certificate is valid for the host, and cacertfile"
                        .into(),
            },
            _ => Self::Outage(format!("{address}: {error}")),
        }
    }
}

impl From<lapin::Error> for Problem {
    /// An error on a connection that stands.
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(amqp) if amqp.get_id() == ACCESS_REFUSED => Self::Config {
                problem: format!("broker_url: the user lacks a right: {}", amqp.get_message()),
                remedy: "give the user the rights to configure, write and read `windlass.*`".into(),
            },
            _ => Self::Outage(error.to_string()),
        }
    }
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
            Problem::Closed => Self::Closed,
        }
    }
}

/// The broker's reply code, if it is the broker that complains.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(amqp) => Some(amqp.get_id()),
        _ => None,
    }
}
