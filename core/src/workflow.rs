use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{
    InsertOutcome, JobId, JobName, JobRecord, NewJob, NewWorkflow, OutboxId, State, StoreError, Tenant,
    Timestamp, WorkflowId, WorkflowLimits, WorkflowName,
};

/// Keeps workflows. Every method is one transaction, and may be repeated after a
/// [retryable](StoreError::retryable) error.
#[async_trait]
pub trait Workflows: Send + Sync {
    /// Accepts a workflow, all of its jobs or none. Those without parents are in an outbox group that is due at once.
    /// A workflow whose id exists is left as it is.
    async fn insert_workflow(&self, workflow: &NewWorkflow) -> Result<WorkflowOutcome, StoreError>;

    /// The workflow with this id.
    async fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRecord>, StoreError>;

    /// Up to `limit` of its jobs, in the order in which they were given, from the first `after` this one on.
    async fn workflow_jobs(
        &self,
        id: WorkflowId,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<WorkflowJob>, StoreError>;

    /// Calls off all its jobs that are not over: those not running at once, the others by a request. `false`: there is
    /// no such workflow.
    async fn cancel_workflow(&self, id: WorkflowId) -> Result<bool, StoreError>;

    /// Runs again, with fresh attempts, what is dead or cancelled; what waits for parents among them waits again.
    /// What has succeeded stays. Answers how many jobs that are; `None`: there is no such workflow.
    async fn retry_workflow(&self, id: WorkflowId) -> Result<Option<usize>, StoreError>;

    /// Adds jobs to the workflow of `parent`, which runs under `fence`. They start when it has succeeded, and whatever
    /// waits for it waits for them as well, with the same needs. Those without a tenant get the workflow's. A name that an earlier attempt of the same parent has
    /// used keeps the job that it got then, so the call may be repeated.
    async fn add_to_workflow(
        &self,
        parent: JobId,
        fence: u32,
        jobs: &[(JobName, NewJob)],
        limits: WorkflowLimits,
    ) -> Result<Added, StoreError>;

    /// The parents of a job, or only the one called `name`, with their results.
    async fn parents(&self, job: JobId, name: Option<&JobName>) -> Result<Vec<WorkflowJob>, StoreError>;
}

/// What became of a workflow's acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowOutcome {
    /// It is new.
    Created {
        /// When, by the store's clock.
        at: Timestamp,
        /// The group of the jobs to publish; `None` for a repeat, or when none is due yet.
        outbox: Option<OutboxId>,
    },
    /// Its idempotency key was used before by the same request, which made this workflow.
    Existing(WorkflowId),
    /// Its idempotency key was used before by another request. Nothing was stored.
    KeyReused,
    /// One of its jobs was refused. Nothing was stored.
    Refused {
        /// Its place among the jobs.
        at: usize,
        /// [`InsertOutcome::UnknownLimit`], [`InsertOutcome::QueueDraining`] or [`InsertOutcome::OverQuota`].
        why: InsertOutcome,
    },
}

/// What became of jobs that a handler wanted to add to its workflow. Only with [`Jobs`](Self::Jobs) was anything stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// So many are new.
    Jobs(usize),
    /// The parent is not part of a workflow.
    NoWorkflow,
    /// The parent's attempt is not the newest one, or is over.
    LeaseLost,
    /// Another job of the workflow has this name.
    NameTaken(JobName),
    /// The workflow would become larger than it may be.
    TooMany,
    /// One of the jobs was refused.
    Refused {
        /// Its name.
        name: JobName,
        /// [`InsertOutcome::UnknownLimit`], [`InsertOutcome::QueueDraining`] or [`InsertOutcome::OverQuota`].
        why: InsertOutcome,
    },
}

/// A job, and what it is called in its workflow.
#[derive(Debug, Clone)]
pub struct WorkflowJob {
    /// Its name there.
    pub name: JobName,
    /// The job as it is now.
    pub job: JobRecord,
}

/// A workflow as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowRecord {
    /// Its id.
    pub id: WorkflowId,
    /// What it is called.
    pub name: WorkflowName,
    /// On whose behalf it runs: the tenant that all the jobs have which it was accepted with.
    pub tenant: Option<Tenant>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How many of its jobs are in each state; states without any are left out.
    pub counts: Vec<(State, u64)>,
}

/// Where a workflow stands, as its jobs say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WorkflowStatus {
    /// Some jobs are not over.
    Running,
    /// All have succeeded.
    Succeeded,
    /// All are over, and some are dead.
    Failed,
    /// All are over, none is dead, and some were called off.
    Cancelled,
}

impl WorkflowRecord {
    /// How many of its jobs are in `state`.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        self.counts.iter().filter(|(counted, _)| *counted == state).map(|(_, count)| count).sum()
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> WorkflowStatus {
        if self.counts.iter().any(|(state, count)| !state.is_terminal() && *count > 0) {
            WorkflowStatus::Running
        } else if self.count(State::Dead) > 0 {
            WorkflowStatus::Failed
        } else if self.count(State::Cancelled) > 0 {
            WorkflowStatus::Cancelled
        } else {
            WorkflowStatus::Succeeded
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_what_the_jobs_say() {
        let status = |counts: &[(State, u64)]| {
            let (id, name) = (WorkflowId::new(), "w".parse().unwrap());
            WorkflowRecord {
                id,
                name,
                tenant: None,
                created_at: Timestamp::UNIX_EPOCH,
                counts: counts.to_vec(),
            }
            .status()
        };
        assert_eq!(status(&[(State::Succeeded, 2)]), WorkflowStatus::Succeeded);
        assert_eq!(status(&[(State::Dead, 1), (State::Waiting, 1)]), WorkflowStatus::Running);
        assert_eq!(status(&[(State::Dead, 1), (State::Cancelled, 1)]), WorkflowStatus::Failed);
        assert_eq!(status(&[(State::Succeeded, 1), (State::Cancelled, 1)]), WorkflowStatus::Cancelled);
    }
}
