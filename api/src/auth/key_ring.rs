use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use subtle::{Choice, ConstantTimeEq as _};
use tokio::time::Instant;
use windlass_client::ApiKey;
use windlass_core::{KeyId, Keys, LiveKey};

use super::{
    Identity,
    cached::{Cached, Times},
};
use crate::problem::Problem;

/// How soon a key that was not there is looked for again: one that was just made works after this, and whoever tries
/// keys out costs the store no more than one query in this time.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is noted that a key is in use.
const NOTED: Duration = Duration::from_secs(60);

/// The API keys that are good, as the store had them a moment ago.
pub(super) struct KeyRing {
    live: Cached<HashMap<KeyId, LiveKey>>,
    /// When each was last noted as in use.
    noted: Mutex<HashMap<KeyId, Instant>>,
}

impl KeyRing {
    /// A key that has ended is good for `fresh` at most.
    pub(super) fn new(fresh: Duration) -> Self {
        let times = Times { fresh, pause: PAUSE.min(fresh), stale: fresh };
        Self { live: Cached::new(times), noted: Mutex::default() }
    }

    pub(super) async fn identify(&self, keys: &dyn Keys, text: &str) -> Result<Identity, Problem> {
        let key: ApiKey = text.parse().map_err(|_| unknown())?;
        let fetch = async {
            let live = keys.live_keys().await;
            let live = live.inspect_err(|error| tracing::warn!(%error, "the keys cannot be read"));
            Some(live.ok()?.into_iter().map(|key| (key.id.clone(), key)).collect())
        };
        let has = |live: &HashMap<KeyId, LiveKey>| live.get(key.id()).is_some_and(|live| fits(live, &key));
        let live = self.live.get(has, fetch).await;
        let live = live.ok_or_else(|| Problem::unavailable("the store does not answer", 1))?;
        let live = live.get(key.id()).filter(|live| fits(live, &key)).ok_or_else(unknown)?;
        self.note(keys, key.id()).await;
        Ok(Identity {
            subject: format!("key:{}", live.id).into(),
            scopes: live.scopes,
            tenant: live.tenant.clone(),
        })
    }

    /// Notes a use, once in a while.
    async fn note(&self, keys: &dyn Keys, id: &KeyId) {
        {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            if noted.get(id).is_some_and(|at| at.elapsed() < NOTED) {
                return;
            }
            // Before the store is asked, so that one request does it, and not all of them.
            noted.insert(id.clone(), Instant::now());
        }
        if let Err(error) = keys.keys_used(std::slice::from_ref(id)).await {
            tracing::debug!(%error, key = %id, "it is not noted that the key is in use");
        }
    }
}

/// Compares with all of its secrets, in a time that tells nothing of them.
fn fits(live: &LiveKey, key: &ApiKey) -> bool {
    let hash = key.hash();
    live.hashes.iter().fold(Choice::from(0), |fits, good| fits | good.ct_eq(&hash)).into()
}

fn unknown() -> Problem {
    Problem::unauthorized("the API key does not exist, or has been revoked, or has expired")
}
