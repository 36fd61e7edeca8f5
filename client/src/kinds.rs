use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};
use tokio_util::task::TaskTracker;
use windlass_core::{Kind, KindInfo, Store, StoreError};

/// How old an answer may be without anybody asking anew.
const FRESH: Duration = Duration::from_secs(10);
/// How old it may be at all. In between it is given at once, and the store is asked behind it.
const STALE: Duration = Duration::from_secs(60);
/// How often something unknown, or a doubt, may make us ask the store.
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
    kinds: Arc<HashMap<Kind, Arc<KindInfo>>>,
}

impl Kinds {
    pub(crate) async fn get(
        self: &Arc<Self>,
        store: &Arc<dyn Store>,
        tasks: &TaskTracker,
        kind: &Kind,
    ) -> Result<Option<Arc<KindInfo>>, StoreError> {
        let Some(known) = self.known() else { return self.ask(&**store, kind, STALE).await };
        let age = known.at.elapsed();
        match known.kinds.get(kind) {
            Some(info) if age < FRESH => Ok(Some(info.clone())),
            Some(info) if age < STALE => {
                self.refresh(store, tasks);
                Ok(Some(info.clone()))
            }
            None if age < RETRY => Ok(None),
            Some(_) => self.ask(&**store, kind, STALE).await,
            None => self.ask(&**store, kind, RETRY).await,
        }
    }

    /// The newest word, to half a second.
    pub(crate) async fn get_fresh(
        &self,
        store: &dyn Store,
        kind: &Kind,
    ) -> Result<Option<Arc<KindInfo>>, StoreError> {
        self.ask(store, kind, RETRY).await
    }

    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer of the store, unless someone else has got one meanwhile that is no older than this.
    async fn ask(
        &self,
        store: &dyn Store,
        kind: &Kind,
        oldest: Duration,
    ) -> Result<Option<Arc<KindInfo>>, StoreError> {
        let _asking = self.asking.lock().await;
        let known = match self.known() {
            Some(known) if known.at.elapsed() < oldest => known,
            _ => self.load(store).await?,
        };
        Ok(known.kinds.get(kind).cloned())
    }

    /// Asks the store in a task of its own, unless someone is at it.
    fn refresh(self: &Arc<Self>, store: &Arc<dyn Store>, tasks: &TaskTracker) {
        if self.asking.try_lock().is_err() {
            return;
        }
        let (kinds, store) = (self.clone(), store.clone());
        tasks.spawn(async move {
            let _asking = kinds.asking.lock().await;
            // Others may have come in between the look at the lock and here.
            if kinds.known().is_some_and(|known| known.at.elapsed() < FRESH) {
                return;
            }
            if let Err(error) = kinds.load(&*store).await {
                tracing::debug!(%error, "what is known of kinds could not be renewed");
            }
        });
    }

    async fn load(&self, store: &dyn Store) -> Result<Known, StoreError> {
        let at = Instant::now();
        let said = store.kinds().await?;
        let before = self.known().map(|known| known.kinds).unwrap_or_default();
        // What has not changed stays the same one, so that others can tell.
        let kinds = said.into_iter().map(|info| match before.get(&info.kind) {
            Some(same) if **same == info => (info.kind, same.clone()),
            _ => (info.kind.clone(), Arc::new(info)),
        });
        let known = Known { at, kinds: Arc::new(kinds.collect()) };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known.clone());
        Ok(known)
    }
}
