use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisError, RedisResult};
use tokio::time::{Instant, timeout};

use super::DEADLINE;
use super::address::Address;
use super::problem::{Problem, code};

/// How long connecting may take: less than a call's deadline, so that the call can say what was wrong.
const CONNECT: Duration = Duration::from_secs(4);
/// A failed attempt to connect counts for this long for everyone, so that calls in an outage fail at once and the
/// server is not stormed.
const RETRY: Duration = Duration::from_millis(500);

/// One connection to the server, made when it is needed and made anew after it was lost.
pub(super) struct Link {
    address: Arc<Address>,
    purpose: &'static str,
    current: Mutex<Option<Connection>>,
    /// The last attempt to connect, where it failed. Held during an attempt: others wait for its result.
    failed: tokio::sync::Mutex<Option<(Instant, Problem)>>,
    connections: AtomicU64,
}

/// A connection while it lasts.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) redis: MultiplexedConnection,
    /// Which of the link's connections it is, counted from 1.
    pub(super) number: u64,
    /// By which the server knows it, if it tells.
    client: Option<u64>,
}

impl Link {
    pub(super) fn new(address: Arc<Address>, purpose: &'static str) -> Self {
        Self {
            address,
            purpose,
            current: Mutex::default(),
            failed: tokio::sync::Mutex::default(),
            connections: AtomicU64::new(0),
        }
    }

    /// Makes one call, which has the usual deadline.
    pub(super) async fn run<T, F: Future<Output = RedisResult<T>>>(
        &self,
        call: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Problem> {
        self.run_within(DEADLINE, call).await
    }

    /// Makes one call. What it asked for may have happened even when it fails.
    pub(super) async fn run_within<T, F: Future<Output = RedisResult<T>>>(
        &self,
        deadline: Duration,
        call: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let connection = self.connection().await?;
        let left = deadline.saturating_sub(start.elapsed());
        self.run_on(&connection, left, call(connection.redis.clone())).await
    }

    /// Makes one call on a connection of this link.
    pub(super) async fn run_on<T>(
        &self,
        connection: &Connection,
        deadline: Duration,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Problem> {
        match timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                // A server that has become a replica stays one; the address may lead to the new primary.
                if error.is_unrecoverable_error() || error.is_io_error() || code(&error) == "READONLY" {
                    self.lost(connection.number, &error.to_string());
                }
                Err(error.into())
            }
            Err(_) => {
                // Nothing tells a slow server from a connection that leads nowhere any more.
                self.lost(connection.number, "no answer in time");
                Err(Problem::Timeout(deadline))
            }
        }
    }

