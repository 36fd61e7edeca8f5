#[cfg(test)]
mod tests;
mod url;
mod written;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use windlass_core::{Priorities, QueueName, WorkflowLimits};
use windlass_store::{Keep, Retention, StoreOptions};

pub use self::url::SecretUrl;
use self::written::{duration, list, optional_duration};
use crate::{
    Allowed, ClientOptions, EncryptionKey, Envelope, EnvelopeError, Network, Objects, Origin, Outside,
    ProxyHeader, RequestRate, SharedReads, SharedUrlError,
};

/// Every setting of Windlass, read by the `windlass` command and by worker binaries alike.
///
/// In rising order: the defaults, `windlass.toml` (or the file that `WINDLASS_CONFIG` names), environment variables.
/// A setting `name` is the key `name` in the file and the variable `WINDLASS_NAME`. Durations are written `30s`,
/// `5m`, `24h`. Unknown keys in the file are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where jobs are kept: `postgres://user:password@host/database` or `sqlite:path/to/file.db`.
    pub store_url: SecretUrl,
    /// What delivers them: a URL as [`windlass_brokers::open`] reads it, `memory:` within one process, or `store:`,
    /// the database in which they are kept. See [`broker`](Self::broker).
    pub broker_url: SecretUrl,
    /// While moving from one broker to another: the old one, from which workers take as well.
    pub broker_from_url: Option<SecretUrl>,
    /// The Postgres schema that holds the tables.
    pub store_schema: String,
    /// The most connections that one process opens to the store.
    pub store_connections: u32,
    /// How long one call to the store may take.
    #[serde(with = "duration")]
    pub store_timeout: Duration,
    /// Streaming replicas of a Postgres store (a comma-separated list of URLs like `store_url`), for reads that may be a
    /// little behind: polls, lists, counts.
    #[serde(deserialize_with = "list")]
    pub store_replica_urls: Vec<SecretUrl>,
    /// How far behind. A replica that is further is not read from until it has caught up.
    #[serde(with = "duration")]
    pub store_replica_max_lag: Duration,
    /// A job that still waits this long after the broker's confirm, in an empty lane, is published again.
    #[serde(with = "duration")]
    pub republish_after: Duration,
    /// A job that waits this long in a lane that is not empty is published again.
    #[serde(with = "duration")]
    pub republish_bound: Duration,
    /// How much memory may keep jobs that are over, for reads, in bytes. 0 keeps none.
    pub read_cache: u64,
    /// How long such jobs are kept, at most, for reads by all instances in the Redis of `shared_url`; by default they are not
    /// there.
    #[serde(with = "optional_duration")]
    pub shared_read_cache: Option<Duration>,

    /// The largest result of a job, in bytes of JSON. With a larger one the job is `dead`.
    pub result_max: usize,
    /// How long a result is kept; by default as long as its job.
    #[serde(with = "optional_duration")]
    pub result_ttl: Option<Duration>,
    /// How long jobs that succeeded are kept; by default for ever.
    #[serde(with = "optional_duration")]
    pub retention_succeeded: Option<Duration>,
    /// How long jobs that were cancelled are kept; by default for ever.
    #[serde(with = "optional_duration")]
    pub retention_cancelled: Option<Duration>,
    /// How long dead jobs are kept; by default for ever.
    #[serde(with = "optional_duration")]
    pub retention_dead: Option<Duration>,
    /// The same for single queues, where it differs: `retention_queues.mail.dead = "30d"`.
    pub retention_queues: BTreeMap<QueueName, QueueRetention>,
    /// Keys for payloads, results and checkpoints in the store, each `name:base64` (a comma-separated list). The first one
    /// encrypts, all of them decrypt; without any, nothing is encrypted.
    #[serde(deserialize_with = "list")]
    pub encryption_keys: Vec<EncryptionKey>,

    /// Where payloads and results are kept that are too large for the store's rows: `file:///path/to/folder` or
    /// `s3://bucket/prefix`; by default in the store, whatever their size. For this store alone: what its jobs do not refer
    /// to is removed from there.
    pub objects_url: Option<SecretUrl>,
    /// From how many bytes of JSON on, as the store would keep them, encrypted or not.
    pub objects_above: usize,

    /// The address the API listens on.
    pub api_listen: String,
    /// The address at which the API listens for gRPC as well; by default it does not.
    pub grpc_listen: Option<String>,
    /// The largest request body, in bytes.
    pub api_max_body: usize,
    /// The largest body of a batch of jobs, in bytes.
    pub api_max_batch_body: usize,
    /// The deepest nesting of JSON in a request.
    pub api_max_depth: usize,
    /// What becomes of a job whose kind no worker has made known: `refuse` or `accept`.
    pub api_unknown_kinds: UnknownKinds,
    /// The most jobs in one workflow.
    pub api_workflow_jobs: usize,
    /// The most parents that one job of a workflow may name.
    pub api_workflow_parents: usize,
    /// How long a request may take.
    #[serde(with = "duration")]
    pub api_timeout: Duration,
    /// How long a request may wait for a job to change, on top of that.
    #[serde(with = "duration")]
    pub api_max_wait: Duration,
    /// How many requests and streams may wait for jobs at a time.
    pub api_max_waiting: usize,
    /// How many other requests may be in flight at a time.
    pub api_max_in_flight: usize,
    /// How much longer than on a quiet server it may take to accept a job, before further requests to enqueue are refused.
    #[serde(with = "duration")]
    pub api_max_delay: Duration,
    /// How many connections are kept at a time.
    pub api_max_connections: usize,
    /// The largest head of a request, in bytes.
    pub api_max_head: usize,
    /// How much memory the bodies of requests may take together, in bytes.
    pub api_body_memory: usize,
    /// The file with the API's certificate and those between it and its authority, in PEM: it speaks TLS then.
    pub api_tls_certificate: Option<PathBuf>,
    /// The file with the certificate's key, in PEM.
    pub api_tls_key: Option<PathBuf>,
    /// Whose pages browsers let use the API: origins (a comma-separated list), or `*`; by default none but its own.
    #[serde(deserialize_with = "list")]
    pub api_cors_origins: Vec<Origin>,
    /// How long an idempotency key is remembered.
    #[serde(with = "duration")]
    pub api_idempotency_ttl: Duration,
    /// How often one address may ask: `100/s`, `100/s burst 200` or `600/m queue 50`. By default as often as it likes, like
    /// the next two.
    pub api_rate_ip: Option<RequestRate>,
    /// How often one API key may be used, or the subject of a token may ask.
    pub api_rate_key: Option<RequestRate>,
    /// How often those who act for one tenant may ask, all together.
    pub api_rate_tenant: Option<RequestRate>,
    /// Where all instances of the API count those requests together, and share reads: `redis://…` or `rediss://…`; by default
    /// each does so by itself.
    pub shared_url: Option<SecretUrl>,
    /// Proxies whose word is taken on whom a request is from: networks or addresses (a comma-separated list).
    #[serde(deserialize_with = "list")]
    pub api_trusted_proxies: Vec<Network>,
    /// Where they write it: `x-forwarded-for` or `forwarded`. The other one is not read.
    pub api_proxy_header: ProxyHeader,
    /// Whether requests need a key or token: `required` or `off`. By default they do not, as long as the API listens on a
    /// loopback address, and it refuses to listen on another. Naming an issuer means `required`.
    pub api_auth: Option<ApiAuth>,
    /// Whose JSON Web Tokens are taken: the URL of an OpenID Connect issuer, as it is in their `iss`.
    pub api_jwt_issuer: Option<String>,
    /// What must be in their `aud` (a comma-separated list, any of it).
    #[serde(deserialize_with = "list")]
    pub api_jwt_audience: Vec<String>,
    /// Where the issuer's keys are; by default where its discovery document says.
    pub api_jwt_jwks_url: Option<String>,
    /// The claim with the scopes: a text with spaces or a list, of `read` or `windlass:read` and the like. One that begins
    /// with `/` is a JSON pointer.
    pub api_jwt_scopes_claim: String,
    /// The claim with the tenant. Where it is set, a token without it is refused.
    pub api_jwt_tenant_claim: Option<String>,
    /// How far clocks may be apart.
    #[serde(with = "duration")]
    pub api_jwt_leeway: Duration,
    /// Which signatures are taken (a comma-separated list).
    #[serde(deserialize_with = "list")]
    pub api_jwt_algorithms: Vec<JwtAlgorithm>,

    /// Hosts, and networks such as `10.1.0.0/16`, where webhooks may be although they are not public (a comma-separated list).
    #[serde(deserialize_with = "list")]
    pub webhook_allow: Vec<Allowed>,
    /// Whether webhooks may be at `http` URLs as well.
    pub webhook_allow_http: bool,

    /// How many jobs one worker process runs at a time.
    pub worker_concurrency: usize,
    /// How many more it claims ahead; by default as many as it runs, up to 100.
    pub worker_buffer: Option<usize>,
    /// Which queues it takes from (a comma-separated list); by default those of the kinds it handles.
    #[serde(deserialize_with = "list")]
    pub worker_queues: Vec<QueueName>,
    /// How it divides itself among the priorities of jobs: `weighted` or `strict`.
    pub worker_priorities: Priorities,
    /// A name for people; by default the host's name.
    pub worker_label: Option<String>,
    /// A worker silent for this long loses its jobs to others.
    #[serde(with = "duration")]
    pub worker_lease: Duration,
    /// On shutdown, how long running handlers may still take.
    #[serde(with = "duration")]
    pub worker_grace: Duration,
    /// How long a handler that was told to stop may take to do so before it is dropped.
    #[serde(with = "duration")]
    pub worker_abort_after: Duration,
    /// A job that has taken this many workers down with it is `dead`.
    pub worker_crash_limit: u32,

    /// The address at which the process shows its metrics to Prometheus, to whoever can reach it; by default none.
    pub metrics_listen: Option<SocketAddr>,
    /// Which log lines are written: a level, or directives such as `info,windlass_worker=debug`.
    pub log: String,
    /// How: `text` or `json`.
    pub log_format: LogFormat,
}

