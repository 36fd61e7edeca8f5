//! Rates that all instances count together, in Redis. It need not be there: an instance without it counts by itself.

use std::time::Duration;

use redis::Script;
use tokio::{sync::OnceCell, time::timeout};
use windlass_client::{SharedRedis, SharedUrlError, namespace};
use windlass_core::Store;

use super::{
    gcra::{Gcra, Verdict},
    table::Key,
};

/// The Redis in which they are counted.
pub(super) struct Shared {
    redis: SharedRedis,
    take: Script,
    /// How long a request waits.
    patience: Duration,
}

/// What begins the names of a system's counts, once the store has said which system it is.
#[derive(Default)]
pub(super) struct Names(OnceCell<String>);

impl Shared {
    pub(super) fn open(url: &str, patience: Duration) -> Result<Self, SharedUrlError> {
        let redis = SharedRedis::open(url, "each instance counts rates by itself until it does")?;
        Ok(Self { redis, take: Script::new(include_str!("take.lua")), patience })
    }

    /// Counts a request. `None`: Redis does not answer, or the store has not said yet which system it is.
    pub(super) async fn take(
        &self,
        names: &Names,
        store: &dyn Store,
        limit: &str,
        key: Key,
        gcra: &Gcra,
    ) -> Option<Verdict> {
        let mut connection = self.redis.connection(self.patience).await?;
        let name = names.get(store, self.patience).await?;
        // Redis tells the time in microseconds. Rounded up, so that there are never more than the rate allows.
        let interval = gcra.interval.div_ceil(1000);
        let gcra = Gcra { interval: interval * 1000, ..*gcra };
        let digits = u128::from_be_bytes(key);
        let mut call = self.take.key(format!("{name}:rate.1:{limit}:{digits:032x}"));
        call.arg(interval).arg(interval.saturating_mul(gcra.capacity));
        let ahead: u64 = self.redis.answer(self.patience, call.invoke_async(&mut connection)).await?;
        Some(gcra.decide(ahead.saturating_mul(1000), 0).0)
    }
}

impl Names {
    async fn get(&self, store: &dyn Store, patience: Duration) -> Option<&str> {
        if let Some(name) = self.0.get() {
            return Some(name);
        }
        let ask = async || store.operations().system().await.map(|system| namespace(&system));
        match timeout(patience, self.0.get_or_try_init(ask)).await {
            Ok(Ok(name)) => Some(name),
            Ok(Err(error)) => {
                tracing::warn!(%error, "this instance counts rates by itself until the store says which system it is");
                None
            }
            // Seen by what else asks the store.
            Err(_) => None,
        }
    }
}
