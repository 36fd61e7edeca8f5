use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::{Idempotency, JobId, JobName, NewJob, Tenant, WorkflowId, WorkflowName};

/// What a child wants of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[repr(i16)]
pub enum Needs {
    /// That it succeeds. If it ends otherwise, the child is cancelled.
    #[default]
    Succeeded = 0,
    /// That it is over, whatever became of it.
    Finished = 1,
}

impl Needs {
    /// The number that stores keep.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }
}

/// For which jobs of its workflow a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// For these.
    Jobs(Vec<(JobName, Needs)>),
    /// For every job that does not say so itself: what runs when a batch is done.
    All(Needs),
}

impl Default for After {
    fn default() -> Self {
        Self::Jobs(Vec::new())
    }
}

/// One job of a workflow to be.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name there.
    pub name: JobName,
    /// The job. Its own idempotency key is not looked at: the workflow has one.
    pub job: NewJob,
    /// For which others it waits.
    pub after: After,
}

/// Limits of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkflowLimits {
    /// Jobs in one workflow.
    pub jobs: usize,
    /// Parents that one job may name. [`After::All`] may be more.
    pub parents: usize,
    /// Pairs of parent and child in one workflow.
    pub edges: usize,
}

impl Default for WorkflowLimits {
    fn default() -> Self {
        Self { jobs: 10_000, parents: 1_000, edges: 100_000 }
    }
}

/// Jobs that wait for each other, to be accepted all or none. Only a sound graph can be made into one.
#[derive(Debug, Clone)]
pub struct NewWorkflow {
    /// Its id, chosen by the caller, so that the insert may be repeated.
    pub id: WorkflowId,
    /// What it is called.
    pub name: WorkflowName,
    /// Makes the enqueue repeatable (P3).
    pub idempotency: Option<Idempotency>,
    names: Vec<JobName>,
    jobs: Vec<NewJob>,
    edges: Vec<(usize, usize, Needs)>,
}

/// Why a graph is refused. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// There is nothing to do.
    #[error("a workflow needs at least one job")]
    Empty,
    /// More jobs than the limit.
    #[error("a workflow may have at most {limit} jobs")]
    TooManyJobs {
        /// How many there may be.
        limit: usize,
    },
    /// More edges than the limit.
    #[error("a workflow may have at most {limit} pairs of parent and child")]
    TooManyEdges {
        /// How many there may be.
        limit: usize,
    },
    /// Two jobs have one name.
    #[error("two jobs are called {name}")]
    DuplicateName {
        /// The later one's place among the jobs.
        at: usize,
        /// Their name.
        name: JobName,
    },
    /// A job waits for one that is not there.
    #[error("{job} waits for {parent}, which is not a job of this workflow")]
    UnknownParent {
        /// The child's place among the jobs.
        at: usize,
        /// Its name.
        job: JobName,
        /// The name that no job has.
        parent: JobName,
    },
    /// A job waits for itself.
    #[error("{job} waits for itself")]
    SelfEdge {
        /// Its place among the jobs.
        at: usize,
        /// Its name.
        job: JobName,
    },
    /// A job names a parent twice.
    #[error("{job} names its parent {parent} twice")]
    RepeatedParent {
        /// The child's place among the jobs.
        at: usize,
        /// Its name.
        job: JobName,
        /// The parent.
        parent: JobName,
    },
    /// More parents than the limit.
    #[error("{job} names more than {limit} parents")]
    TooManyParents {
        /// The child's place among the jobs.
        at: usize,
        /// Its name.
        job: JobName,
        /// How many there may be.
        limit: usize,
    },
    /// A job is unique: its place in the graph could go to a job outside.
    #[error(
        "{job} has a unique key, which a job of a workflow cannot have; leave that out, in Rust by not_unique()"
    )]
    Unique {
        /// Its place among the jobs.
        at: usize,
        /// Its name.
        job: JobName,
    },
    /// Jobs wait for each other in a circle.
    #[error("these jobs wait for each other in a circle: {}", circle(jobs))]
    Cycle {
        /// The place of the first of them among the jobs.
        at: usize,
        /// The jobs on it, each waiting for the next, and the last for the first.
        jobs: Vec<JobName>,
    },
}

