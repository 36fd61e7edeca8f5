use std::error::Error;
use std::io;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use windlass_core::BrokerError;

use super::DEADLINE;
use super::address::Address;

/// Why something cannot be done: a [`BrokerError`] that can be told to several callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// There is no such queue, perhaps no longer.
    NoQueue,
    /// Passes by itself.
    Outage(String),
    /// No answer in time.
    Late,
    /// Not this one, not now.
    Refused(String),
    /// Someone has to change something.
    Config { problem: String, remedy: String },
}

impl Problem {
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, address: &Address) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Self::Late,
            SdkError::ServiceError(service) => {
                let (meta, status) = (service.err().meta(), service.raw().status().as_u16());
                match meta.code() {
                    Some(code) => Self::by_code(code, meta.message().unwrap_or_default(), status, address),
                    None => Self::strange(status, address),
                }
            }
            SdkError::ResponseError(response) => Self::strange(response.raw().status().as_u16(), address),
            _ => Self::unsent(error, address),
        }
    }

    /// What SQS itself says, of a request or of an entry in a batch.
    pub(super) fn by_code(code: &str, message: &str, status: u16, address: &Address) -> Self {
        // Some names come with a namespace.
        let name = code.rsplit(['.', '#']).next().unwrap_or(code);
        match name {
            "QueueDoesNotExist" | "NonExistentQueue" => Self::NoQueue,
            "QueueDeletedRecently" => {
                Self::Refused("a queue of that name was deleted within the last 60 seconds".into())
            }
            "QueueNameExists" | "QueueAlreadyExists" => Self::Config {
                problem: format!("broker_url: {address} has a queue with other settings: {message}"),
                remedy: "delete that queue (unfinished jobs are published again) or use another prefix".into(),
            },
            // Without the message: that of a wrong signature repeats what was signed.
            "InvalidClientTokenId"
            | "UnrecognizedClientException"
            | "InvalidAccessKeyId"
            | "InvalidSecurity"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "AuthFailure"
            | "OptInRequired"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired" => Self::unknown_credentials(name, address),
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => Self::Config {
                problem: format!("broker_url: a right is missing at {address}: {message}"),
                remedy: "allow sqs:GetQueueUrl, GetQueueAttributes, CreateQueue, TagQueue, SendMessage, \
                         ReceiveMessage, DeleteMessage, ChangeMessageVisibility and DeleteQueue on the queues with \
                         the prefix"
                    .into(),
            },
            _ if name.starts_with("Kms") && name != "KmsThrottled" => Self::Config {
                problem: format!("broker_url: {address} cannot use the queue's encryption key: {message}"),
                remedy: "enable the key, and allow kms:GenerateDataKey and kms:Decrypt on it".into(),
            },
            _ if status >= 500 || name.contains("Throttl") || name == "OverLimit" => {
                Self::Outage(format!("{address}: {name}: {message}"))
            }
            "UnknownOperationException" | "InvalidAction" | "UnsupportedOperation" => Self::no_sqs(address),
            _ => Self::Refused(format!("{name}: {message}")),
        }
    }

    /// An answer that SQS would not give.
    fn strange(status: u16, address: &Address) -> Self {
        if status >= 500 {
            return Self::Outage(format!("{address} answers with status {status}"));
        }
        if matches!(status, 401 | 403) {
            // Moto, for one, says so in another format than it was asked in.
            return Self::unknown_credentials(&format!("status {status}"), address);
        }
        Self::no_sqs(address)
    }

    fn unknown_credentials(reason: &str, address: &Address) -> Self {
        Self::Config {
            problem: format!("broker_url: {address} refused the AWS credentials ({reason})"),
            remedy: "check the credentials that the process finds in its environment, profile or role, that they are \
                     for this region and not expired, and that the clock is right"
                .into(),
        }
    }

    fn no_sqs(address: &Address) -> Self {
        Self::Config {
            problem: format!("broker_url: what answers at {address} is not SQS"),
            remedy: "check the endpoint, or leave it out to use AWS's own".into(),
        }
    }

    /// No answer at all.
    fn unsent(error: &(dyn Error + 'static), address: &Address) -> Self {
        let text = sources(error).map(ToString::to_string).collect::<Vec<_>>().join(": ");
        match sources(error).find_map(|error| error.downcast_ref::<CredentialsError>()) {
            Some(CredentialsError::CredentialsNotLoaded(_)) => {
                return Self::Config {
                    problem: format!("broker_url names {address}, but no AWS credentials were found"),
                    remedy: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, or give the machine a role"
                        .into(),
                };
            }
            Some(CredentialsError::InvalidConfiguration(_)) => {
                return Self::Config {
                    problem: format!(
                        "broker_url names {address}, but the AWS credentials cannot be read: {text}"
                    ),
                    remedy: "mend the AWS configuration files or variables".into(),
                };
            }
            _ => {}
        }
        for error in sources(error) {
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
                return Self::no_sqs(address);
            }
            if error.downcast_ref::<io::Error>().is_some_and(is_of_tls) {
                return Self::Config {
                    problem: format!("broker_url: no secure connection to {address}: {error}"),
                    remedy: "check that the endpoint speaks TLS, or write it with http:, and that its certificate is \
                             valid for the host"
                        .into(),
                };
            }
        }
        Self::Outage(format!("{address}: {text}"))
    }
}

/// That error comes wrapped in another of its kind.
fn is_of_tls(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>());
    inner.unwrap_or(error).kind() == io::ErrorKind::InvalidData
}

fn sources<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

impl From<Problem> for BrokerError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::NoQueue => Self::Refused("the queue vanished".into()),
            Problem::Outage(text) => Self::Unavailable(text.into()),
            Problem::Late => Self::Timeout(DEADLINE),
            Problem::Refused(text) => Self::Refused(text),
            Problem::Config { problem, remedy } => Self::Config { problem, remedy },
        }
    }
}
