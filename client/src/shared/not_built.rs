//! Shared reads, where this build cannot speak with Redis.

use std::{collections::HashMap, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use windlass_core::{Edition, JobId, JobRecord, Store, StoreError};

use super::{SharedReads, SharedUrlError};

/// There is none.
pub(super) enum Place {}

impl Place {
    pub(super) fn open(_: &str, _: Duration) -> Result<Self, SharedUrlError> {
        Err(SharedUrlError::NotBuilt)
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum Sharing {}

impl Sharing {
    pub(crate) fn start(shared: &SharedReads, _: &TaskTracker, _: CancellationToken) -> Self {
        match *shared.0 {}
    }

    pub(crate) async fn look(
        &self,
        _: &dyn Store,
        _: &[JobId],
    ) -> Result<Option<(Edition, HashMap<JobId, JobRecord>)>, StoreError> {
        match *self {}
    }

    pub(crate) fn keep(&self, _: &Edition, _: &JobRecord) {
        match *self {}
    }
}
