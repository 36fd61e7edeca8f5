//! A store and a broker that fail on request.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use windlass_core::{Broker, BrokerError, Capabilities, Lane, Message, Priorities, StoreError, Subscription};
use windlass_store::{Call, Intercept, Intercepted, SqliteStore};

/// How the store fails.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Unavailable,
    Timeout,
    Config,
    Unexpected,
    Panic,
    /// Waits for the token, then works.
    Until(CancellationToken),
    /// The same, but says that it is there.
    Held {
        knocked: CancellationToken,
        release: CancellationToken,
    },
}

/// What the errors hold and no client may see.
pub(crate) const SECRET: &str = "hunter2";

/// The SQLite store; what the API calls fails as long as a fault is set.
pub(crate) fn faulty_store(store: SqliteStore, fault: Arc<Mutex<Option<Fault>>>) -> Intercepted<Faults> {
    Intercepted::new(Arc::new(store), Faults { fault, gets: Arc::default() })
}

#[derive(Debug)]
pub(crate) struct Faults {
    fault: Arc<Mutex<Option<Fault>>>,
    /// How often jobs were read.
    pub(crate) gets: Arc<AtomicUsize>,
}

#[async_trait]
impl Intercept for Faults {
    async fn before(&self, call: Call) -> Result<(), StoreError> {
        if matches!(call, Call::Get) {
            self.gets.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(call, Call::Ping | Call::Insert | Call::Get | Call::Cancel | Call::Kinds) {
            return Ok(());
        }
        let fault = self.fault.lock().unwrap().clone();
        match fault {
            None => Ok(()),
            Some(Fault::Unavailable) => Err(StoreError::Unavailable(SECRET.into())),
            Some(Fault::Timeout) => Err(StoreError::Timeout(Duration::from_secs(10))),
            Some(Fault::Config) => {
                Err(StoreError::Config { problem: SECRET.into(), remedy: "mend it".into() })
            }
            Some(Fault::Unexpected) => Err(StoreError::Unexpected(SECRET.into())),
            Some(Fault::Panic) => panic!("{SECRET}"),
            Some(Fault::Until(token)) => {
                token.cancelled().await;
                Ok(())
            }
            Some(Fault::Held { knocked, release }) => {
                knocked.cancel();
                release.cancelled().await;
                Ok(())
            }
        }
    }
}

/// A broker that cannot be reached.
#[derive(Debug)]
pub(crate) struct DownBroker;

fn down() -> BrokerError {
    BrokerError::Unavailable(SECRET.into())
}

#[async_trait]
impl Broker for DownBroker {
    fn capabilities(&self) -> Capabilities {
        Capabilities { persistent: false, depth: false, shared_lanes: true }
    }

    async fn publish(&self, messages: &[Message]) -> Vec<Result<(), BrokerError>> {
        messages.iter().map(|_| Err(down())).collect()
    }

    async fn subscribe(
        &self,
        _: &[Lane],
        _: usize,
        _: Priorities,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        Err(down())
    }

    async fn depth(&self, _: &Lane) -> Result<Option<u64>, BrokerError> {
        Err(down())
    }

    async fn delete(&self, _: &[Lane]) -> Result<(), BrokerError> {
        Err(down())
    }

    async fn ping(&self) -> Result<(), BrokerError> {
        Err(down())
    }

    async fn close(&self) {}
}
