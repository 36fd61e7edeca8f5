//! What the error records of expired jobs say, in both stores.

pub(crate) const LATE: &str = "expired: its deadline passed";
pub(crate) const UNSTARTED: &str = "expired: it was not started in time";