impl GraphError {
    /// The place of the job that the error is about.
    #[must_use]
    pub const fn at(&self) -> Option<usize> {
        match self {
            Self::Empty | Self::TooManyJobs { .. } | Self::TooManyEdges { .. } => None,
            Self::DuplicateName { at, .. }
            | Self::UnknownParent { at, .. }
            | Self::SelfEdge { at, .. }
            | Self::RepeatedParent { at, .. }
            | Self::TooManyParents { at, .. }
            | Self::Unique { at, .. }
            | Self::Cycle { at, .. } => Some(*at),
        }
    }
}

/// The names on a cycle, without its middle when it is long.
fn circle(jobs: &[JobName]) -> String {
    let mut names: Vec<&str> = jobs.iter().map(JobName::as_str).collect();
    names.extend(names.first().copied());
    if names.len() > 10 {
        names.splice(5..names.len() - 4, ["…"]);
    }
    names.join(" → ")
}

impl NewWorkflow {
    /// Checks the graph, and makes a workflow of it.
    ///
    /// # Errors
    /// [`GraphError`] names the job that is at fault.
    pub fn new(name: WorkflowName, steps: Vec<Step>, limits: WorkflowLimits) -> Result<Self, GraphError> {
        if steps.is_empty() {
            return Err(GraphError::Empty);
        }
        if steps.len() > limits.jobs {
            return Err(GraphError::TooManyJobs { limit: limits.jobs });
        }
        let mut places = HashMap::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            if places.insert(&step.name, at).is_some() {
                return Err(GraphError::DuplicateName { at, name: step.name.clone() });
            }
        }
        if let Some(at) = steps.iter().position(|step| step.job.unique.is_some()) {
            return Err(GraphError::Unique { at, job: steps[at].name.clone() });
        }
        let parents = parents(&steps, &places, limits)?;
        if let Some(cycle) = find_cycle(&parents) {
            let jobs = cycle.iter().filter_map(|at| steps.get(*at)).map(|step| step.name.clone());
            return Err(GraphError::Cycle { at: cycle.first().copied().unwrap_or(0), jobs: jobs.collect() });
        }
        let mut has_children = vec![false; steps.len()];
        let mut edges = Vec::new();
        for (child, parents) in parents.iter().enumerate() {
            for (parent, needs) in parents {
                has_children[*parent] = true;
                edges.push((*parent, child, *needs));
            }
        }
        let (mut names, mut jobs) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for (step, (parents, has_children)) in steps.into_iter().zip(parents.iter().zip(has_children)) {
            let has_parents = !parents.is_empty();
            names.push(step.name);
            jobs.push(NewJob { idempotency: None, has_parents, has_children, ..step.job });
        }
        Ok(Self { id: WorkflowId::new(), name, idempotency: None, names, jobs, edges })
    }

    /// What its jobs are called, in order.
    #[must_use]
    pub fn names(&self) -> &[JobName] {
        &self.names
    }

    /// Its jobs, in order.
    #[must_use]
    pub fn jobs(&self) -> &[NewJob] {
        &self.jobs
    }

    /// On whose behalf it runs: the tenant that all of its jobs have.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        let tenant = self.jobs.first()?.gating.tenant.as_ref();
        self.jobs.iter().all(|job| job.gating.tenant.as_ref() == tenant).then_some(tenant)?
    }

    /// Its jobs, to be made ready for the store.
    pub fn jobs_mut(&mut self) -> &mut [NewJob] {
        &mut self.jobs
    }

    /// Who waits for whom: the parent, the child, and what it needs of the parent.
    pub fn edges(&self) -> impl Iterator<Item = (JobId, JobId, Needs)> + Clone {
        self.edges.iter().map(|(parent, child, needs)| (self.jobs[*parent].id, self.jobs[*child].id, *needs))
    }

    /// As [`edges`](Self::edges), by the places of the jobs.
    #[must_use]
    pub fn edge_places(&self) -> &[(usize, usize, Needs)] {
        &self.edges
    }

    /// How many parents each job has, in order.
    #[must_use]
    pub fn parent_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.jobs.len()];
        for (_, child, _) in &self.edges {
            counts[*child] += 1;
        }
        counts
    }
}

