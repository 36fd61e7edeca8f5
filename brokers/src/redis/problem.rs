use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError};
use windlass_core::BrokerError;

use super::address::Address;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Passes by itself.
    Outage(String),
    /// No answer in time.
    Timeout(Duration),
    /// Someone has to change something.
    Config { problem: String, remedy: String },
    /// Closed by this process.
    Closed,
}

impl Problem {
    /// An error while connecting.
    pub(super) fn connecting(error: &RedisError, address: &Address) -> Self {
        // The library wraps what it passes on.
        let source = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
        let insecure = source.and_then(|source| source.downcast_ref::<io::Error>());
        match (code(error), error.kind()) {
            ("WRONGPASS" | "NOAUTH", _) => Self::Config {
                problem: format!("broker_url: {address} refused the login of user {:?}", address.user()),
                remedy: "check the user name and the password".into(),
            },
            (_, ErrorKind::Parse) => Self::Config {
                problem: format!("broker_url: what answers at {address} does not speak the Redis protocol"),
                remedy: "check host and port, and whether the port wants TLS (rediss)".into(),
            },
            _ if insecure.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) => Self::Config {
                problem: format!("broker_url: no secure connection to {address}: {error}"),
                remedy:
                    "check that the port speaks TLS (rediss) and that its certificate is valid for the host"
                        .into(),
            },
            _ => match Self::from(error) {
                Self::Outage(text) if error.is_connection_dropped() && !error.is_connection_refusal() => {
                    // What a port for TLS does, too, to those who speak without.
                    let hint = if address.tls() { "" } else { "; does the port want TLS (rediss)?" };
                    Self::Outage(format!("{address}: {text}{hint}"))
                }
                Self::Outage(text) => Self::Outage(format!("{address}: {text}")),
                other => other,
            },
        }
    }

    /// No answer while connecting.
    pub(super) fn silent(address: &Address, time: Duration) -> Self {
        // What a port without TLS does, too, to those who speak it.
        let hint = if address.tls() { "; does the port speak TLS?" } else { "" };
        Self::Outage(format!("{address} did not answer within {time:?}{hint}"))
    }
}

impl From<&RedisError> for Problem {
    fn from(error: &RedisError) -> Self {
        let config = |problem: &str, remedy: &str| Self::Config {
            problem: format!("broker_url: {problem}: {error}"),
            remedy: remedy.into(),
        };
        match code(error) {
            "NOPERM" => config(
                "the user lacks a right",
                "give the user `~windlass.* +@stream +@scripting +unlink +ping +select`",
            ),
            "NOAUTH" | "WRONGPASS" => {
                config("the login is not valid any more", "check the user name and the password")
            }
            "WRONGTYPE" => config(
                "a key with a lane's name exists there, and is no stream",
                "delete that key or use another database",
            ),
            "MOVED" | "ASK" | "CROSSSLOT" => {
                config("the server is part of a cluster", "use a Redis server that is not in cluster mode")
            }
            _ => Self::Outage(error.to_string()),
        }
    }
}

impl From<RedisError> for Problem {
    fn from(error: RedisError) -> Self {
        Self::from(&error)
    }
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Timeout(time) => Self::Timeout(time),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
            Problem::Closed => Self::Closed,
        }
    }
}

/// The first word of the server's error, if it is the server that complains.
pub(super) fn code(error: &RedisError) -> &str {
    error.code().unwrap_or_default()
}
