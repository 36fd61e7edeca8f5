use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use windlass_core::{Kind, KindInfo, Store, StoreError};

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(30);
/// How often an unknown kind may make us ask the store.
const RETRY: Duration = Duration::from_millis(500);

/// What workers have said of their kinds, kept for a while so that an enqueue asks no one.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    known: RwLock<Option<Known>>,
    /// Held while the store is asked, so that a crowd asks once. The one lock that is meant to span an await.
    asking: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    kinds: Arc<HashMap<Kind, KindInfo>>,
}

impl Kinds {
    pub(crate) async fn get(&self, store: &dyn Store, kind: &Kind) -> Result<Option<KindInfo>, StoreError> {
        if let Some(answer) = self.answer(kind) {
            return Ok(answer);
        }
        let _asking = self.asking.lock().await;
        if let Some(answer) = self.answer(kind) {
            return Ok(answer);
        }
        let kinds = store.kinds().await?.into_iter().map(|info| (info.kind.clone(), info)).collect();
        let known = Known { at: Instant::now(), kinds: Arc::new(kinds) };
        let answer = known.kinds.get(kind).cloned();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(answer)
    }

    /// The answer, if what is known is good enough to give one.
    fn answer(&self, kind: &Kind) -> Option<Option<KindInfo>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref()?;
        let info = known.kinds.get(kind);
        let limit = if info.is_some() { FRESH } else { RETRY };
        (known.at.elapsed() < limit).then(|| info.cloned())
    }
}
