use std::fmt;
use std::time::Duration;

use url::Url;
use windlass_core::BrokerError;

/// The longest that SQS lets a receive wait for a message.
const LONGEST_WAIT: u64 = 20;

/// What `broker_url` says. There are no secrets in it.
#[derive(Debug)]
pub(super) struct Address {
    /// None leaves it to the environment, as usual with AWS.
    pub(super) region: Option<String>,
    /// In place of AWS's own.
    pub(super) endpoint: Option<String>,
    /// What the names of the queues begin with.
    pub(super) prefix: String,
    pub(super) fifo: bool,
    /// How long a receive waits at the server.
    pub(super) wait: Duration,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let invalid = |problem: &str| {
            BrokerError::Config {
            problem: format!("broker_url {problem}"),
            remedy: "write it as sqs://region, with any of ?prefix=…&fifo=true&wait=1…20&endpoint=http://… after it"
                .into(),
        }
        };
        let url = Url::parse(url).map_err(|_| invalid("is not a valid URL"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BrokerError::Config {
                problem: "broker_url has credentials in it, which SQS takes from elsewhere".into(),
                remedy:
                    "leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"
                        .into(),
            });
        }
        if url.port().is_some() || !matches!(url.path(), "" | "/") || url.fragment().is_some() {
            return Err(invalid("has more in it than a region and parameters"));
        }
        let region = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
        let mut address = Self {
            region,
            endpoint: None,
            prefix: "windlass".into(),
            fifo: false,
            wait: Duration::from_secs(LONGEST_WAIT),
        };
        for (name, value) in url.query_pairs() {
            match &*name {
                "endpoint" => {
                    let endpoint = Url::parse(&value).ok().filter(is_plain_http);
                    let endpoint =
                        endpoint.ok_or_else(|| invalid("has an endpoint that is no http(s) URL"))?;
                    address.endpoint = Some(endpoint.into());
                }
                "prefix" if is_prefix(&value) => address.prefix = value.into(),
                "prefix" => {
                    return Err(invalid("has a prefix other than 1 to 20 letters, digits, '-' and '_'"));
                }
                "fifo" => {
                    address.fifo =
                        value.parse().map_err(|_| invalid("has a fifo other than true or false"))?
                }
                "wait" => {
                    let wait = value.parse().ok().filter(|wait| (1..=LONGEST_WAIT).contains(wait));
                    let wait = wait.ok_or_else(|| invalid("has a wait other than 1 to 20 seconds"))?;
                    address.wait = Duration::from_secs(wait);
                }
                _ => return Err(invalid(&format!("has a parameter {name:?} that SQS does not know"))),
            }
        }
        if address.endpoint.is_some() && address.region.is_none() {
            return Err(invalid("has an endpoint but no region, which its requests are signed for"));
        }
        Ok(address)
    }

    /// Without TLS it is not AWS, and nothing that could check credentials.
    pub(super) fn is_emulator(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http:"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.endpoint, &self.region) {
            (Some(endpoint), _) => f.write_str(endpoint),
            (None, Some(region)) => write!(f, "SQS in {region}"),
            (None, None) => f.write_str("SQS"),
        }
    }
}

fn is_plain_http(url: &Url) -> bool {
    let secret = !url.username().is_empty() || url.password().is_some() || url.query().is_some();
    matches!(url.scheme(), "http" | "https") && !secret
}

fn is_prefix(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=20).contains(&text.len()) && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_documented() {
        let address = Address::parse("sqs://eu-west-1").unwrap();
        assert_eq!(address.region.as_deref(), Some("eu-west-1"));
        assert_eq!((address.prefix.as_str(), address.fifo, address.wait.as_secs()), ("windlass", false, 20));
        let address =
            Address::parse("sqs://x?endpoint=http://[::1]:9324&prefix=a-b_C&fifo=true&wait=5").unwrap();
        assert_eq!(address.endpoint.as_deref(), Some("http://[::1]:9324/"));
        assert_eq!((address.prefix.as_str(), address.fifo, address.wait.as_secs()), ("a-b_C", true, 5));
        assert!(address.is_emulator());
        for url in ["sqs:", "sqs://", "sqs://?wait=1"] {
            assert_eq!(Address::parse(url).unwrap().region, None, "{url}");
        }
    }

    #[test]
    fn refuses_the_rest_without_repeating_secrets() {
        for url in [
            "sqs://key:s3cret@eu-west-1",
            "sqs://eu-west-1:80",
            "sqs://eu-west-1/queue",
            "sqs://eu-west-1?prefix=a.b",
            "sqs://eu-west-1?prefix=",
            "sqs://eu-west-1?fifo=yes",
            "sqs://eu-west-1?wait=0",
            "sqs://eu-west-1?wait=21",
            "sqs://eu-west-1?secret=s3cret",
            "sqs://eu-west-1?endpoint=http://key:s3cret@host",
            "sqs://eu-west-1?endpoint=host:9324",
            "sqs://?endpoint=http://localhost:9324",
        ] {
            let error = Address::parse(url).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(text.contains("broker_url") && !text.contains("s3cret"), "{url}: {text}");
        }
    }
}
