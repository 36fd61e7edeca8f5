use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

/// Something fetched now and then, so that a request asks no one.
#[derive(Debug)]
pub(super) struct Cached<T> {
    times: Times,
    newest: RwLock<Option<(Instant, Arc<T>)>>,
    /// When it was last tried. Held while fetching, so that a crowd asks once: the one lock that is meant to span an await.
    fetching: Mutex<Option<Instant>>,
}

/// How old a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// So long it is not fetched again, unless something is missing in it.
    pub(super) fresh: Duration,
    /// So long it is not fetched again, come what may.
    pub(super) pause: Duration,
    /// So long it is used while it cannot be fetched.
    pub(super) stale: Duration,
}

impl<T> Cached<T> {
    pub(super) fn new(times: Times) -> Self {
        Self { times, newest: RwLock::default(), fetching: Mutex::default() }
    }

    /// The value, fetched anew where it is too old or something is missing in it. `None`: it cannot be had now, which
    /// `fetch` has logged.
    pub(super) async fn get(
        &self,
        complete: impl Fn(&T) -> bool,
        fetch: impl Future<Output = Option<T>>,
    ) -> Option<Arc<T>> {
        let Times { fresh, pause, stale } = self.times;
        let good = || self.younger(fresh).filter(|value| complete(value)).or_else(|| self.younger(pause));
        if let Some(value) = good() {
            return Some(value);
        }
        let mut tried = match self.younger(stale).filter(|value| complete(value)) {
            // Someone else fetches it already, and need not be waited for.
            Some(value) => match self.fetching.try_lock() {
                Ok(tried) => tried,
                Err(_) => return Some(value),
            },
            None => self.fetching.lock().await,
        };
        if let Some(value) = good() {
            return Some(value);
        }
        if tried.is_none_or(|tried| tried.elapsed() >= pause) {
            let fetched = fetch.await;
            *tried = Some(Instant::now());
            if let Some(value) = fetched {
                let value = Arc::new(value);
                let newest = Some((Instant::now(), value.clone()));
                *self.newest.write().unwrap_or_else(PoisonError::into_inner) = newest;
                return Some(value);
            }
        }
        self.younger(stale)
    }

    fn younger(&self, age: Duration) -> Option<Arc<T>> {
        let newest = self.newest.read().unwrap_or_else(PoisonError::into_inner);
        newest.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, value)| value.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_fetched_as_seldom_as_the_times_say() {
        let cached = Cached::new(Times { fresh: 10 * SECOND, pause: SECOND, stale: 60 * SECOND });
        let (fetches, down) = (AtomicU32::new(0), AtomicU32::new(0));
        let fetch = async || {
            let count = fetches.fetch_add(1, Ordering::SeqCst);
            (down.load(Ordering::SeqCst) == 0).then_some(count)
        };
        let get = async |complete: bool| cached.get(|_| complete, fetch()).await.map(|value| *value);
        assert_eq!((get(true).await, get(true).await), (Some(0), Some(0)));
        assert_eq!(get(false).await, Some(0), "what is missing in a new one does not exist");
        tokio::time::advance(SECOND).await;
        assert_eq!((get(true).await, get(false).await, get(false).await), (Some(0), Some(1), Some(1)));
        tokio::time::advance(10 * SECOND).await;
        assert_eq!(get(true).await, Some(2));
        down.store(1, Ordering::SeqCst);
        tokio::time::advance(10 * SECOND).await;
        assert_eq!((get(true).await, get(true).await), (Some(2), Some(2)));
        assert_eq!(fetches.load(Ordering::SeqCst), 4, "one failure a second");
        tokio::time::advance(50 * SECOND).await;
        assert_eq!((get(true).await, get(true).await), (None, None));
        assert_eq!(fetches.load(Ordering::SeqCst), 5);
        down.store(0, Ordering::SeqCst);
        assert_eq!(get(true).await, None, "not so soon");
        tokio::time::advance(SECOND).await;
        assert_eq!(get(true).await, Some(5));
    }
}
