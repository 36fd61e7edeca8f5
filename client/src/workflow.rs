use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest, Sha256};
use windlass_core::{
    Added, After, GraphError, Idempotency, Job, JobId, JobName, Needs, NewJob, NewWorkflow, Step, StoreError,
    WorkflowId, WorkflowJob, WorkflowLimits, WorkflowOutcome, WorkflowRecord,
};

use crate::{
    Client, ClientError,
    enqueue::{Enqueue, KEY_TTL, fingerprint},
};

/// How often an insert is tried before its caller hears of the failure.
const INSERT_TRIES: u32 = 3;
/// Results fetched at once from an object store.
const AT_ONCE: usize = 8;

/// A workflow about to be enqueued: add its jobs, then `.await` it. All of it is accepted, or nothing.
///
/// ```no_run
/// # use windlass_client::Client;
/// # use windlass_core::{Job, Needs};
/// # async fn run<J: Job + Copy>(client: Client, job: J) -> Result<(), windlass_client::ClientError> {
/// let id = client
///     .workflow("nightly")
///     .job("split", job)
///     .job("north", job)
///     .after(["split"])
///     .job("south", job)
///     .after(["split"])
///     .job("join", job)
///     .after(["north", "south"])
///     .on_complete("report", job)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is enqueued before this is awaited"]
#[derive(Debug)]
pub struct Workflow {
    client: Client,
    name: String,
    limits: WorkflowLimits,
    key: Option<(String, Duration)>,
    steps: Result<Vec<Step>, ClientError>,
}

impl Workflow {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name, limits: WorkflowLimits::default(), key: None, steps: Ok(Vec::new()) }
    }

    /// Adds a job that waits for nothing, unless [`after`](Self::after) follows.
    pub fn job<J: Job>(self, name: impl AsRef<str>, job: J) -> Self {
        let job = Enqueue::new(self.client.clone(), job);
        self.enqueue(name, job)
    }

    /// As [`job`](Self::job), with settings other than the type's defaults: `client.enqueue(job).queue(…)`, not awaited.
    /// An idempotency key there is not looked at.
    pub fn enqueue<J: Job>(mut self, name: impl AsRef<str>, job: Enqueue<J>) -> Self {
        let step = name.as_ref().parse().map_err(ClientError::from).and_then(|name| {
            let job = job.into_new_job()?;
            Ok(Step { name, job, after: After::default() })
        });
        self.steps = self.steps.and_then(|mut steps| {
            steps.push(step?);
            Ok(steps)
        });
        self
    }

    /// Lets the job added last wait until these have succeeded. If one of them does not, it is cancelled. A callback for
    /// all jobs becomes an ordinary job by it.
    pub fn after<N: AsRef<str>>(self, parents: impl IntoIterator<Item = N>) -> Self {
        self.wait_for(parents, Needs::Succeeded)
    }

    /// Lets the job added last wait until these are over, whatever becomes of them.
    pub fn after_end_of<N: AsRef<str>>(self, parents: impl IntoIterator<Item = N>) -> Self {
        self.wait_for(parents, Needs::Finished)
    }

    /// Adds a job that runs after the one added last has succeeded.
    pub fn then<J: Job>(self, name: impl AsRef<str>, job: J) -> Self {
        let last = self.steps.as_ref().ok().and_then(|steps| steps.last());
        let parents: Vec<String> = last.iter().map(|step| step.name.to_string()).collect();
        self.job(name, job).after(parents)
    }

    /// Adds a job that runs when all others have succeeded.
    pub fn on_success<J: Job>(self, name: impl AsRef<str>, job: J) -> Self {
        self.job(name, job).wait_for_all(Needs::Succeeded)
    }

    /// Adds a job that runs when all others are over, whatever became of them.
    pub fn on_complete<J: Job>(self, name: impl AsRef<str>, job: J) -> Self {
        self.job(name, job).wait_for_all(Needs::Finished)
    }

    /// Other limits than the [default ones](WorkflowLimits).
    pub fn limits(mut self, limits: WorkflowLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the enqueue repeatable: for a day, the same key with the same workflow gives the first one's id, and with
    /// another [`ClientError::KeyReused`]. Time settings of the jobs may differ between repeats.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some((key.into(), KEY_TTL));
        self
    }

    fn wait_for<N: AsRef<str>>(mut self, parents: impl IntoIterator<Item = N>, needs: Needs) -> Self {
        self.steps = self.steps.and_then(|mut steps| {
            let Step { after, .. } = steps.last_mut().ok_or(GraphError::Empty)?;
            let mut all = match std::mem::take(after) {
                After::Jobs(jobs) => jobs,
                After::All(_) => Vec::new(),
            };
            for parent in parents {
                all.push((parent.as_ref().parse()?, needs));
            }
            *after = After::Jobs(all);
            Ok(steps)
        });
        self
    }

    fn wait_for_all(mut self, needs: Needs) -> Self {
        if let Ok(Some(step)) = self.steps.as_mut().map(|steps| steps.last_mut()) {
            step.after = After::All(needs);
        }
        self
    }

    fn into_new_workflow(self) -> Result<NewWorkflow, ClientError> {
        let steps = self.steps?;
        let mut workflow = NewWorkflow::new(self.name.parse()?, steps, self.limits)?;
        let tenant = workflow.tenant();
        workflow.idempotency =
            self.key.map(|(key, ttl)| Idempotency::new(tenant, key, fingerprint_of(&workflow), ttl));
        Ok(workflow)
    }
}