    /// The connection that stands, or a new one.
    pub(super) async fn connection(&self) -> Result<Connection, Problem> {
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        let mut failed = self.failed.lock().await;
        if let Some(connection) = self.current().clone() {
            return Ok(connection);
        }
        if let Some((at, problem)) = &*failed
            && at.elapsed() < RETRY
        {
            return Err(problem.clone());
        }
        let number = self.connections.load(Ordering::Relaxed) + 1;
        let opened = match timeout(CONNECT, open(&self.address, self.purpose, number)).await {
            Ok(opened) => opened,
            Err(_) => Err(Problem::silent(&self.address, CONNECT)),
        };
        match opened {
            Ok(connection) => {
                if number > 1 || failed.is_some() {
                    tracing::info!(broker = %self.address, purpose = self.purpose, "connected to the broker again");
                }
                *failed = None;
                self.connections.store(number, Ordering::Relaxed);
                *self.current() = Some(connection.clone());
                Ok(connection)
            }
            Err(problem) => {
                // An outage is reported when it begins or changes its kind.
                let known = match (&*failed, &problem) {
                    (Some((_, Problem::Outage(_))), Problem::Outage(_)) => true,
                    (before, problem) => before.as_ref().is_some_and(|(_, before)| before == problem),
                };
                if !known {
                    let error = windlass_core::BrokerError::from(problem.clone());
                    tracing::error!(broker = %self.address, purpose = self.purpose, %error, "cannot connect to the broker");
                }
                *failed = Some((Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    /// By what the server knows the connection that stands.
    pub(super) fn client(&self) -> Option<u64> {
        self.current().as_ref().and_then(|connection| connection.client)
    }

    /// Ends the connection. The next call makes another.
    pub(super) fn disconnect(&self) {
        self.current().take();
    }

    fn lost(&self, number: u64, reason: &str) {
        let mut current = self.current();
        // It may have been replaced already.
        if current.as_ref().is_some_and(|connection| connection.number == number) {
            tracing::warn!(broker = %self.address, purpose = self.purpose, reason, "lost the connection to the broker");
            current.take();
        }
    }

    /// The lock is never held across an await.
    fn current(&self) -> MutexGuard<'_, Option<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(address: &Address, purpose: &str, number: u64) -> Result<Connection, Problem> {
    if address.tls() {
        // The library takes the process's choice, and panics where there is none.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    // Deadlines are set around whole calls.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connect = async {
        let client = redis::Client::open(address.server())?;
        client.get_multiplexed_async_connection_with_config(&config).await
    };
    let mut redis = connect.await.map_err(|error| Problem::connecting(&error, address))?;

    // One by one: of an answer that makes no sense, the library tells only where a single command waits for it.
    let mut greetings = Vec::new();
    greetings.extend(address.login().map(|login| redis::cmd("AUTH").arg(login).take()));
    if address.database() != 0 {
        greetings.push(redis::cmd("SELECT").arg(address.database()).take());
    }
    greetings.push(redis::cmd("PING"));
    for greeting in greetings {
        greeting.exec_async(&mut redis).await.map_err(|error| refusal(&error, address))?;
    }
    let mut about = redis::Pipeline::new();
    about.cmd("CLIENT").arg("SETNAME").arg(format!("windlass-{purpose}-{}", std::process::id()));
    about.cmd("CLIENT").arg("ID");
    about.cmd("INFO");
    let rest = redis.send_packed_commands(&about, 0, 3).await;
    let rest = rest.map_err(|error| Problem::connecting(&error, address))?;
    let client = rest.get(1).and_then(|id| u64::from_redis_value_ref(id).ok());
    // A user without the right to ask is not told, either.
    if let Some(info) = rest.get(2).and_then(|info| String::from_redis_value_ref(info).ok()) {
        check(&info, address)?;
    }
    Ok(Connection { redis, number, client })
}

fn refusal(error: &RedisError, address: &Address) -> Problem {
    match (Problem::connecting(error, address), code(error)) {
        (Problem::Outage(_), "ERR") => Problem::Config {
            problem: format!("broker_url: {address} refused the login or the database: {error}"),
            remedy: "check user, password and the number of the database".into(),
        },
        (problem, _) => problem,
    }
}

/// Refuses a server that cannot work, and warns once of one that may lose what it confirmed.
fn check(info: &str, address: &Address) -> Result<(), Problem> {
    static WARNED: AtomicBool = AtomicBool::new(false);
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let version = field("redis_version").unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < 7) {
        return Err(Problem::Config {
            problem: format!("broker_url: {address} is Redis {version}"),
            remedy: "use Redis 7.0 or later".into(),
        });
    }
    if field("cluster_enabled") == Some("1") {
        return Err(Problem::Config {
            problem: format!("broker_url: {address} is part of a cluster"),
            remedy: "use a Redis server that is not in cluster mode".into(),
        });
    }
    let risks = risks(field("aof_enabled"), field("maxmemory_policy"));
    if !risks.is_empty() && !WARNED.swap(true, Ordering::Relaxed) {
        for risk in risks {
            tracing::warn!(broker = %address, "{risk}");
        }
    }
    Ok(())
}

fn risks(append_only: Option<&str>, policy: Option<&str>) -> Vec<String> {
    let mut risks = Vec::new();
    if append_only == Some("0") {
        risks.push(
            "the broker keeps no log (appendonly no): a restart loses messages, whose jobs then wait until they are \
             published again"
                .into(),
        );
    }
    if let Some(policy) = policy.filter(|policy| *policy != "noeviction") {
        risks.push(format!(
            "the broker may throw lanes away when memory is short (maxmemory-policy {policy}): use noeviction"
        ));
    }
    risks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_lose_messages_is_named() {
        assert_eq!(risks(Some("1"), Some("noeviction")), Vec::<String>::new());
        assert_eq!(risks(None, None), Vec::<String>::new());
        let found = risks(Some("0"), Some("allkeys-lru"));
        assert!(found[0].contains("appendonly") && found[1].contains("allkeys-lru"), "{found:?}");
    }

    #[test]
    fn servers_that_cannot_work_are_refused() {
        let address = Address::parse("redis://user:s3cret@host").unwrap();
        for (info, ok) in [
            ("redis_version:7.0.15\r\ncluster_enabled:0\r\n", true),
            ("", true),
            ("redis_version:6.2.1\r\n", false),
            ("redis_version:7.2.0\r\ncluster_enabled:1\r\n", false),
        ] {
            assert_eq!(check(info, &address).is_ok(), ok, "{info}");
        }
    }
}
