use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Stands between an attempt and its handler where something may come between them: layers, or the gathering of a
/// batch. Handlers that are called directly have none.
///
/// It knows whether the handler has begun, from which moment its timeout counts, and whether it is still at work when
/// nobody waits for its answer any more.
pub(crate) struct Gate {
    phase: AtomicU8,
    begun: CancellationToken,
    /// Cancelled when the handler is told to stop, by whomever. The handler has a child of it.
    told: CancellationToken,
    /// The shortest time that a layer allows the handler, in nanoseconds.
    limit: AtomicU64,
    /// The attempt's place among the running ones. It goes with a blocking handler's thread as well.
    permit: Mutex<Option<Arc<OwnedSemaphorePermit>>>,
    /// Held by what cannot be dropped: the thread of a blocking handler, a job's part in a batch.
    grips: TaskTracker,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What keeps an attempt from ending, and its place from being given to another.
pub(crate) struct Grip {
    _at_work: TaskTrackerToken,
    _permit: Option<Arc<OwnedSemaphorePermit>>,
}

impl Gate {
    pub(crate) fn new(told: CancellationToken, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            phase: AtomicU8::new(WAITING),
            begun: CancellationToken::new(),
            told,
            limit: AtomicU64::new(u64::MAX),
            permit: Mutex::new(permit.map(Arc::new)),
            grips: TaskTracker::new(),
        }
    }

    /// The handler is about to be called. `false`: it must not be any more.
    pub(crate) fn begin(&self) -> bool {
        let now = self.phase.compare_exchange(WAITING, BEGUN, Ordering::AcqRel, Ordering::Acquire);
        self.begun.cancel();
        matches!(now, Ok(_) | Err(BEGUN))
    }

    /// The handler is not to be called. `false`: it has been already.
    pub(crate) fn give_up(&self) -> bool {
        let now = self.phase.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire);
        matches!(now, Ok(_) | Err(GIVEN_UP))
    }

    /// Until the handler is called.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    pub(crate) fn told(&self) -> &CancellationToken {
        &self.told
    }

    /// Allows the handler no more than `limit`.
    pub(crate) fn limit(&self, limit: Duration) {
        self.limit.fetch_min(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::AcqRel);
    }

    /// The shorter of `timeout` and what layers allow.
    pub(crate) fn limited(&self, timeout: Option<Duration>) -> Option<Duration> {
        let limit = self.limit.load(Ordering::Acquire);
        let limit = (limit != u64::MAX).then(|| Duration::from_nanos(limit));
        [timeout, limit].into_iter().flatten().min()
    }

    pub(crate) fn grip(&self) -> Grip {
        Grip { _at_work: self.grips.token(), _permit: self.lock_permit().clone() }
    }

    /// The layers have ended. Should one of them have given up on a handler that cannot be dropped, it is told to stop,
    /// and waited for.
    pub(crate) async fn left(&self) {
        if !self.grips.is_empty() {
            self.told.cancel();
        }
        self.grips.close();
        self.grips.wait().await;
    }

    /// Gives back the attempt's place, unless a thread is still in it.
    pub(crate) fn release(&self) {
        self.lock_permit().take();
    }

    fn lock_permit(&self) -> std::sync::MutexGuard<'_, Option<Arc<OwnedSemaphorePermit>>> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
