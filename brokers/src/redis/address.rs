use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use windlass_core::BrokerError;

/// Where the broker is, and how to log in. Shows itself without the password.
pub(super) struct Address {
    /// Without the login, which the driver does itself: the library tells a refused password from a busy server
    /// no more than by its words.
    server: ConnectionInfo,
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    database: i64,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        // The parser's own message may quote the URL, password and all, and so is not passed on.
        let Ok(parsed) = url.parse::<ConnectionInfo>() else {
            return Err(BrokerError::Config {
                problem: "broker_url is not a valid Redis URL".into(),
                remedy: "write it as redis://user:password@host:6379/0 (rediss:// for TLS), with special \
                         characters in user and password percent-encoded"
                    .into(),
            });
        };
        let tls = match parsed.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err(BrokerError::Config {
                    problem: "broker_url asks for TLS without a check of the certificate".into(),
                    remedy:
                        "remove `#insecure`, and name a file with the server's authority in the environment \
                             variable SSL_CERT_FILE"
                            .into(),
                });
            }
            ConnectionAddr::TcpTls { .. } => true,
            _ => false,
        };
        let login = parsed.redis_settings();
        let [user, password] = [login.username(), login.password()].map(|text| text.map(String::from));
        let database = login.db();
        let server = parsed.addr().clone().into_connection_info().map_err(|_| BrokerError::Config {
            problem: "broker_url names no address of a Redis server".into(),
            remedy: "write it as redis://user:password@host:6379/0".into(),
        })?;
        let server = server.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
        Ok(Self { server, tls, user, password, database })
    }

    /// For connecting. No login is part of it.
    pub(super) fn server(&self) -> ConnectionInfo {
        self.server.clone()
    }

    pub(super) const fn tls(&self) -> bool {
        self.tls
    }

    /// The arguments of `AUTH`, if there is a login.
    pub(super) fn login(&self) -> Option<Vec<&str>> {
        let password = self.password.as_deref().unwrap_or_default();
        match &self.user {
            Some(user) => Some(vec![user, password]),
            None => self.password.as_ref().map(|_| vec![password]),
        }
    }

    pub(super) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("default")
    }

    pub(super) const fn database(&self) -> i64 {
        self.database
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        write!(f, "{scheme}://{}/{}", self.server.addr(), self.database)
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
    fn reads_urls_as_people_write_them() {
        for (url, shown, login) in [
            ("redis://localhost", "redis://localhost:6379/0", None),
            ("redis://:p%40ss@10.0.0.1:6380/3", "redis://10.0.0.1:6380/3", Some(vec!["p@ss"])),
            ("redis://u:p@[::1]/", "redis://::1:6379/0", Some(vec!["u", "p"])),
            ("rediss://u@redis.example", "rediss://redis.example:6379/0", Some(vec!["u", ""])),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!((address.to_string().as_str(), address.login()), (shown, login), "{url}");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let address = Address::parse("redis://user:s3cret@host/1").unwrap();
        assert!(!format!("{address} {address:?}").contains("s3cret"));
        for url in [
            "redis://user:s3cret@host:notaport/1",
            "redis://user:s3cret@host/notanumber",
            "rediss://user:s3cret@host/#insecure",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(matches!(error, BrokerError::Config { .. }));
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }
}
