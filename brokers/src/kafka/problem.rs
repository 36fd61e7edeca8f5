use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::types::RDKafkaConfRes;
use windlass_core::BrokerError;

use super::DEADLINE;
use super::address::Address;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Passes by itself.
    Outage(String),
    /// No answer in time.
    Late,
    /// Someone has to change something.
    Config { problem: String, remedy: String },
    /// Closed by this process.
    Closed,
}

impl Problem {
    /// What the brokers, or the way to them, have against a request about `subject`.
    pub(super) fn of(code: Code, subject: &str, address: &Address) -> Self {
        match code {
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Self::Config {
                problem: format!("broker_url: user {:?} lacks a right on {subject}: {code}", address.user()),
                remedy: "give the user all rights on topics and groups whose names begin with `windlass.`, and \
                         IdempotentWrite on the cluster where its brokers are older than 3.0"
                    .into(),
            },
            Code::InvalidReplicationFactor => Self::Config {
                problem: format!("broker_url: {subject} cannot have replication={}", address.replication),
                remedy: "set replication in broker_url to at most the number of brokers".into(),
            },
            Code::InvalidPartitions | Code::PolicyViolation | Code::InvalidTopic => Self::Config {
                problem: format!("broker_url: the brokers refuse to make {subject}: {code}"),
                remedy: "set partitions and replication in broker_url as the cluster's policy wants them, and name \
                         no two queues alike but for `.` and `_`"
                    .into(),
            },
            Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidRecord => Self::Config {
                problem: format!("broker_url: {subject} exists there with settings that refuse messages: {code}"),
                remedy: "give that topic back its defaults (`max.message.bytes` must allow 1 KiB), or delete it: \
                         unfinished jobs are published again"
                    .into(),
            },
            Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut => Self::Late,
            Code::BrokerTransportFailure => Self::disconnected(&format!("{subject}: {code}"), address),
            _ => Self::Outage(format!("{subject}: {code}")),
        }
    }

    /// An error event of a client, which says more than the code of a call that failed later because of it.
    pub(super) fn event(code: Code, reason: &str, address: &Address) -> Option<Self> {
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism => {
                Some(Self::Config {
                    problem: format!("broker_url: {address} refused the login of user {:?}: {reason}", address.user()),
                    remedy: "check the user name, the password and sasl.mechanism".into(),
                })
            }
            Code::SSL => Some(Self::Config {
                problem: format!("broker_url: no secure connection to {address}: {reason}"),
                remedy: "check that the port speaks TLS, that its certificate is valid for the host, and ssl.ca.location"
                    .into(),
            }),
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Some(Self::of(code, reason, address))
            }
            // The other side does not even know what a handshake is, or is not who it should be: which of several lines
            // comes last is chance.
            Code::BrokerTransportFailure
                if reason.contains("SSL handshake failed") || reason.contains("certificate verify failed") =>
            {
                Self::event(Code::SSL, reason, address)
            }
            Code::BrokerTransportFailure => Some(Self::disconnected(reason, address)),
            Code::Resolve => Some(Self::Outage(reason.into())),
            _ => None,
        }
    }

    fn disconnected(reason: &str, address: &Address) -> Self {
        // Brokers that want a login and get none close the connection, and that is all there is to see of it.
        let hint =
            if address.has_login() { "" } else { "; if they want a login or TLS, broker_url must have it" };
        Self::Outage(format!("{reason}{hint}"))
    }

    /// A client that could not be made: the settings are at fault.
    pub(super) fn making(error: &KafkaError) -> Self {
        let (problem, remedy) = match error {
            // Its text has the value, which may be a password.
            KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, name, _) => (
                format!("broker_url sets {name}, which librdkafka does not know"),
                format!("leave {name} out"),
            ),
            KafkaError::ClientConfig(_, _, name, _) => (
                format!("broker_url gives {name} a value that librdkafka does not take"),
                format!("see librdkafka's CONFIGURATION.md for {name}"),
            ),
            error => (
                format!("broker_url: librdkafka does not take its settings: {error}"),
                "change the settings in broker_url".into(),
            ),
        };
        Self::Config { problem, remedy }
    }

    pub(super) const fn is_config(&self) -> bool {
        matches!(self, Self::Config { .. })
    }
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Late => Self::Timeout(DEADLINE),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
            Problem::Closed => Self::Closed,
        }
    }
}
