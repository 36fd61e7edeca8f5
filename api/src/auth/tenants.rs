//! Tenants see and change nothing but their own: whoever acts for one goes by these to jobs and workflows. And who may not
//! read sees no more of what they have made, or operate on, than where it stands.

use windlass_core::{JobFilter, JobId, JobRecord, Scope, Tenant, WorkflowId, WorkflowRecord};

use super::Identity;
use crate::{Service, job::no_such_job, problem::Problem, view::JobView, workflows::no_such_workflow};

impl Identity {
    /// Whether what is this tenant's, or no tenant's, exists for them.
    pub(crate) fn sees(&self, tenant: Option<&Tenant>) -> bool {
        self.tenant.is_none() || self.tenant.as_ref() == tenant
    }

    /// Whether what attempts have said is for them.
    pub(crate) fn may_read(&self) -> bool {
        self.scopes.allow(Scope::Read)
    }

    /// As much of the job as they may see.
    pub(crate) fn shown<'a>(&self, job: &'a JobRecord) -> JobView<'a> {
        let view = JobView::from(job);
        if self.may_read() { view } else { view.outline() }
    }

    /// Makes a request that names this tenant, or none, one on behalf of theirs.
    pub(crate) fn confine(&self, named: &mut Option<Tenant>) -> Result<(), Problem> {
        match (&self.tenant, &*named) {
            (Some(own), Some(named)) if own != named => Err(Problem::other_tenant(own)),
            (Some(own), _) => {
                *named = Some(own.clone());
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }
}

impl Service {
    /// The job with this id.
    pub(crate) async fn job(&self, caller: &Identity, id: JobId) -> Result<JobRecord, Problem> {
        seen(caller, id, self.client.get(id).await?)
    }

    /// The same as it was a moment ago at most, where the store has replicas.
    pub(crate) async fn recent_job(&self, caller: &Identity, id: JobId) -> Result<JobRecord, Problem> {
        seen(caller, id, self.client.get_recent(id).await?)
    }

    /// That the job with this id, if there is one, exists for the caller. A job's tenant never changes.
    pub(crate) async fn check_job(&self, caller: &Identity, id: JobId) -> Result<(), Problem> {
        match self.own(caller, vec![id]).await?.is_empty() {
            true => Err(no_such_job(id)),
            false => Ok(()),
        }
    }

    /// Those of these jobs that exist for the caller, among others that do not exist at all.
    pub(crate) async fn own(&self, caller: &Identity, ids: Vec<JobId>) -> Result<Vec<JobId>, Problem> {
        if caller.tenant.is_none() {
            return Ok(ids);
        }
        let filter = JobFilter { tenant: caller.tenant.clone(), ..JobFilter::default() };
        Ok(self.client.store().operations().among(&filter, &ids).await?)
    }

    /// The workflow with this id.
    pub(crate) async fn workflow(
        &self,
        caller: &Identity,
        id: WorkflowId,
    ) -> Result<WorkflowRecord, Problem> {
        let workflow = self.client.get_workflow(id).await?;
        workflow.filter(|workflow| caller.sees(workflow.tenant.as_ref())).ok_or_else(|| no_such_workflow(id))
    }
}

fn seen(caller: &Identity, id: JobId, job: Option<JobRecord>) -> Result<JobRecord, Problem> {
    job.filter(|job| caller.sees(job.gating.tenant.as_ref())).ok_or_else(|| no_such_job(id))
}