/// The parents of each job, by their places.
fn parents(
    steps: &[Step],
    places: &HashMap<&JobName, usize>,
    limits: WorkflowLimits,
) -> Result<Vec<Vec<(usize, Needs)>>, GraphError> {
    let mut edges = 0usize;
    let mut all = Vec::with_capacity(steps.len());
    let ordinary: Vec<usize> =
        (0..steps.len()).filter(|at| matches!(steps[*at].after, After::Jobs(_))).collect();
    for (at, step) in steps.iter().enumerate() {
        let job = || step.name.clone();
        let mut parents = BTreeMap::new();
        match &step.after {
            After::Jobs(named) if named.len() > limits.parents => {
                return Err(GraphError::TooManyParents { at, job: job(), limit: limits.parents });
            }
            After::Jobs(named) => {
                for (parent, needs) in named {
                    let Some(place) = places.get(parent) else {
                        return Err(GraphError::UnknownParent { at, job: job(), parent: parent.clone() });
                    };
                    if *place == at {
                        return Err(GraphError::SelfEdge { at, job: job() });
                    }
                    if parents.insert(*place, *needs).is_some() {
                        return Err(GraphError::RepeatedParent { at, job: job(), parent: parent.clone() });
                    }
                }
            }
            After::All(needs) => parents.extend(ordinary.iter().map(|place| (*place, *needs))),
        }
        edges = edges.saturating_add(parents.len());
        if edges > limits.edges {
            return Err(GraphError::TooManyEdges { limit: limits.edges });
        }
        all.push(parents.into_iter().collect());
    }
    Ok(all)
}

