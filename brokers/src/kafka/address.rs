use std::fmt;

use percent_encoding::percent_decode_str;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use windlass_core::{BrokerError, JobId, QueueName};

use super::health::LIBRARY;

/// Partitions of a lane that this driver makes: the most subscriptions that can share it.
const PARTITIONS: i32 = 12;
/// The cluster's own default.
const REPLICATION: i32 = -1;

/// Settings that the driver's promises rest on.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// Where the brokers are, and how to speak to them. Shows itself without the password.
pub(super) struct Address {
    hosts: String,
    user: Option<String>,
    pub(super) partitions: i32,
    pub(super) replication: i32,
    /// For librdkafka, the password among them.
    settings: Vec<(String, String)>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let rest = url.strip_prefix("kafka://").ok_or_else(malformed)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (login, hosts) =
            rest.rsplit_once('@').map_or((None, rest), |(login, hosts)| (Some(login), hosts));
        let mut address = Self {
            hosts: hosts.split(',').map(host).collect::<Option<Vec<_>>>().ok_or_else(malformed)?.join(","),
            user: None,
            partitions: PARTITIONS,
            replication: REPLICATION,
            settings: Vec::new(),
        };
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            address.user = Some(decode(user)?);
            address.set("security.protocol", "sasl_plaintext".into());
            address.set("sasl.mechanism", "PLAIN".into());
            address.set("sasl.username", decode(user)?);
            address.set("sasl.password", decode(password)?);
        }
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or_else(malformed)?;
            let (name, value) = (decode(name)?, decode(value)?);
            match name.as_str() {
                "partitions" => address.partitions = count(&name, &value)?,
                "replication" => address.replication = count(&name, &value)?,
                name if RESERVED.contains(&name) => return Err(reserved(name)),
                // Two names for one setting.
                "sasl.mechanisms" => address.set("sasl.mechanism", value),
                name => address.set(name, value),
            }
        }
        address.check_security()?;
        Ok(address)
    }

    fn set(&mut self, name: &str, value: String) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.into(), value));
    }

    fn check_security(&self) -> Result<(), BrokerError> {
        let starts = |setting: &str, prefix: &str| {
            let of = |(name, value): &(String, String)| {
                name == setting && value.to_ascii_lowercase().starts_with(prefix)
            };
            self.settings.iter().any(of)
        };
        let needs_tls = starts("security.protocol", "ssl")
            || starts("security.protocol", "sasl_ssl")
            || starts("sasl.mechanism", "scram")
            || starts("sasl.mechanism", "oauthbearer");
        if needs_tls && !cfg!(feature = "kafka-tls") {
            return Err(BrokerError::Config {
                problem: "broker_url asks for TLS, SCRAM or OAUTHBEARER, which this build leaves out".into(),
                remedy: "build with the cargo feature `kafka-tls`".into(),
            });
        }
        Ok(())
    }

    pub(super) fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("ANONYMOUS")
    }

    pub(super) const fn has_login(&self) -> bool {
        self.user.is_some()
    }

    /// Whether connections have neither login nor TLS.
    pub(super) fn is_plain(&self) -> bool {
        let secure = |(name, value): &(String, String)| {
            name == "security.protocol" && !value.eq_ignore_ascii_case("plaintext")
        };
        !self.settings.iter().any(secure)
    }

    /// Each with its port.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.hosts.split(',')
    }

    /// For whatever neither publishes nor subscribes.
    pub(super) fn plain(&self) -> ClientConfig {
        self.with(&[])
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.with(&[
            // A batch is handed over at once: what it holds need not wait for company.
            ("linger.ms", "0"),
            // Beyond it a message is given up, and the outbox publishes it again.
            ("message.timeout.ms", "5000"),
            // How long a lane just made may be unknown to some brokers.
            ("topic.metadata.propagation.max.ms", "1000"),
        ]);
        config.set("enable.idempotence", "true").set("acks", "all");
        config
    }

    /// For looking at the offsets of `queue`'s group without joining it.
    pub(super) fn observer(&self, queue: &QueueName) -> ClientConfig {
        let mut config = self.plain();
        config.set("group.id", group(queue)).set("enable.auto.commit", "false");
        config
    }

    pub(super) fn consumer(&self, queue: &QueueName) -> ClientConfig {
        let mut config = self.with(&[
            // What is settled is committed this often, and whenever a partition is given up.
            ("auto.commit.interval.ms", "200"),
            ("heartbeat.interval.ms", "500"),
            ("session.timeout.ms", "10000"),
            // A member that is stuck delays the others' rebalance no longer than this.
            ("max.poll.interval.ms", "30000"),
            // Lanes deleted or made by others are noticed at the latest then.
            ("topic.metadata.refresh.interval.ms", "10000"),
            ("topic.metadata.propagation.max.ms", "1000"),
            // What is fetched ahead: references are small, and a partition has one reader anyway.
            ("queued.min.messages", "1000"),
            ("queued.max.messages.kbytes", "1024"),
            ("max.partition.fetch.bytes", "131072"),
            ("fetch.queue.backoff.ms", "10"),
            ("fetch.error.backoff.ms", "100"),
        ]);
        // One name for each, by which `Poller::leave` finds it in the group.
        let client = format!("{}-{}", config.get("client.id").unwrap_or_default(), JobId::new());
        config
            .set("client.id", client)
            .set("group.id", group(queue))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "true")
            // Stored are the offsets below which all is settled, by the driver.
            .set("enable.auto.offset.store", "false");
        // The one line by which `Member` learns that a topic was made anew.
        let debug = config.get("debug").map_or_else(|| "metadata".into(), |more| format!("{more},metadata"));
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    fn with(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "windlass")
            .set("bootstrap.servers", &self.hosts)
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.keepalive.enable", "true");
        // Lines that nobody reads need not be made.
        let lines = tracing::enabled!(target: LIBRARY, tracing::Level::DEBUG);
        config.set_log_level(if lines { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Emerg });
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        config
    }
}

