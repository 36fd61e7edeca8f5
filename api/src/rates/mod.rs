//! How often one may ask: per address before anything is known of a request, per key or user and per tenant once that is.

mod address;
mod gcra;
#[cfg_attr(not(feature = "redis"), path = "not_shared.rs")]
mod shared;
mod table;

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};
use windlass_client::{RequestRate, SharedUrlError};
use windlass_core::Store;

pub use self::address::Proxies;
use self::{
    gcra::{Gcra, Verdict},
    shared::{Names, Shared},
    table::{Key, Table},
};
use crate::{Service, auth::Identity, problem::Problem};

/// How many keys are remembered at least, of each limit: some 6 MiB when there are so many.
const KEYS: usize = 50_000;
/// Those of draft-ietf-httpapi-ratelimit-headers-10.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");

/// How often one may ask; nothing is limited unless it is said.
#[derive(Debug, Clone, Default)]
pub struct RateLimits {
    /// From one address, or one /64 of IPv6; not for probes.
    pub ip: Option<RequestRate>,
    /// With one API key, or as one subject of tokens.
    pub key: Option<RequestRate>,
    /// For one tenant, by keys and tokens that act for it only.
    pub tenant: Option<RequestRate>,
    /// Where all instances count together; without it, each by itself.
    pub shared: Option<SharedRates>,
    /// Whom requests are from, where proxies stand between.
    pub proxies: Proxies,
}

/// A Redis in which all instances count together. While it does not answer, each counts by itself.
#[derive(Clone)]
pub struct SharedRates(Arc<Shared>);

impl SharedRates {
    /// How long a request waits for Redis, which mostly answers within a millisecond.
    pub const PATIENCE: Duration = Duration::from_millis(250);

    /// For a `redis://` or `rediss://` URL. It connects when there is something to count.
    ///
    /// # Errors
    /// A URL that can never work.
    pub fn open(url: &str, patience: Duration) -> Result<Self, SharedUrlError> {
        Shared::open(url, patience).map(|shared| Self(Arc::new(shared)))
    }
}

impl fmt::Debug for SharedRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedRates")
    }
}

/// What the API counts.
pub(crate) struct Rates {
    ip: Option<Limiter>,
    key: Option<Limiter>,
    tenant: Option<Limiter>,
    shared: Option<SharedRates>,
    /// Under which those counts are.
    names: Names,
    proxies: Proxies,
}

struct Limiter {
    name: &'static str,
    rate: RequestRate,
    table: Table,
    begun: Instant,
}

/// What a limit has said of a request.
pub(crate) struct Word {
    name: &'static str,
    rate: RequestRate,
    verdict: Verdict,
}

impl Rates {
    pub(crate) fn new(limits: RateLimits) -> Self {
        let limiter = |name, rate: Option<RequestRate>| {
            let limiter = |rate| Limiter {
                name,
                rate,
                table: Table::new(Gcra::new(&rate), KEYS),
                begun: Instant::now(),
            };
            rate.map(limiter)
        };
        Self {
            ip: limiter("ip", limits.ip),
            key: limiter("key", limits.key),
            tenant: limiter("tenant", limits.tenant),
            shared: limits.shared,
            names: Names::default(),
            proxies: limits.proxies,
        }
    }

    /// What the limits say of a request by this identity: of all of them, up to the one that refuses it. A queue is waited in.
    pub(crate) async fn admit(&self, service: &Service, identity: &Identity) -> Words {
        let mut words = Words::default();
        // `anyone` is no one in particular.
        let subject = identity.is_known().then(|| digest(&identity.subject));
        let tenant = identity.tenant.as_ref().map(|tenant| digest(tenant.as_str()));
        for (limiter, key) in [(&self.key, subject), (&self.tenant, tenant)] {
            let (Some(limiter), Some(key)) = (limiter, key) else { continue };
            if words.refusal.is_some() {
                break;
            }
            words.ask(limiter, key, service).await;
        }
        words
    }
}

impl Limiter {
    async fn take(&self, key: Key, rates: &Rates, store: &dyn Store) -> Verdict {
        if let Some(SharedRates(shared)) = &rates.shared
            && let Some(verdict) = shared.take(&rates.names, store, self.name, key, &self.table.gcra).await
        {
            return verdict;
        }
        // Centuries.
        self.table.take(key, u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What several limits have said.
#[derive(Default)]
pub(crate) struct Words {
    said: Vec<Word>,
    refusal: Option<Problem>,
}

impl Words {
    async fn ask(&mut self, limiter: &Limiter, key: Key, service: &Service) {
        let verdict = limiter.take(key, &service.rates, &**service.client.store()).await;
        let word = Word { name: limiter.name, rate: limiter.rate, verdict };
        self.refusal = match verdict.goes {
            Ok(0) => None,
            Ok(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_nanos(wait)) => None,
                    () = service.ending.cancelled() => {
                        Some(Problem::unavailable("this instance is shutting down; nothing was stored", 1))
                    }
                }
            }
            Err(_) => Some(word.refusal()),
        };
        self.said.push(word);
    }

    /// The refusal, if there is one.
    pub(crate) fn refused(&self) -> Option<Response> {
        let mut response = self.refusal.clone()?.into_response();
        self.tell(response.headers_mut());
        Some(response)
    }

    /// Adds what has been said to the headers of the answer. Both fields are lists, which may be in several lines.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        for word in &self.said {
            for (name, value) in word.fields() {
                headers.append(name, value);
            }
        }
    }
}

impl Word {
    fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Self { name, rate, verdict } = self;
        let policy = format!("\"{name}\";q={};w={}", rate.count(), rate.per().as_secs());
        let left = format!("\"{name}\";r={};t={}", verdict.remaining, seconds(verdict.full_in));
        let fields = [(POLICY, policy), (LEFT, left)];
        // Quoted names and numbers always are values of headers.
        fields
            .into_iter()
            .filter_map(|(field, text)| Some((field, HeaderValue::try_from(text).ok()?)))
            .collect()
    }

    fn refusal(&self) -> Problem {
        let whose = match self.name {
            "ip" => "from this address",
            "key" => "with this key, or by this user",
            _ => "for this tenant",
        };
        let wait = self.verdict.goes.err().unwrap_or_default();
        tracing::debug!(limit = self.name, "more requests than the rate allows");
        Problem::too_many_requests(whose, &self.rate, seconds(wait))
    }
}

/// Counts requests per address.
pub(crate) async fn by_address(service: &Service, request: Request, next: Next) -> Response {
    let rates = &service.rates;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let (Some(limiter), Some(peer)) = (&rates.ip, peer) else { return next.run(request).await };
    let client = rates.proxies.client(peer, request.headers());
    let mut words = Words::default();
    words.ask(limiter, address::key(client), service).await;
    if let Some(refused) = words.refused() {
        return refused;
    }
    let mut response = next.run(request).await;
    words.tell(response.headers_mut());
    response
}

/// Names may be as long as a head, and are remembered by the thousand.
fn digest(name: &str) -> Key {
    let mut key = Key::default();
    let whole = Sha256::digest(name);
    key.iter_mut().zip(whole).for_each(|(byte, digest)| *byte = digest);
    key
}

/// Whole seconds, rounded up.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}
