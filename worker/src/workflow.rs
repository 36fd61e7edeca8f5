use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use windlass_core::{Added, InsertOutcome, Job, JobId, JobName, State, WorkflowJob};

use crate::{Context, JobError};

/// A parent of the job, in its workflow. It is over.
#[derive(Debug, Clone)]
pub struct Parent {
    /// What it is called there.
    pub name: JobName,
    /// Its id.
    pub id: JobId,
    /// What became of it: `succeeded`, unless the job needed it only to be over.
    pub state: State,
    /// What its handler returned.
    pub result: Option<Box<RawValue>>,
}

impl Parent {
    /// What its handler returned; nothing reads as `null`.
    ///
    /// # Errors
    /// The result is not a `T`. With `?`, the attempt is retried.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.result.as_deref().map_or("null", RawValue::get))
    }
}

impl From<WorkflowJob> for Parent {
    fn from(parent: WorkflowJob) -> Self {
        let WorkflowJob { name, job } = parent;
        Self { name, id: job.id, state: job.state, result: job.result }
    }
}

impl Context {
    /// The jobs that this one waited for, with their results, in the order in which the workflow lists them. Read from
    /// the store at each call; none for a job that is not part of a workflow.
    ///
    /// # Errors
    /// The store failed. With `?`, the attempt is retried.
    pub async fn parents(&self) -> Result<Vec<Parent>, JobError> {
        Ok(self.client().parents(self.job_id(), None).await?.into_iter().map(Parent::from).collect())
    }

    /// What the parent called `name` returned.
    ///
    /// # Errors
    /// The store failed, or the result is not a `T`: with `?`, the attempt is retried. No parent has this name: with
    /// `?`, the job is dead at once.
    pub async fn parent_result<T: DeserializeOwned>(&self, name: &str) -> Result<T, JobError> {
        let known = name.parse::<JobName>().map_err(JobError::discard)?;
        match self.client().parents(self.job_id(), Some(&known)).await?.pop() {
            Some(parent) => Ok(Parent::from(parent).result()?),
            None => Err(JobError::discard(format!("this job has no parent called {known}"))),
        }
    }

    /// Adds jobs to this job's workflow, each under a name of its own: fan-out of a width known only now. They start when
    /// this job has succeeded, and whatever waits for this job waits for them as well. If this job fails for good, they
    /// are cancelled. Another attempt may add more; a name that an earlier one has used keeps the job that it got then.
    ///
    /// # Errors
    /// The store failed, or the lease is lost: with `?`, the attempt is retried. The job is not part of a workflow, a
    /// name is not valid or taken by a job that others have added, or the workflow would become too large: with `?`, the
    /// job is dead at once.
    pub async fn add_jobs<N: AsRef<str>, J: Job>(
        &self,
        jobs: impl IntoIterator<Item = (N, J)>,
    ) -> Result<(), JobError> {
        let mut named = Vec::new();
        for (name, job) in jobs {
            let name: JobName = name.as_ref().parse().map_err(JobError::discard)?;
            named.push((name, self.client().enqueue(job)));
        }
        match self.client().add_to_workflow(self.job_id(), self.job().fence, named).await? {
            Added::Jobs(_) => Ok(()),
            Added::LeaseLost => {
                Err(JobError::retry("the lease is lost, so nothing was added to the workflow"))
            }
            Added::NoWorkflow => {
                Err(JobError::discard("this job is not part of a workflow that jobs could be added to"))
            }
            Added::NameTaken(name) => {
                Err(JobError::discard(format!("the workflow has another job called {name}")))
            }
            Added::Refused { name, why: InsertOutcome::QueueDraining } => Err(JobError::retry(format!(
                "{name} was not added to the workflow: its queue is being drained and takes no new jobs"
            ))),
            Added::Refused { name, why: InsertOutcome::OverQuota } => Err(JobError::retry(format!(
                "{name} was not added to the workflow: its tenant has as many unfinished jobs as its quota allows"
            ))),
            Added::Refused { name, .. } => Err(JobError::retry(format!(
                "{name} was not added to the workflow: it names an unknown limit"
            ))),
            Added::TooMany => Err(JobError::discard("the workflow would have too many jobs")),
        }
    }
}