/// How long the jobs of one queue are kept; what is not said is as for any queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueRetention {
    /// Those that succeeded.
    #[serde(with = "optional_duration")]
    pub succeeded: Option<Duration>,
    /// Those that were cancelled.
    #[serde(with = "optional_duration")]
    pub cancelled: Option<Duration>,
    /// The dead.
    #[serde(with = "optional_duration")]
    pub dead: Option<Duration>,
}

impl From<&QueueRetention> for Keep {
    fn from(keep: &QueueRetention) -> Self {
        Self { succeeded: keep.succeeded, cancelled: keep.cancelled, dead: keep.dead }
    }
}

/// Whether requests to the API need a key or token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiAuth {
    /// Whoever reaches the API may do everything.
    Off,
    /// Without one there is no answer but 401.
    Required,
}

/// A way to sign tokens such that who verifies them cannot make any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are the names of RFC 7518 and RFC 8037")]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl FromStr for JwtAlgorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        serde_json::from_value(text.into()).map_err(|_| {
            format!(
                "{text:?} is not taken; use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
            )
        })
    }
}

/// What the API does with kinds that no worker has made known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownKinds {
    /// Answers 422 and stores nothing.
    Refuse,
    /// Accepts the job for a worker that may come.
    Accept,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one object per line.
    Json,
}

