use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use windlass_core::Timestamp;

/// A clock that stands still until it is moved or set. Stores opened with clones of one clock share its time.
///
/// ```
/// # use std::time::Duration;
/// # use windlass_store::{StoreOptions, VirtualClock};
/// let clock = VirtualClock::default();
/// let options = StoreOptions { clock: Some(clock.clone()), ..StoreOptions::default() };
/// let before = clock.now();
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!((clock.now() - before).num_minutes(), 60);
/// ```
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<AtomicI64>);

impl VirtualClock {
    /// A clock that shows `time`, to the microsecond.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(time.timestamp_micros())))
    }

    /// The time it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX_UTC)
    }

    /// Sets it, on or back, to the microsecond.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.timestamp_micros(), Ordering::SeqCst);
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Default for VirtualClock {
    /// A clock that stopped now.
    fn default() -> Self {
        Self::at(chrono::Utc::now())
    }
}
