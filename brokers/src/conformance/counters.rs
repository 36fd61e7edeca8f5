use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// The counters of this process, which all its tests share.
static COUNTERS: LazyLock<Counters> = LazyLock::new(|| {
    let counters = Counters::default();
    metrics::set_global_recorder(counters.clone()).expect("no other recorder");
    counters
});

#[derive(Clone, Default)]
struct Counters(Arc<Mutex<HashMap<Key, Arc<AtomicU64>>>>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<AtomicU64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counter `name`, over all kinds of broker. Counts from the first call on.
pub(super) fn counted(name: &str) -> u64 {
    let counters = COUNTERS.lock();
    let named = counters.iter().filter(|(key, _)| key.name() == name);
    named
        .map(|(key, count)| {
            assert!(
                key.labels().any(|label| label.key() == "broker" && !label.value().is_empty()),
                "{key:?}"
            );
            count.load(Ordering::Relaxed)
        })
        .sum()
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(self.lock().entry(key.clone()).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