/// Settings that cannot be used, with the setting and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value has the wrong form, a key is unknown, or the file cannot be read.
    #[error("cannot read the settings: {0}")]
    Read(#[source] Box<figment::Error>),
    /// A value is out of its range.
    #[error("{setting} {problem}")]
    Invalid {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Longer is a mistake, and clocks cannot count for ever.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);
/// More jobs at a time in one process are a mistake.
const MOST_JOBS: usize = 1_000_000;

/// The `broker_url` of those who want no broker beside their database.
const STORE_BROKER: &str = "store:";

impl Default for Settings {
    fn default() -> Self {
        let client = ClientOptions::default();
        let store = StoreOptions::default();
        let workflow = WorkflowLimits::default();
        Self {
            store_url: SecretUrl::from("sqlite:windlass-data/windlass.db".to_owned()),
            broker_url: SecretUrl::from(STORE_BROKER.to_owned()),
            broker_from_url: None,
            store_schema: store.schema,
            store_connections: store.connections,
            store_timeout: store.deadline,
            store_replica_urls: Vec::new(),
            store_replica_max_lag: store.replica_max_lag,
            republish_after: client.republish_after,
            republish_bound: client.republish_bound,
            read_cache: client.read_cache,
            shared_read_cache: None,
            result_max: 1024 * 1024,
            result_ttl: None,
            retention_succeeded: None,
            retention_cancelled: None,
            retention_dead: None,
            retention_queues: BTreeMap::new(),
            encryption_keys: Vec::new(),
            objects_url: None,
            objects_above: 64 * 1024,
            api_listen: "127.0.0.1:8080".into(),
            grpc_listen: None,
            api_max_body: 1024 * 1024,
            api_max_batch_body: 16 * 1024 * 1024,
            api_max_depth: 64,
            api_unknown_kinds: UnknownKinds::Refuse,
            api_workflow_jobs: workflow.jobs,
            api_workflow_parents: workflow.parents,
            api_timeout: Duration::from_secs(30),
            api_max_wait: Duration::from_secs(60),
            api_max_waiting: 10_000,
            api_max_in_flight: 2_000,
            api_max_delay: Duration::from_millis(5),
            api_max_connections: 20_000,
            api_max_head: 32 * 1024,
            api_body_memory: 256 * 1024 * 1024,
            api_tls_certificate: None,
            api_tls_key: None,
            api_cors_origins: Vec::new(),
            api_idempotency_ttl: Duration::from_secs(24 * 3600),
            api_rate_ip: None,
            api_rate_key: None,
            api_rate_tenant: None,
            shared_url: None,
            api_trusted_proxies: Vec::new(),
            api_proxy_header: ProxyHeader::default(),
            api_auth: None,
            api_jwt_issuer: None,
            api_jwt_audience: Vec::new(),
            api_jwt_jwks_url: None,
            api_jwt_scopes_claim: "scope".into(),
            api_jwt_tenant_claim: None,
            api_jwt_leeway: Duration::from_secs(30),
            api_jwt_algorithms: vec![JwtAlgorithm::RS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA],
            webhook_allow: Vec::new(),
            webhook_allow_http: false,
            worker_concurrency: 100,
            worker_buffer: None,
            worker_queues: Vec::new(),
            worker_priorities: Priorities::Weighted,
            worker_label: None,
            worker_lease: Duration::from_secs(30),
            worker_grace: Duration::from_secs(25),
            worker_abort_after: Duration::from_secs(5),
            worker_crash_limit: 3,
            metrics_listen: None,
            log: "info".into(),
            log_format: LogFormat::Text,
        }
    }
}

impl Settings {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// The first value that cannot be used, by name and place.
    pub fn load() -> Result<Self, SettingsError> {
        let named = std::env::var_os("WINDLASS_CONFIG").map(PathBuf::from);
        if named.as_ref().is_some_and(|file| !file.is_file()) {
            return Err(SettingsError::Invalid {
                setting: "WINDLASS_CONFIG",
                problem: "names a file that does not exist",
            });
        }
        Self::read(&named.unwrap_or_else(|| "windlass.toml".into()))
    }

    fn read(file: &Path) -> Result<Self, SettingsError> {
        let mut sources = Figment::from(Serialized::defaults(Self::default()));
        // Merging a file that is not there is an error.
        if file.is_file() {
            sources = sources.merge(Toml::file_exact(file));
        }
        Self::extract(sources.merge(Self::environment()))
    }

    fn extract(sources: Figment) -> Result<Self, SettingsError> {
        let settings: Self = sources.extract().map_err(|e| SettingsError::Read(Box::new(e)))?;
        settings.check()?;
        Ok(settings)
    }

    /// Only variables that are settings: others with our prefix belong to handlers and tests.
    fn environment() -> Env {
        let names: Vec<String> = match serde_json::to_value(Self::default()) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
            _ => Vec::new(),
        };
        Env::prefixed("WINDLASS_").filter(move |key| names.iter().any(|name| key == name.as_str()))
    }

    fn check(&self) -> Result<(), SettingsError> {
        let invalid = |setting, problem| Err(SettingsError::Invalid { setting, problem });
        if self.store_connections < 2 {
            return invalid("store_connections", "must be at least 2");
        }
        if !(1..=MOST_JOBS).contains(&self.worker_concurrency) {
            return invalid("worker_concurrency", "must be 1 to 1000000");
        }
        if self.worker_buffer.is_some_and(|buffer| buffer > MOST_JOBS) {
            return invalid("worker_buffer", "may be at most 1000000");
        }
        let mut names: Vec<&str> = self.encryption_keys.iter().map(EncryptionKey::id).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("encryption_keys", "has two keys of one name");
        }
        match self.api_jwt_issuer {
            Some(_) if self.api_auth == Some(ApiAuth::Off) => {
                return invalid("api_jwt_issuer", "is of no use while api_auth is off");
            }
            Some(_) if self.api_jwt_audience.is_empty() => {
                return invalid("api_jwt_audience", "must say whom the issuer's tokens are for");
            }
            Some(_) if self.api_jwt_algorithms.is_empty() => {
                return invalid("api_jwt_algorithms", "must have at least one");
            }
            _ => {}
        }
        if let Some(keep) = self.shared_read_cache {
            if self.shared_url.is_none() {
                return invalid("shared_read_cache", "needs a Redis to keep jobs in: set shared_url as well");
            }
            if self.store_url.expose().starts_with("sqlite:") {
                return invalid(
                    "shared_read_cache",
                    "needs jobs to be kept in Postgres; those of an SQLite file are read as fast from there",
                );
            }
            if !(Duration::from_secs(1)..=LONGEST).contains(&keep) {
                return invalid("shared_read_cache", "must be 1s to 365d");
            }
        }
        let rates = [
            ("api_rate_ip", self.api_rate_ip),
            ("api_rate_key", self.api_rate_key),
            ("api_rate_tenant", self.api_rate_tenant),
        ];
        // One after the other.
        let mut waits = Duration::ZERO;
        for (setting, rate) in rates {
            waits += rate.map(|rate| rate.longest_wait()).unwrap_or_default();
            if !waits.is_zero() && waits >= self.api_timeout {
                return invalid(setting, "has a queue in which requests may wait longer than api_timeout");
            }
        }
        if self.worker_crash_limit == 0 {
            return invalid("worker_crash_limit", "must be at least 1");
        }
        if self.worker_lease < Duration::from_secs(1) {
            return invalid("worker_lease", "must be at least 1s");
        }
        if self.api_max_in_flight == 0 {
            return invalid("api_max_in_flight", "must be at least 1");
        }
        if self.api_max_connections == 0 {
            return invalid("api_max_connections", "must be at least 1");
        }
        if self.api_max_head < 8192 {
            return invalid("api_max_head", "must be at least 8192");
        }
        if self.api_body_memory / 2 < self.api_max_body.max(self.api_max_batch_body) {
            return invalid("api_body_memory", "must be at least twice api_max_body and api_max_batch_body");
        }
        if self.api_tls_certificate.is_some() != self.api_tls_key.is_some() {
            return invalid("api_tls_certificate", "and api_tls_key go together: set both, or neither");
        }
        if self.api_cors_origins.len() > 1 && self.api_cors_origins.contains(&Origin::Any) {
            return invalid(
                "api_cors_origins",
                "has * beside others, which so are of no use: leave out either",
            );
        }
        let positive = [
            ("store_timeout", self.store_timeout),
            ("store_replica_max_lag", self.store_replica_max_lag),
            ("api_timeout", self.api_timeout),
            ("api_max_delay", self.api_max_delay),
        ];
        for (setting, duration) in positive {
            if duration.is_zero() {
                return invalid(setting, "must be more than 0s");
            }
        }
        let durations = [
            ("store_timeout", self.store_timeout),
            ("store_replica_max_lag", self.store_replica_max_lag),
            ("republish_after", self.republish_after),
            ("republish_bound", self.republish_bound),
            ("api_timeout", self.api_timeout),
            ("api_max_delay", self.api_max_delay),
            ("api_max_wait", self.api_max_wait),
            ("api_idempotency_ttl", self.api_idempotency_ttl),
            ("api_jwt_leeway", self.api_jwt_leeway),
            ("worker_lease", self.worker_lease),
            ("worker_grace", self.worker_grace),
        ];
        match durations.into_iter().find(|(_, duration)| *duration > LONGEST) {
            Some((setting, _)) => invalid(setting, "may be at most 365d"),
            None => Ok(()),
        }
    }

    /// The broker's URL.
    #[must_use]
    pub fn broker(&self) -> SecretUrl {
        self.resolve(&self.broker_url)
    }

    /// The URL of the broker that is being left, if one is.
    #[must_use]
    pub fn broker_from(&self) -> Option<SecretUrl> {
        self.broker_from_url.as_ref().map(|url| self.resolve(url))
    }

    /// `store:` is the Postgres database of the store, with a schema beside the store's; or a file beside the store's
    /// SQLite file.
    fn resolve(&self, url: &SecretUrl) -> SecretUrl {
        let store = self.store_url.expose();
        if url.expose() != STORE_BROKER {
            return url.clone();
        }
        SecretUrl::from(if store.starts_with("sqlite:") {
            let (file, parameters) = store.split_once('?').unwrap_or((store, ""));
            let file = file.strip_suffix(".db").unwrap_or(file);
            let mark = if parameters.is_empty() { "" } else { "?" };
            format!("{file}-broker.db{mark}{parameters}")
        } else {
            let mark = if store.contains('?') { '&' } else { '?' };
            format!("{store}{mark}schema={}_broker", self.store_schema)
        })
    }

    /// Where webhooks may be.
    #[must_use]
    pub fn outside(&self) -> Outside {
        Outside { allow: self.webhook_allow.clone(), allow_http: self.webhook_allow_http }
    }

    /// How the client watches its outbox.
    #[must_use]
    pub fn client_options(&self) -> ClientOptions {
        ClientOptions {
            republish_after: self.republish_after,
            republish_bound: self.republish_bound,
            read_cache: self.read_cache,
            ..ClientOptions::default()
        }
    }

    /// Where jobs that are over are kept for all instances, if they are.
    ///
    /// # Errors
    /// A `shared_url` that can never work, or a build that cannot speak with Redis.
    pub fn shared_reads(&self) -> Result<Option<SharedReads>, SharedUrlError> {
        let open = |(keep, url): (Duration, &SecretUrl)| SharedReads::open(url.expose(), keep);
        self.shared_read_cache.zip(self.shared_url.as_ref()).map(open).transpose()
    }

    /// How the store is opened.
    #[must_use]
    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            schema: self.store_schema.clone(),
            connections: self.store_connections,
            deadline: self.store_timeout,
            replicas: self.store_replica_urls.iter().map(|url| url.expose().to_owned()).collect(),
            replica_max_lag: self.store_replica_max_lag,
            clock: None,
            retention: Retention {
                any: Keep {
                    succeeded: self.retention_succeeded,
                    cancelled: self.retention_cancelled,
                    dead: self.retention_dead,
                },
                queues: self
                    .retention_queues
                    .iter()
                    .map(|(queue, keep)| (queue.clone(), keep.into()))
                    .collect(),
            },
        }
    }

    /// What lies between what users see and what the store keeps.
    ///
    /// # Errors
    /// An `objects_url` that can never work.
    pub fn envelope(&self) -> Result<Envelope, EnvelopeError> {
        let open = |url: &SecretUrl| Objects::open(url.expose(), self.objects_above, self.store_timeout);
        let objects = self.objects_url.as_ref().map(open).transpose()?;
        let envelope = Envelope::new(self.encryption_keys.clone(), self.result_max);
        Ok(envelope.result_ttl(self.result_ttl).objects(objects))
    }
}
