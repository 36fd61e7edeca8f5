//! The Windlass brokers. Each driver is a module and a cargo feature of its own; [`open`] picks one by URL.
//!
//! A driver is done when it passes the `conformance` suite, unmodified.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod database;
#[cfg(any(feature = "nats", feature = "redis"))]
mod handle;
#[cfg(feature = "kafka")]
mod kafka;
mod memory;
mod moving;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "pubsub")]
mod pubsub;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;
mod rota;
#[cfg(feature = "sqs")]
mod sqs;
#[cfg(any(
    feature = "kafka",
    feature = "nats",
    feature = "postgres",
    feature = "pubsub",
    feature = "rabbitmq",
    feature = "redis",
    feature = "sqlite",
    feature = "sqs",
))]
mod unreadable;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::sync::Arc;

use windlass_core::{Broker, BrokerError};

pub use memory::Memory;
pub use moving::Moving;

/// Opens the broker at `url`:
///
/// | URL | broker | cargo feature |
/// |---|---|---|
/// | `memory:` | lanes in this process, gone with it | |
/// | `postgres://user:password@host/database?schema=windlass_broker` | a table in Postgres 14 or later | `postgres` |
/// | `sqlite:path/to/broker.db` | a table in a file, for the processes of one machine | `sqlite` |
/// | `amqp://user:password@host:5672/vhost`, `amqps://…` | RabbitMQ 3.10 or later | `rabbitmq` |
/// | `pubsub://project-id`, `pubsub://project-id?endpoint=…&prefix=…` | Google Cloud Pub/Sub | `pubsub` |
/// | `sqs://region?prefix=…&fifo=true&wait=20&endpoint=http://…` | Amazon SQS, and what speaks its language | `sqs` |
/// | `nats://user:password@host:4222`, `nats://token@host`, `tls://…` | NATS 2.9 or later, with JetStream | `nats` |
/// | `redis://user:password@host:6379/0`, `rediss://…` | Redis 7.0 or later | `redis` |
/// | `kafka://host:9092,host2:9092?name=value`, `kafka://user:password@…` | Kafka 2.4 or later | `kafka` |
///
/// The broker need not be up: the driver connects in the background, so that jobs are accepted meanwhile;
/// [`Broker::ping`] tells how it goes.
///
/// # Errors
/// [`BrokerError::Config`] for a URL that cannot work, naming `broker_url` and the remedy.
pub async fn open(url: &str) -> Result<Arc<dyn Broker>, BrokerError> {
    // Only the scheme is ever repeated in an error: the rest may hold a password.
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        "memory" => Ok(Arc::new(Memory::new())),
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => Ok(Arc::new(rabbitmq::RabbitMq::open(url)?)),
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(database::open_postgres(url)?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(database::open_sqlite(url)?)),
        #[cfg(feature = "pubsub")]
        "pubsub" => Ok(Arc::new(pubsub::PubSub::open(url)?)),
        #[cfg(feature = "sqs")]
        "sqs" => Ok(Arc::new(sqs::Sqs::open(url).await?)),
        #[cfg(feature = "nats")]
        "nats" | "tls" => Ok(Arc::new(nats::Nats::open(url)?)),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => Ok(Arc::new(redis::Redis::open(url)?)),
        #[cfg(feature = "kafka")]
        "kafka" => Ok(Arc::new(kafka::Kafka::open(url)?)),
        _ => Err(no_driver(scheme)),
    }
}

/// Every driver but the one that is always there: its schemes, its name, its cargo feature.
const DRIVERS: &[(&[&str], &str, &str)] = &[
    (&["amqp", "amqps"], "RabbitMQ", "rabbitmq"),
    (&["kafka"], "Kafka", "kafka"),
    (&["nats", "tls"], "NATS", "nats"),
    (&["postgres", "postgresql"], "Postgres", "postgres"),
    (&["pubsub"], "Google Cloud Pub/Sub", "pubsub"),
    (&["redis", "rediss"], "Redis", "redis"),
    (&["sqs"], "Amazon SQS", "sqs"),
    (&["sqlite"], "SQLite", "sqlite"),
];

fn no_driver(scheme: &str) -> BrokerError {
    if let Some((_, name, feature)) = DRIVERS.iter().find(|(schemes, ..)| schemes.contains(&scheme)) {
        return BrokerError::Config {
            problem: format!("broker_url names {name}, which this build leaves out"),
            remedy: format!("build with the cargo feature `{feature}`"),
        };
    }
    let schemes: Vec<_> =
        DRIVERS.iter().flat_map(|(schemes, ..)| *schemes).map(|scheme| format!(", {scheme}://")).collect();
    BrokerError::Config {
        problem: "broker_url names no broker that Windlass knows".into(),
        remedy: format!("use memory:{}", schemes.concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_driver_names_the_feature() {
        for (schemes, name, feature) in DRIVERS {
            for scheme in *schemes {
                let error = no_driver(scheme).to_string();
                assert!(error.contains("broker_url") && error.contains(name), "{error}");
                assert!(error.contains(&format!("cargo feature `{feature}`")), "{error}");
            }
        }
    }

    #[test]
    fn an_unknown_scheme_is_told_all_that_are_known() {
        let error = no_driver("nobroker").to_string();
        assert!(error.contains("broker_url") && error.contains("memory:"), "{error}");
        for scheme in DRIVERS.iter().flat_map(|(schemes, ..)| *schemes) {
            assert!(error.contains(&format!(" {scheme}://")), "{error}");
        }
    }
}
