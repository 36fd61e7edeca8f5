use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;
use windlass_core::BrokerError;

const PORT: u16 = 4222;

/// Where the broker is, and how to log in. Shows itself without the secrets.
pub(super) struct Address {
    /// Scheme, host and port.
    server: String,
    login: Login,
}

/// How to log in.
#[derive(PartialEq, Eq)]
pub(super) enum Login {
    None,
    Token(String),
    User { name: String, password: String },
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        // The parser's own message may quote the URL, password and all, and so is not passed on.
        let wrong = || BrokerError::Config {
            problem: "broker_url is not a valid NATS URL".into(),
            remedy:
                "write it as nats://user:password@host:4222 or nats://token@host:4222 (tls:// for TLS), with \
                     special characters in user, password and token percent-encoded"
                    .into(),
        };
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        let host = parsed.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| wrong());
        let name = decode(parsed.username())?;
        let login = match parsed.password() {
            Some(password) => Login::User { name, password: decode(password)? },
            None if name.is_empty() => Login::None,
            None => Login::Token(name),
        };
        let server = format!("{}://{host}:{}", parsed.scheme(), parsed.port().unwrap_or(PORT));
        Ok(Self { server, login })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    pub(super) const fn login(&self) -> &Login {
        &self.login
    }

    pub(super) fn tls(&self) -> bool {
        self.server.starts_with("tls:")
    }

    /// Who logs in, for a message to the operator.
    pub(super) fn who(&self) -> String {
        match &self.login {
            Login::None => "without a user".into(),
            Login::Token(_) => "with the token".into(),
            Login::User { name, .. } => format!("of user {name:?}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)
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
        let user = |name: &str, password: &str| Login::User { name: name.into(), password: password.into() };
        for (url, server, login) in [
            ("nats://localhost", "nats://localhost:4222", Login::None),
            ("nats://u:p%40ss@10.0.0.1:4223/", "nats://10.0.0.1:4223", user("u", "p@ss")),
            ("nats://t0ken@[::1]:4222", "nats://[::1]:4222", Login::Token("t0ken".into())),
            ("tls://u:@nats.example", "tls://nats.example:4222", Login::Token("u".into())),
        ] {
            let address = Address::parse(url).unwrap();
            assert_eq!(address.server(), server, "{url}");
            assert!(address.login == login, "{url}");
        }
    }

    #[test]
    fn never_shows_the_secrets() {
        for url in ["nats://user:s3cret@host", "nats://s3cret@host"] {
            let address = Address::parse(url).unwrap();
            assert!(!format!("{address} {address:?} {}", address.who()).contains("s3cret"));
        }
        for url in ["nats://user:s3cret@host:notaport", "nats://s3cret@", "nats:s3cret"] {
            let error = Address::parse(url).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }
}
