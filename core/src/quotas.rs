//! How many unfinished jobs a tenant may have.

use async_trait::async_trait;

use crate::{StoreError, Tenant};

/// Keeps the quotas of tenants. A job accepted for a tenant that has one takes a place in the accepting transaction, and
/// gives it back once it is over, however it ends: that is noted with the end, and seen to by
/// [`Store::follow_up`](crate::Store::follow_up). So there are never more than the quota, whoever accepts them at the same
/// time, and jobs of tenants without one cost nothing.
///
/// Jobs accepted before the quota was set are not counted. A job that is retried after its end takes a place again, also
/// where there is none left.
///
/// Every method is one transaction, and may be repeated after a [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Quotas: Send + Sync {
    /// What has been set for a tenant, and how far it is used.
    async fn quota(&self, tenant: &Tenant) -> Result<Option<Quota>, StoreError>;

    /// Sets or changes it; 0 takes no jobs at all. Jobs beyond a lower one stay.
    async fn set_quota(&self, tenant: &Tenant, max_unfinished: u32) -> Result<(), StoreError>;

    /// Forgets it, with what has been counted. `false`: there is none.
    async fn remove_quota(&self, tenant: &Tenant) -> Result<bool, StoreError>;
}

/// A tenant's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How many unfinished jobs there may be.
    pub max_unfinished: u32,
    /// How many hold a place now: those that are not over, and those whose end is yet to be followed up.
    pub unfinished: u64,
}
