//! Rates that all instances count together, where this build cannot speak with Redis.

use std::time::Duration;

use windlass_client::SharedUrlError;
use windlass_core::Store;

use super::{
    gcra::{Gcra, Verdict},
    table::Key,
};

/// There is none.
pub(super) enum Shared {}

/// Of nothing.
#[derive(Default)]
pub(super) struct Names;

impl Shared {
    pub(super) fn open(_: &str, _: Duration) -> Result<Self, SharedUrlError> {
        Err(SharedUrlError::NotBuilt)
    }

    pub(super) async fn take(&self, _: &Names, _: &dyn Store, _: &str, _: Key, _: &Gcra) -> Option<Verdict> {
        match *self {}
    }
}