/// Jobs that wait for each other in a circle, if there are any: each waits for the next, and the last for the first.
fn find_cycle(parents: &[Vec<(usize, Needs)>]) -> Option<Vec<usize>> {
    // Takes away what waits for nothing that is left, until nothing more goes.
    let mut open: Vec<usize> = parents.iter().map(Vec::len).collect();
    let mut children = vec![Vec::new(); parents.len()];
    for (child, parents) in parents.iter().enumerate() {
        for (parent, _) in parents {
            children[*parent].push(child);
        }
    }
    let mut free: Vec<usize> = (0..parents.len()).filter(|at| open[*at] == 0).collect();
    while let Some(at) = free.pop() {
        for child in &children[at] {
            open[*child] -= 1;
            if open[*child] == 0 {
                free.push(*child);
            }
        }
    }
    // Each of those that are left waits for another of them, so whoever walks from parent to parent comes back.
    let mut at = open.iter().position(|open| *open > 0)?;
    let mut seen = HashMap::new();
    let mut walk = Vec::new();
    loop {
        if let Some(start) = seen.insert(at, walk.len()) {
            return Some(walk.split_off(start));
        }
        walk.push(at);
        at = parents[at].iter().map(|(parent, _)| *parent).find(|parent| open[*parent] > 0)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn step(name: &str, parents: &[&str]) -> Step {
        let parents = parents.iter().map(|parent| (parent.parse().unwrap(), Needs::Succeeded)).collect();
        step_after(name, After::Jobs(parents))
    }

    fn step_after(name: &str, after: After) -> Step {
        let job = NewJob::new("test.kind".parse().unwrap(), RawValue::from_string("{}".into()).unwrap());
        Step { name: name.parse().unwrap(), job, after }
    }

    fn refusal(steps: Vec<Step>) -> String {
        refusal_under(steps, WorkflowLimits::default())
    }

    fn refusal_under(steps: Vec<Step>, limits: WorkflowLimits) -> String {
        NewWorkflow::new("w".parse().unwrap(), steps, limits).unwrap_err().to_string()
    }

    #[test]
    fn refusals_name_the_job() {
        assert_eq!(refusal(vec![]), "a workflow needs at least one job");
        assert_eq!(refusal(vec![step("a", &[]), step("a", &[])]), "two jobs are called a");
        assert_eq!(refusal(vec![step("a", &["b"])]), "a waits for b, which is not a job of this workflow");
        assert_eq!(refusal(vec![step("a", &["a"])]), "a waits for itself");
        assert_eq!(refusal(vec![step("a", &[]), step("b", &["a", "a"])]), "b names its parent a twice");
        assert_eq!(
            refusal(vec![
                step("x", &[]),
                step("a", &["x", "c"]),
                step("b", &["a"]),
                step("c", &["b"]),
                step("d", &["c"])
            ]),
            "these jobs wait for each other in a circle: a → c → b → a"
        );
    }

    #[test]
    fn limits_hold() {
        let limits = WorkflowLimits { jobs: 4, parents: 2, edges: 5 };
        let many = |count| (0..count).map(|n| step(&format!("j{n}"), &[])).collect::<Vec<_>>();
        assert_eq!(refusal_under(many(5), limits), "a workflow may have at most 4 jobs");
        let mut steps = many(3);
        steps.push(step("child", &["j0", "j1", "j2"]));
        assert_eq!(refusal_under(steps, limits), "child names more than 2 parents");
        let mut steps = many(2);
        steps.push(step("c", &["j0", "j1"]));
        steps.push(step("d", &["j0", "j1"]));
        assert!(NewWorkflow::new("w".parse().unwrap(), steps.clone(), limits).is_ok());
        let tight = WorkflowLimits { edges: 3, ..limits };
        assert_eq!(refusal_under(steps, tight), "a workflow may have at most 3 pairs of parent and child");
    }

    #[test]
    fn callbacks_wait_for_all_the_others() {
        let steps = vec![
            step("a", &[]),
            step_after("won", After::All(Needs::Succeeded)),
            step("b", &["a"]),
            step_after("over", After::All(Needs::Finished)),
        ];
        let limits = WorkflowLimits { parents: 1, ..WorkflowLimits::default() };
        let workflow = NewWorkflow::new("w".parse().unwrap(), steps, limits).unwrap();
        assert_eq!(workflow.parent_counts(), [0, 2, 1, 2]);
        let gates = workflow.jobs().iter().map(|job| (job.has_parents, job.has_children));
        assert!(gates.eq([(false, true), (true, false), (true, true), (true, false)]));
    }

    /// Whether a job can be reached from itself, found the slow way.
    fn reaches_itself(edges: &[(usize, usize)], jobs: usize) -> Vec<bool> {
        let mut reach = vec![vec![false; jobs]; jobs];
        for (from, to) in edges {
            reach[*from][*to] = true;
        }
        for via in 0..jobs {
            for from in 0..jobs {
                for to in 0..jobs {
                    reach[from][to] |= reach[from][via] && reach[via][to];
                }
            }
        }
        (0..jobs).map(|at| reach[at][at]).collect()
    }

    proptest! {
        /// A graph is refused exactly if it has a cycle, and then the jobs named are one: each waits for the next.
        #[test]
        fn cycles_are_found_and_nothing_else(
            jobs in 1usize..12,
            edges in prop::collection::btree_set((0usize..12, 0usize..12), 0..24),
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(a, b)| a != b && *a < jobs && *b < jobs).collect();
            let name = |at: usize| format!("j{at}");
            let steps = (0..jobs).map(|at| {
                let parents: Vec<_> = edges.iter().filter(|(child, _)| *child == at).map(|(_, p)| name(*p)).collect();
                step(&name(at), &parents.iter().map(String::as_str).collect::<Vec<_>>())
            });
            let made = NewWorkflow::new("w".parse().unwrap(), steps.collect(), WorkflowLimits::default());
            let circular = reaches_itself(&edges, jobs).contains(&true);
            match made {
                Ok(workflow) => {
                    prop_assert!(!circular);
                    prop_assert_eq!(workflow.edges().count(), edges.len());
                    for ((at, job), count) in workflow.jobs().iter().enumerate().zip(workflow.parent_counts()) {
                        prop_assert_eq!(job.has_parents, edges.iter().any(|(child, _)| *child == at));
                        prop_assert_eq!(job.has_children, edges.iter().any(|(_, parent)| *parent == at));
                        prop_assert_eq!(count as usize, edges.iter().filter(|(child, _)| *child == at).count());
                    }
                }
                Err(GraphError::Cycle { jobs, at }) => {
                    let places: Vec<usize> = jobs.iter().map(|job| job.as_str()[1..].parse().unwrap()).collect();
                    prop_assert_eq!(places[0], at);
                    for (n, child) in places.iter().enumerate() {
                        let parent = places[(n + 1) % places.len()];
                        prop_assert!(edges.contains(&(*child, parent)), "{child} waits for {parent}");
                    }
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
