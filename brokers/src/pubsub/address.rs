use std::fmt;

use tonic::transport::{ClientTlsConfig, Endpoint, Uri};
use url::Url;
use windlass_core::{BrokerError, Lane};

use super::DEADLINE;

const SERVICE: &str = "https://pubsub.googleapis.com";
/// Between probes of a connection on which nothing moves, as while all pulls wait.
const PROBE: std::time::Duration = std::time::Duration::from_secs(15);

/// Whose lanes, where they are, and what they are called.
pub(super) struct Address {
    project: String,
    prefix: String,
    endpoint: Endpoint,
    /// Over TLS with a login, or else an emulator.
    pub(super) secure: bool,
}

impl Address {
    /// `emulator` is what `PUBSUB_EMULATOR_HOST` says; an endpoint in the URL goes before it.
    pub(super) fn parse(url: &str, emulator: Option<&str>) -> Result<Self, BrokerError> {
        let parsed = Url::parse(url).map_err(|_| wrong("is not a valid URL"))?;
        let bare =
            matches!(parsed.path(), "" | "/") && parsed.port().is_none() && parsed.fragment().is_none();
        if !bare || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("has more in it than a project and parameters"));
        }
        let project = parsed.host_str().unwrap_or_default().replace("%3A", ":").replace("%3a", ":");
        if project.is_empty() || !project.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b)) {
            return Err(wrong("names no valid project"));
        }
        let (mut endpoint, mut prefix) = (None, String::new());
        for (name, value) in parsed.query_pairs() {
            match &*name {
                "endpoint" => endpoint = Some(value.into_owned()),
                "prefix" => prefix = value.into_owned(),
                _ => return Err(wrong("has a parameter other than endpoint and prefix")),
            }
        }
        if !valid_prefix(&prefix) {
            return Err(wrong(
                "has an invalid prefix: up to 100 letters, digits and any of -_.~+, a letter first, and not goog",
            ));
        }
        let (endpoint, secure) = match (endpoint.as_deref(), emulator) {
            (Some(endpoint), _) => locate(endpoint).ok_or_else(|| wrong("has an invalid endpoint"))?,
            (None, Some(host)) if !host.is_empty() => locate(host).ok_or_else(|| BrokerError::Config {
                problem: "broker_url names Pub/Sub, and PUBSUB_EMULATOR_HOST is not a valid address".into(),
                remedy: "set it to host:port, or unset it to use the service".into(),
            })?,
            (None, _) => (Endpoint::from_static(SERVICE), true),
        };
        Ok(Self { project, prefix, endpoint: settings(endpoint, secure)?, secure })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn uri(&self) -> &Uri {
        self.endpoint.uri()
    }

    pub(super) fn project(&self) -> String {
        format!("projects/{}", self.project)
    }

    // All that is allowed in a queue's name is allowed in those of Pub/Sub.

    pub(super) fn topic(&self, lane: &Lane) -> String {
        format!("projects/{}/topics/{}{lane}", self.project, self.prefix)
    }

    pub(super) fn subscription(&self, lane: &Lane) -> String {
        format!("projects/{}/subscriptions/{}{lane}", self.project, self.prefix)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pubsub://{} at {}", self.project, self.uri().authority().map_or("", |host| host.as_str()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn valid_prefix(prefix: &str) -> bool {
    let fits = prefix.len() <= 100 && !prefix.starts_with("goog");
    fits && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~+".contains(&b))
        && prefix.bytes().next().is_none_or(|first| first.is_ascii_alphabetic())
}

/// `host:port` and `http://…` are emulators; `https://…` is the service by another name, as in one region.
fn locate(text: &str) -> Option<(Endpoint, bool)> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = with_scheme.parse().ok()?;
    let secure = match uri.scheme_str()? {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let bare =
        matches!(uri.path(), "" | "/") && uri.query().is_none() && !uri.authority()?.as_str().contains('@');
    bare.then(|| (Endpoint::from(uri), secure))
}

fn settings(endpoint: Endpoint, secure: bool) -> Result<Endpoint, BrokerError> {
    let endpoint = endpoint
        .connect_timeout(DEADLINE)
        .tcp_keepalive(Some(PROBE))
        .tcp_keepalive_interval(Some(PROBE / 3))
        .tcp_keepalive_retries(Some(3))
        // A pull's answer must not wait for a slow peer's leave to go on.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(1 << 22);
    if !secure {
        return Ok(endpoint);
    }
    endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|error| BrokerError::Config {
        problem: format!("broker_url wants TLS, which cannot be set up: {error}"),
        remedy: "install the system's certificates (the package ca-certificates)".into(),
    })
}

/// Not what it is, since that is none of the log's business.
fn wrong(how: &str) -> BrokerError {
    BrokerError::Config {
        problem: format!("broker_url {how}"),
        remedy: "write it as pubsub://project-id, optionally with ?endpoint=host:port and &prefix=name-"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> Lane {
        Lane { queue: "mail_A-1.x".parse().unwrap(), priority: Default::default() }
    }

    #[test]
    fn names_lanes_and_places() {
        for (url, emulator, uri, topic) in [
            (
                "pubsub://p-1",
                None,
                "https://pubsub.googleapis.com/",
                "projects/p-1/topics/windlass.mail_A-1.x.1",
            ),
            (
                "pubsub://p-1/",
                Some(""),
                "https://pubsub.googleapis.com/",
                "projects/p-1/topics/windlass.mail_A-1.x.1",
            ),
            (
                "pubsub://p-1",
                Some("localhost:8085"),
                "http://localhost:8085/",
                "projects/p-1/topics/windlass.mail_A-1.x.1",
            ),
            (
                "pubsub://example.com%3Ap?endpoint=[::1]:8085&prefix=test-",
                Some("localhost:8085"),
                "http://[::1]:8085/",
                "projects/example.com:p/topics/test-windlass.mail_A-1.x.1",
            ),
            (
                "pubsub://p?endpoint=https://europe-west1-pubsub.googleapis.com:443",
                None,
                "https://europe-west1-pubsub.googleapis.com:443/",
                "projects/p/topics/windlass.mail_A-1.x.1",
            ),
        ] {
            let address = Address::parse(url, emulator).unwrap();
            assert_eq!(
                (address.uri().to_string().as_str(), address.topic(&lane()).as_str()),
                (uri, topic),
                "{url}"
            );
            assert_eq!(address.secure, uri.starts_with("https"), "{url}");
        }
    }

    #[test]
    fn refuses_what_cannot_work_and_repeats_none_of_it() {
        for url in [
            "pubsub:",
            "pubsub://",
            "pubsub://s3cret@p",
            "pubsub://p:8085",
            "pubsub://p/s3cret",
            "pubsub://p?s3cret=1",
            "pubsub://p?prefix=1s3cret",
            "pubsub://p?prefix=googs3cret",
            "pubsub://p?prefix=s3cret/",
            "pubsub://p?endpoint=ftp://s3cret",
            "pubsub://p?endpoint=http://u:s3cret@h",
            "pubsub://p?endpoint=http://h/s3cret",
        ] {
            let error = Address::parse(url, None).unwrap_err();
            assert!(matches!(error, BrokerError::Config { .. }), "{url}: {error:?}");
            let text = format!("{error} {error:?}");
            assert!(text.contains("broker_url") && !text.contains("s3cret"), "{text}");
        }
        let error = Address::parse("pubsub://p", Some("ftp://h")).unwrap_err().to_string();
        assert!(error.contains("PUBSUB_EMULATOR_HOST"), "{error}");
    }
}