impl IntoFuture for Workflow {
    type Output = Result<WorkflowId, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let client = self.client.clone();
            let workflow = self.into_new_workflow()?;
            match client.accept_workflow(&workflow).await? {
                WorkflowOutcome::Created { .. } => Ok(workflow.id),
                WorkflowOutcome::Existing(id) => Ok(id),
                WorkflowOutcome::KeyReused => Err(ClientError::KeyReused),
                WorkflowOutcome::Refused { at, why } => Err(match workflow.jobs().get(at) {
                    Some(job) => crate::enqueue::answer(job.id, &job.queue, &job.gating, why)
                        .err()
                        .unwrap_or(ClientError::Closed),
                    None => ClientError::Closed,
                }),
            }
        })
    }
}

impl Client {
    /// Begins a workflow: jobs that wait for each other, enqueued all or none.
    pub fn workflow(&self, name: impl Into<String>) -> Workflow {
        Workflow::new(self.clone(), name.into())
    }

    /// Accepts a workflow. When it is `Ok`, all of it is committed; publishing follows by itself.
    ///
    /// # Errors
    /// What the store says. After a retryable error the workflow may have been stored: repeat the same one, or use an
    /// idempotency key where that matters.
    pub async fn accept_workflow(&self, workflow: &NewWorkflow) -> Result<WorkflowOutcome, ClientError> {
        let mut sealed = workflow.clone();
        self.envelope().seal_jobs(sealed.jobs_mut()).await?;
        let mut tries = 1;
        let outcome = loop {
            match self.store().workflows().insert_workflow(&sealed).await {
                Err(StoreError::Unavailable(_)) if tries < INSERT_TRIES => tries += 1,
                answer => break answer?,
            }
        };
        self.nudge_relay();
        Ok(outcome)
    }

    /// Adds jobs to the workflow of a job that runs under `fence`: what handlers do by `ctx.add_jobs(…)`.
    ///
    /// # Errors
    /// What the store says; a payload or name of the type that is not valid.
    pub async fn add_to_workflow<J: Job>(
        &self,
        parent: JobId,
        fence: u32,
        jobs: Vec<(JobName, Enqueue<J>)>,
    ) -> Result<Added, ClientError> {
        let jobs = jobs.into_iter().map(|(name, job)| Ok((name, job.into_new_job()?)));
        let mut jobs = jobs.collect::<Result<Vec<(JobName, NewJob)>, ClientError>>()?;
        let new: Vec<&mut NewJob> = jobs.iter_mut().map(|(_, job)| job).collect();
        self.envelope().seal_jobs(new).await?;
        let limits = WorkflowLimits::default();
        Ok(self.store().workflows().add_to_workflow(parent, fence, &jobs, limits).await?)
    }

    /// The workflow with this id.
    ///
    /// # Errors
    /// What the store says.
    pub async fn get_workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRecord>, ClientError> {
        Ok(self.store().workflows().workflow(id).await?)
    }

    /// Up to `limit` jobs of a workflow, in the order in which they were given, from the first `after` this one on.
    ///
    /// # Errors
    /// What the store says.
    pub async fn workflow_jobs(
        &self,
        id: WorkflowId,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<WorkflowJob>, ClientError> {
        let jobs = self.store().workflows().workflow_jobs(id, after, limit).await?;
        self.opened(jobs).await
    }

    /// The jobs that this one waited for, as they are now: all, or the one of this name.
    ///
    /// # Errors
    /// What the store says; also when a result is encrypted under a key that the settings do not have.
    pub async fn parents(&self, job: JobId, name: Option<&JobName>) -> Result<Vec<WorkflowJob>, ClientError> {
        let parents = self.store().workflows().parents(job, name).await?;
        self.opened(parents).await
    }

    async fn opened(&self, jobs: Vec<WorkflowJob>) -> Result<Vec<WorkflowJob>, ClientError> {
        let opening = jobs.into_iter().map(|mut job| async {
            job.job = self.open_record(job.job).await?;
            Ok(job)
        });
        stream::iter(opening).buffered(AT_ONCE).try_collect().await
    }

    /// Calls off all jobs of a workflow that are not over. `false`: there is no such workflow.
    ///
    /// # Errors
    /// What the store says.
    pub async fn cancel_workflow(&self, id: WorkflowId) -> Result<bool, ClientError> {
        Ok(self.store().workflows().cancel_workflow(id).await?)
    }

    /// Runs again what is dead or cancelled in a workflow, and what waits for that. Answers how many jobs that are;
    /// `None`: there is no such workflow.
    ///
    /// # Errors
    /// What the store says.
    pub async fn retry_workflow(&self, id: WorkflowId) -> Result<Option<usize>, ClientError> {
        let again = self.store().workflows().retry_workflow(id).await?;
        self.nudge_relay();
        Ok(again)
    }
}

fn fingerprint_of(workflow: &NewWorkflow) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Apart from those of jobs.
    hash.update(b"workflow\n");
    hash.update(workflow.name.as_str().len().to_be_bytes());
    hash.update(workflow.name.as_str());
    for (name, job) in workflow.names().iter().zip(workflow.jobs()) {
        hash.update(name.as_str().len().to_be_bytes());
        hash.update(name.as_str());
        hash.update(fingerprint(job));
    }
    for (parent, child, needs) in workflow.edge_places() {
        hash.update(parent.to_be_bytes());
        hash.update(child.to_be_bytes());
        hash.update(needs.code().to_be_bytes());
    }
    hash.finalize().into()
}
