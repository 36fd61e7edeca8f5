//! What the simulated store does not have. It says so, rather than pretend.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use windlass_core::{
    Added, DeliveryAttempt, DeliveryRecord, JobId, JobName, JobNotes, KeyId, KeyRecord, Keys, LiveKey,
    LogCursor, LogRecord, NewJob, NewKey, NewWebhook, NewWorkflow, Note, Quota, Quotas, StoreError,
    StoredSecret, Tenant, WebhookFilter, WebhookId, WebhookRecord, Webhooks, WorkflowId, WorkflowJob,
    WorkflowLimits, WorkflowOutcome, WorkflowRecord, Workflows,
};

pub fn not_simulated(what: &str) -> StoreError {
    StoreError::Config {
        problem: format!("the simulated store does not have {what}"),
        remedy: "test that with a real store".into(),
    }
}

/// Nothing.
#[derive(Debug)]
pub struct Absent;

#[async_trait]
impl JobNotes for Absent {
    async fn note(&self, _: &[Note]) -> Result<(), StoreError> {
        Err(not_simulated("progress and logs"))
    }

    async fn logs(&self, _: JobId, _: Option<LogCursor>, _: usize) -> Result<Vec<LogRecord>, StoreError> {
        Err(not_simulated("progress and logs"))
    }

    async fn checkpoint(&self, _: JobId, _: u32, _: &RawValue) -> Result<bool, StoreError> {
        Err(not_simulated("checkpoints"))
    }

    async fn last_checkpoint(&self, _: JobId) -> Result<Option<Box<RawValue>>, StoreError> {
        Err(not_simulated("checkpoints"))
    }
}

#[async_trait]
impl Keys for Absent {
    async fn create_key(&self, _: &NewKey) -> Result<(), StoreError> {
        Err(not_simulated("API keys"))
    }

    async fn all_keys(&self) -> Result<Vec<KeyRecord>, StoreError> {
        Err(not_simulated("API keys"))
    }

    async fn live_keys(&self) -> Result<Vec<LiveKey>, StoreError> {
        Err(not_simulated("API keys"))
    }

    async fn rotate_key(&self, _: &KeyId, _: [u8; 32], _: Duration) -> Result<bool, StoreError> {
        Err(not_simulated("API keys"))
    }

    async fn revoke_key(&self, _: &KeyId) -> Result<bool, StoreError> {
        Err(not_simulated("API keys"))
    }

    async fn keys_used(&self, _: &[KeyId]) -> Result<(), StoreError> {
        Err(not_simulated("API keys"))
    }
}

#[async_trait]
impl Quotas for Absent {
    async fn quota(&self, _: &Tenant) -> Result<Option<Quota>, StoreError> {
        Err(not_simulated("quotas"))
    }

    async fn set_quota(&self, _: &Tenant, _: u32) -> Result<(), StoreError> {
        Err(not_simulated("quotas"))
    }

    async fn remove_quota(&self, _: &Tenant) -> Result<bool, StoreError> {
        Err(not_simulated("quotas"))
    }
}

#[async_trait]
impl Workflows for Absent {
    async fn insert_workflow(&self, _: &NewWorkflow) -> Result<WorkflowOutcome, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn workflow(&self, _: WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn workflow_jobs(
        &self,
        _: WorkflowId,
        _: Option<JobId>,
        _: usize,
    ) -> Result<Vec<WorkflowJob>, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn cancel_workflow(&self, _: WorkflowId) -> Result<bool, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn retry_workflow(&self, _: WorkflowId) -> Result<Option<usize>, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn add_to_workflow(
        &self,
        _: JobId,
        _: u32,
        _: &[(JobName, NewJob)],
        _: WorkflowLimits,
    ) -> Result<Added, StoreError> {
        Err(not_simulated("workflows"))
    }

    async fn parents(&self, _: JobId, _: Option<&JobName>) -> Result<Vec<WorkflowJob>, StoreError> {
        Err(not_simulated("workflows"))
    }
}

#[async_trait]
impl Webhooks for Absent {
    async fn create_webhook(&self, _: &NewWebhook) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn all_webhooks(&self) -> Result<Vec<WebhookRecord>, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn webhook(&self, _: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn change_webhook(&self, _: WebhookId, _: &str, _: &WebhookFilter) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn enable_webhook(&self, _: WebhookId, _: bool) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn rotate_webhook(&self, _: WebhookId, _: &StoredSecret, _: Duration) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn delete_webhook(&self, _: WebhookId) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn test_webhook(&self, _: WebhookId, _: JobId) -> Result<bool, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn delivery(&self, _: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn deliveries(
        &self,
        _: WebhookId,
        _: Option<JobId>,
        _: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        Err(not_simulated("webhooks"))
    }

    async fn note_delivery(&self, _: JobId, _: &DeliveryAttempt) -> Result<(), StoreError> {
        Err(not_simulated("webhooks"))
    }
}
