//! A store that fails as a network can make it fail: before the call, or after its commit.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use windlass_core::{Store, StoreError, WorkerId};
use windlass_store::{Call, Intercept, Intercepted};

/// A real store that fails as told.
pub type FaultyStore = Intercepted<Faulty>;

pub fn faulty(store: Arc<dyn Store>) -> Arc<FaultyStore> {
    Arc::new(Intercepted::new(store, Faulty::default()))
}

/// What is to fail, and what was seen.
#[derive(Debug, Default)]
pub struct Faulty {
    /// Every heartbeat fails without reaching the store.
    pub heartbeats_fail: AtomicBool,
    /// Every finish fails without reaching the store.
    pub finishes_fail: AtomicBool,
    failed_finishes: AtomicUsize,
    /// So many claims will commit, and then their answers are lost.
    pub claims_to_lose: AtomicUsize,
    /// The same for finishes.
    pub finishes_to_lose: AtomicUsize,
    /// The worker that registered last.
    worker: Mutex<Option<WorkerId>>,
    registered: AtomicUsize,
}

impl Faulty {
    /// The worker that registered last.
    pub fn worker(&self) -> WorkerId {
        self.worker.lock().unwrap().expect("a worker has registered")
    }

    /// How many workers have registered.
    pub fn registered(&self) -> usize {
        self.registered.load(Ordering::SeqCst)
    }

    /// How many finishes have failed without reaching the store.
    pub fn failed_finishes(&self) -> usize {
        self.failed_finishes.load(Ordering::SeqCst)
    }
}

pub fn set(fault: &AtomicBool, on: bool) {
    fault.store(on, Ordering::SeqCst);
}

fn lost() -> StoreError {
    StoreError::Unavailable("the connection was lost".into())
}

fn fail_if(fault: &AtomicBool) -> Result<(), StoreError> {
    if fault.load(Ordering::SeqCst) { Err(lost()) } else { Ok(()) }
}

/// Loses the answer, if it is one of those to be lost.
fn lose(left: &AtomicUsize) -> Result<(), StoreError> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(lost()),
        Err(_) => Ok(()),
    }
}

#[async_trait]
impl Intercept for Faulty {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::Heartbeat => fail_if(&self.heartbeats_fail),
            Call::Finish => fail_if(&self.finishes_fail).inspect_err(|_| {
                self.failed_finishes.fetch_add(1, Ordering::SeqCst);
            }),
            _ => Ok(()),
        }
    }

    async fn after(&self, call: Call) -> Result<(), StoreError> {
        match call {
            Call::Claim => lose(&self.claims_to_lose),
            Call::Finish => lose(&self.finishes_to_lose),
            Call::Register(worker) => {
                *self.worker.lock().unwrap() = Some(worker);
                self.registered.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