/// The group of those who take from `queue`. One for each queue, so that workers of other queues who come, go or
/// park are no reason for a rebalance.
fn group(queue: &QueueName) -> String {
    format!("windlass.{queue}")
}

/// With a port, if it is a host.
fn host(text: &str) -> Option<String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, "9092"),
    };
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let valid = !name.is_empty() && (bracketed || !name.contains([':', '/', '@', '[', ']', ' ']));
    (valid && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| format!("{name}:{port}"))
}

fn decode(text: &str) -> Result<String, BrokerError> {
    percent_decode_str(text).decode_utf8().map(Into::into).map_err(|_| malformed())
}

fn count(name: &str, value: &str) -> Result<i32, BrokerError> {
    value.parse().ok().filter(|count| (1..=10_000).contains(count)).ok_or_else(|| BrokerError::Config {
        problem: format!("broker_url: {name} is no number from 1 to 10000"),
        remedy: format!("write it as {name}=12, or leave it out"),
    })
}

fn malformed() -> BrokerError {
    // The text is not repeated: it may hold a password.
    BrokerError::Config {
        problem: "broker_url is not a valid Kafka URL".into(),
        remedy:
            "write it as kafka://host:9092,host2:9092?name=value or kafka://user:password@host:9092, with \
                 special characters in user, password and values percent-encoded"
                .into(),
    }
}

fn reserved(name: &str) -> BrokerError {
    BrokerError::Config {
        problem: format!("broker_url sets {name}, which Windlass decides itself"),
        remedy: format!("leave {name} out"),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kafka://{}", self.hosts)
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
    fn reads_hosts_as_people_write_them() {
        for (url, hosts) in [
            ("kafka://localhost", "localhost:9092"),
            ("kafka://a:1,b:2/", "a:1,b:2"),
            ("kafka://u:p%40@[::1],10.0.0.1:5?partitions=3", "[::1]:9092,10.0.0.1:5"),
        ] {
            assert_eq!(Address::parse(url).unwrap().hosts, hosts, "{url}");
        }
        for url in ["kafka://", "kafka://a:b", "kafka://a:0", "kafka://a,,b", "kafka://a?x", "kafka://a/b"] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains("broker_url"), "{error}");
        }
    }

    #[test]
    fn passes_settings_on_and_keeps_its_own() {
        let queue = "mail".parse().unwrap();
        let address =
            Address::parse("kafka://u:p%40ss@h?linger.ms=7&session.timeout.ms=9&partitions=3").unwrap();
        let (producer, consumer) = (address.producer(), address.consumer(&queue));
        assert_eq!(producer.get("linger.ms"), Some("7"));
        assert_eq!(producer.get("sasl.password"), Some("p@ss"));
        assert_eq!(consumer.get("session.timeout.ms"), Some("9"));
        assert_eq!(consumer.get("group.id"), Some("windlass.mail"));
        assert_eq!(address.partitions, 3);
        for url in
            ["kafka://h?acks=1", "kafka://h?group.id=x", "kafka://h?partitions=0", "kafka://h?replication=x"]
        {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains("broker_url"), "{error}");
        }
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn names_the_feature_that_tls_needs() {
        for url in ["kafka://h?security.protocol=SSL", "kafka://u:p@h?sasl.mechanisms=SCRAM-SHA-256"] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains("broker_url") && error.contains("kafka-tls"), "{error}");
        }
    }

    #[test]
    fn never_shows_the_password() {
        let address = Address::parse("kafka://user:s3cret@host?ssl.key.password=s3cret").unwrap();
        assert!(!format!("{address} {address:?}").contains("s3cret"));
        let error = Address::parse("kafka://user:s3cret@host:notaport").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"));
    }
}
