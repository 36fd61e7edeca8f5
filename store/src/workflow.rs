//! What both stores do with workflows alike.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::Error;
use windlass_core::{JobId, JobName, JobRecord, Needs, NewJob, State, Tenant, WorkflowJob};

/// An edge whose parent is over, counted for the first time.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) parent: JobId,
    pub(crate) child: JobId,
    /// By its code.
    pub(crate) needs: i16,
}

/// What ends of parents mean for one child.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many parents it waits for no longer.
    pub(crate) count: i32,
    /// One that should have succeeded and has not.
    pub(crate) failed: Option<JobId>,
}

/// Adds up what these ends mean for each child, in the order of the children.
pub(crate) fn tally(edges: &[Resolved], ended: &HashMap<JobId, State>) -> BTreeMap<JobId, Tally> {
    let mut children: BTreeMap<JobId, Tally> = BTreeMap::new();
    for edge in edges {
        let tally = children.entry(edge.child).or_default();
        tally.count += 1;
        let succeeded = ended.get(&edge.parent) == Some(&State::Succeeded);
        if !succeeded && edge.needs == Needs::Succeeded.code() {
            tally.failed.get_or_insert(edge.parent);
        }
    }
    children
}

/// A tenant as a store has it.
pub(crate) fn tenant(text: Option<String>) -> Result<Option<Tenant>, Error> {
    text.map(|text| text.parse().map_err(|error| Error::Decode(Box::new(error)))).transpose()
}

/// Why a job is cancelled whose parent has not succeeded.
pub(crate) fn reason(name: &str, parent: JobId, state: State) -> String {
    format!("the parent {name} ({parent}) is {state}, and this job needs it to succeed")
}

/// The jobs to add, as children of one that runs, in a workflow of this tenant: without those whose names are known
/// already.
pub(crate) fn as_children(
    jobs: &[(JobName, NewJob)],
    known: &[JobName],
    has_children: bool,
    tenant: Option<&Tenant>,
) -> Vec<(JobName, NewJob)> {
    let mut seen: HashSet<&JobName> = known.iter().collect();
    let new = jobs.iter().filter(|(name, _)| seen.insert(name)).map(|(name, job)| {
        let mut job = NewJob { idempotency: None, has_parents: true, has_children, ..job.clone() };
        job.gating.tenant = job.gating.tenant.or_else(|| tenant.cloned());
        (name.clone(), job)
    });
    new.collect()
}

/// Jobs with their names, in the order of the names given. Jobs that have been removed are left out.
pub(crate) fn named(names: Vec<(JobId, JobName)>, jobs: Vec<JobRecord>) -> Vec<WorkflowJob> {
    let mut jobs: HashMap<JobId, JobRecord> = jobs.into_iter().map(|job| (job.id, job)).collect();
    let named = names.into_iter().filter_map(|(id, name)| Some(WorkflowJob { name, job: jobs.remove(&id)? }));
    named.collect()
}
