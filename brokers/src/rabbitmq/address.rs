use std::fmt;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use url::{Host, Url};
use windlass_core::BrokerError;

/// Seconds. A silent peer is given up after twice this.
const HEARTBEAT: u16 = 10;

/// Bytes. The client library keeps buffers of 32 frames for each direction of each connection, and messages here are
/// small: with the usual 128 KiB an idle worker would hold 16 MiB for nothing.
const FRAME_MAX: u32 = 16 * 1024;

/// Where the broker is. Shows itself without the password.
pub(super) struct Address {
    uri: AMQPUri,
    /// Of authorities to trust beside the system's, as PEM.
    certificates: Option<String>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        // The parsers' own messages may quote the URL, password and all, and so are not passed on.
        let (Ok(parsed), Ok(mut uri)) = (Url::parse(url), url.parse::<AMQPUri>()) else {
            return Err(BrokerError::Config {
                problem: "broker_url is not a valid AMQP URL".into(),
                remedy: "write it as amqp://user:password@host:5672/vhost, with special characters in \
                         user, password and vhost percent-encoded"
                    .into(),
            });
        };
        if let Some(Host::Ipv6(ip)) = parsed.host() {
            uri.authority.host = ip.to_string();
        }
        if uri.vhost.is_empty() {
            // A slash at the end of the URL is taken for habit, not for the virtual host without a name.
            uri.vhost = "/".into();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        let named = parsed.query_pairs().find(|(name, _)| name == "cacertfile");
        let certificates = named.map(|(_, file)| certificates(&file, &uri.scheme)).transpose()?;
        Ok(Self { uri, certificates })
    }

    /// With the password: for the connection only.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn tls(&self) -> OwnedTLSConfig {
        OwnedTLSConfig { cert_chain: self.certificates.clone(), ..OwnedTLSConfig::default() }
    }

    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }
}

/// What the parameter `cacertfile` names.
fn certificates(file: &str, scheme: &AMQPScheme) -> Result<String, BrokerError> {
    let config = |problem: String, remedy: &str| BrokerError::Config { problem, remedy: remedy.into() };
    if *scheme != AMQPScheme::AMQPS {
        return Err(config(
            "broker_url has a cacertfile, and no TLS".into(),
            "write it as amqps://…, or leave cacertfile out",
        ));
    }
    let remedy = "name a PEM file with the certificate of the authority that signed the server's";
    let read = std::fs::read_to_string(file);
    let text =
        read.map_err(|error| config(format!("broker_url: cacertfile cannot be read: {error}"), remedy))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(config("broker_url: cacertfile holds no certificate".into(), remedy));
    }
    Ok(text)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = &self.uri.authority;
        write!(f, "{}://{}:{}", self.uri.scheme, authority.host, authority.port)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hosts_and_vhosts_as_people_write_them() {
        for (url, host, vhost) in [
            ("amqp://localhost", "localhost", "/"),
            ("amqp://u:p@10.0.0.1:5673/", "10.0.0.1", "/"),
            ("amqp://u:p@[::1]:5672/%2f", "::1", "/"),
            ("amqps://u:p@mq.example/jobs", "mq.example", "jobs"),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.uri.authority.host.as_str(), address.vhost()), (host, vhost), "{url}");
        }
    }

    #[test]
    fn a_cacertfile_that_cannot_be_used_is_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        let empty = empty.path().display();
        for url in [
            format!("amqp://h?cacertfile={empty}"),
            format!("amqps://h?cacertfile={empty}"),
            "amqps://h?cacertfile=/no/such/file".into(),
        ] {
            let error = Address::parse(&url).unwrap_err().to_string();
            assert!(error.contains("broker_url") && error.contains("cacertfile"), "{error}");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let address = Address::parse("amqp://user:s3cret@host/v").unwrap();
        assert!(!format!("{address} {address:?}").contains("s3cret"));
        let error = Address::parse("amqp://user:s3cret@host:notaport/v").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
