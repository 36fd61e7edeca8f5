use std::fmt;

use lapin::uri::AMQPUri;
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
        Ok(Self { uri })
    }

    /// With the password: for the connection only.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn user(&self) -> &str {
        &self.uri.authority.userinfo.username
    }

    pub(super) fn vhost(&self) -> &str {
        &self.uri.vhost
    }
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
    fn never_shows_the_password() {
        let address = Address::parse("amqp://user:s3cret@host/v").unwrap();
        assert!(!format!("{address} {address:?}").contains("s3cret"));
        let error = Address::parse("amqp://user:s3cret@host:notaport/v").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
