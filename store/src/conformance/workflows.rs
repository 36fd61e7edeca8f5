use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::{
    Added, After, CancelOutcome, Idempotency, JobId, Needs, NewJob, NewWorkflow, Outcome, State, Step, Store,
    WorkerId, WorkflowId, WorkflowLimits, WorkflowOutcome, WorkflowStatus,
};

use super::support::{Case, HOUR, Timed, dead, job, raw, retry, succeeded};

mod gated;
mod races;

pub use gated::*;
pub use races::*;

/// A job called `name` after these; a parent with a `?` need only be over.
fn step(name: &str, parents: &str) -> Step {
    let parents = parents.split_whitespace().map(|parent| match parent.strip_suffix('?') {
        Some(parent) => (parent.parse().unwrap(), Needs::Finished),
        None => (parent.parse().unwrap(), Needs::Succeeded),
    });
    Step { name: name.parse().unwrap(), job: job(), after: After::Jobs(parents.collect()) }
}

fn graph(steps: Vec<Step>) -> NewWorkflow {
    NewWorkflow::new("test".parse().unwrap(), steps, WorkflowLimits::default()).unwrap()
}

/// A workflow that has been accepted, and a worker to run it.
struct Run<'a> {
    case: &'a Case,
    id: WorkflowId,
    jobs: BTreeMap<String, JobId>,
    worker: WorkerId,
}

impl<'a> Run<'a> {
    async fn of(case: &'a Case, steps: Vec<Step>) -> Self {
        let workflow = graph(steps);
        let outcome = case.store.workflows().insert_workflow(&workflow).await.unwrap();
        assert!(matches!(outcome, WorkflowOutcome::Created { .. }), "{outcome:?}");
        let names = workflow.names().iter().map(ToString::to_string);
        let jobs = names.zip(workflow.jobs().iter().map(|job| job.id)).collect();
        Self { case, id: workflow.id, jobs, worker: case.worker().await }
    }

    fn job(&self, name: &str) -> JobId {
        self.jobs[name]
    }

    async fn state(&self, name: &str) -> State {
        self.case.state(self.job(name)).await
    }

    /// Claims a job that must be queued, and finishes it.
    async fn run(&self, name: &str, outcome: Outcome) {
        let running = self.case.run_jobs(self.worker, &[self.job(name)]).await;
        assert!(self.case.finish(running[0], outcome).await);
    }

    /// As [`run`](Self::run), and sees to what that leaves to do.
    async fn end(&self, name: &str, outcome: Outcome) {
        self.run(name, outcome).await;
        follow_up_all(&self.case.store).await;
    }

    async fn status(&self) -> WorkflowStatus {
        self.case.other.workflows().workflow(self.id).await.unwrap().unwrap().status()
    }

    /// The names of the jobs in `state`.
    async fn names(&self, state: State) -> Vec<&str> {
        let mut names = Vec::new();
        for name in self.jobs.keys() {
            if self.state(name).await == state {
                names.push(name.as_str());
            }
        }
        names
    }

    /// How often groups that are due now announce each job of this workflow. On a slow machine, groups of an earlier one may
    /// be due again.
    async fn announced(&self) -> BTreeMap<JobId, usize> {
        let mut times = BTreeMap::new();
        let groups = self.case.take_all().await;
        let messages = groups.iter().flat_map(|group| &group.messages);
        for message in messages.filter(|message| self.jobs.values().any(|id| *id == message.job_id)) {
            *times.entry(message.job_id).or_default() += 1;
        }
        times
    }
}

async fn follow_up_all(store: &Arc<dyn Store>) {
    while store.follow_up(100).await.unwrap() > 0 {}
}

/// Each job of a chain is queued, and announced once, when the one before it has succeeded.
pub async fn a_chain_runs_in_order(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", "a"), step("c", "b")]).await;
    assert_eq!(run.status().await, WorkflowStatus::Running);
    for (now, later) in [("a", vec!["b", "c"]), ("b", vec!["c"]), ("c", vec![])] {
        assert_eq!(run.names(State::Queued).await, [now]);
        assert_eq!(run.names(State::Waiting).await, later);
        assert_eq!(run.announced().await, BTreeMap::from([(run.job(now), 1)]));
        assert!(
            case.claim(run.worker, &later.iter().map(|name| run.job(name)).collect::<Vec<_>>())
                .await
                .is_empty()
        );
        run.end(now, succeeded()).await;
    }
    assert_eq!(run.status().await, WorkflowStatus::Succeeded);
}

/// A retry of a parent lets nobody go; its success does.
pub async fn a_parent_may_take_several_attempts(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", "a")]).await;
    run.end("a", retry()).await;
    assert_eq!(run.state("b").await, State::Waiting);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    run.end("a", succeeded()).await;
    assert_eq!(run.state("b").await, State::Queued);
    // And the child's own attempts no longer wait for anyone.
    run.run("b", retry()).await;
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(run.state("b").await, State::Queued);
}

/// A job after several others is queued with the last success, and finds all their results.
pub async fn fan_out_and_fan_in(case: Case) {
    let parts = ["p0", "p1", "p2", "p3"];
    let mut steps = vec![step("split", ""), step("join", "p0 p1 p2 p3")];
    steps.extend(parts.map(|part| step(part, "split")));
    let run = Run::of(&case, steps).await;
    run.end("split", succeeded()).await;
    assert_eq!(run.names(State::Queued).await, parts);
    for (n, part) in parts.iter().enumerate() {
        assert_eq!(run.state("join").await, State::Waiting);
        run.end(part, Outcome::Succeeded { result: Some(raw(&n.to_string())), keep: None }).await;
    }
    assert_eq!(run.state("join").await, State::Queued);
    let workflows = case.other.workflows();
    let parents = workflows.parents(run.job("join"), None).await.unwrap();
    let found: BTreeMap<_, _> = parents
        .iter()
        .map(|parent| (parent.name.as_str(), parent.job.result.as_deref().map(|result| result.get())))
        .collect();
    assert_eq!(
        found,
        BTreeMap::from([("p0", Some("0")), ("p1", Some("1")), ("p2", Some("2")), ("p3", Some("3"))])
    );
    let one = workflows.parents(run.job("join"), Some(&"p2".parse().unwrap())).await.unwrap();
    assert_eq!(one.iter().map(|parent| parent.job.id).collect::<Vec<_>>(), [run.job("p2")]);
    let none = workflows.parents(run.job("join"), Some(&"split".parse().unwrap())).await.unwrap();
    assert!(none.is_empty(), "no parent of its own");
    assert!(workflows.parents(run.job("split"), None).await.unwrap().is_empty());
}

/// Ends that are followed up together count one by one.
pub async fn a_diamond(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", "a"), step("c", "a"), step("d", "b c a")]).await;
    run.end("a", succeeded()).await;
    run.run("b", succeeded()).await;
    run.run("c", succeeded()).await;
    assert_eq!(run.state("d").await, State::Waiting);
    follow_up_all(&case.store).await;
    assert_eq!(run.state("d").await, State::Queued);
}

/// A job that needs its parent only to be over runs after a success, a death and a cancellation.
pub async fn needs_finished_takes_any_end(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", ""), step("c", ""), step("d", "a? b? c?")]).await;
    run.end("a", dead()).await;
    run.end("b", succeeded()).await;
    assert_eq!(run.state("d").await, State::Waiting);
    assert_eq!(case.store.cancel(run.job("c")).await.unwrap(), CancelOutcome::Cancelled);
    follow_up_all(&case.store).await;
    assert_eq!(run.state("d").await, State::Queued);
    run.end("d", succeeded()).await;
    assert_eq!(run.status().await, WorkflowStatus::Failed);
}

/// A death calls off what needs a success, all the way down, with an error that names the parent; what needs only an
/// end runs.
pub async fn failures_go_through_the_graph(case: Case) {
    let steps =
        vec![step("a", ""), step("b", "a"), step("c", "b x"), step("x", ""), step("d", "c?"), step("e", "x")];
    let run = Run::of(&case, steps).await;
    run.end("a", dead()).await;
    assert_eq!(run.names(State::Cancelled).await, ["b", "c"]);
    assert_eq!(run.names(State::Queued).await, ["d", "x"]);
    assert_eq!(run.state("e").await, State::Waiting);
    let b = case.get(run.job("b")).await;
    let (a, message) = (run.job("a"), &b.errors[0].message);
    assert_eq!(*message, format!("the parent a ({a}) is dead, and this job needs it to succeed"));
    assert_eq!((b.attempt, b.errors.len()), (0, 1));
    assert!(b.finished_at.is_some());
    assert!(case.get(run.job("c")).await.errors[0].message.contains("the parent b"));
    // The other parent's end finds c over.
    run.end("x", succeeded()).await;
    assert_eq!(run.state("c").await, State::Cancelled);
    assert_eq!(run.names(State::Queued).await, ["d", "e"]);
}

/// A cancellation goes through the graph as a death does: of a job that waits, and of one that runs.
pub async fn cancellations_go_through_the_graph(case: Case) {
    let run =
        Run::of(&case, vec![step("a", ""), step("b", "a"), step("c", "b"), step("x", ""), step("y", "x")])
            .await;
    assert_eq!(case.store.cancel(run.job("b")).await.unwrap(), CancelOutcome::Cancelled);
    let x = case.run_jobs(run.worker, &[run.job("x")]).await[0];
    case.request_cancel(run.job("x")).await;
    assert!(case.finish(x, Outcome::Cancelled).await);
    follow_up_all(&case.store).await;
    assert_eq!(run.names(State::Cancelled).await, ["b", "c", "x", "y"]);
    run.end("a", succeeded()).await;
    assert_eq!(run.names(State::Cancelled).await, ["b", "c", "x", "y"]);
    assert_eq!(run.status().await, WorkflowStatus::Cancelled);
}

/// A parent that took its workers down is as dead as any other.
pub async fn quarantined_parents_count_as_dead(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", "a")]).await;
    let lost = case.worker_for(Duration::ZERO).await;
    case.run_jobs(lost, &[run.job("a")]).await;
    assert_eq!(case.store.rescue(1).await.unwrap().dead, 1);
    follow_up_all(&case.store).await;
    assert_eq!(run.state("b").await, State::Cancelled);
}

/// A child with a time of its own starts when both that and its parents allow it.
pub async fn children_keep_to_their_times(timed: Timed) {
    let Timed { case, clock } = timed;
    let at = |name, parents, hours: u32| {
        let step = step(name, parents);
        Step { job: NewJob { run_at: Some(clock.now() + HOUR * hours), ..step.job }, ..step }
    };
    let run = Run::of(
        &case,
        vec![step("a", ""), at("early", "a", 1), at("late", "a", 3), at("off", "b", 9), step("b", "")],
    )
    .await;
    assert_eq!(run.names(State::Scheduled).await, ["early", "late", "off"]);
    clock.advance(HOUR);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    follow_up_all(&case.store).await;
    assert_eq!(run.state("early").await, State::Waiting);
    run.end("a", succeeded()).await;
    assert_eq!(run.names(State::Queued).await, ["b", "early"]);
    assert_eq!(run.state("late").await, State::Scheduled);
    run.end("b", dead()).await;
    assert_eq!(run.state("off").await, State::Cancelled);
    clock.advance(HOUR * 2);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(run.state("late").await, State::Queued);
    clock.advance(HOUR * 10);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0, "its time went with it");
}

/// A workflow's key is like a job's: the same request gives the first workflow, another one is refused.
pub async fn workflows_have_keys(case: Case) {
    let keyed = |fingerprint| {
        let idempotency = Idempotency { key: "k".into(), fingerprint: [fingerprint; 32], ttl: HOUR };
        let mut workflow = graph(vec![step("a", ""), step("b", "a")]);
        workflow.idempotency = Some(idempotency);
        workflow
    };
    let first = keyed(1);
    let workflows = case.store.workflows();
    assert!(matches!(workflows.insert_workflow(&first).await.unwrap(), WorkflowOutcome::Created { .. }));
    for (again, outcome) in
        [(keyed(1), WorkflowOutcome::Existing(first.id)), (keyed(2), WorkflowOutcome::KeyReused)]
    {
        assert_eq!(case.other.workflows().insert_workflow(&again).await.unwrap(), outcome);
        assert_eq!(workflows.workflow(again.id).await.unwrap(), None);
        assert!(case.store.get(&[again.jobs()[0].id]).await.unwrap().is_empty());
    }
    let repeat = workflows.insert_workflow(&first).await.unwrap();
    assert!(matches!(repeat, WorkflowOutcome::Created { .. }), "the key is its own: {repeat:?}");
}

/// Calling off a workflow calls off all that is not over, and asks what runs to stop.
pub async fn workflows_are_called_off(case: Case) {
    let late = step("late", "");
    let late = Step { job: NewJob { run_at: Some(chrono::Utc::now() + HOUR), ..late.job }, ..late };
    let steps =
        vec![step("done", ""), step("runs", ""), step("queued", "done"), step("waits", "runs?"), late];
    let run = Run::of(&case, steps).await;
    run.end("done", succeeded()).await;
    let runs = case.run_jobs(run.worker, &[run.job("runs")]).await[0];
    let workflows = case.store.workflows();
    assert!(!workflows.cancel_workflow(WorkflowId::new()).await.unwrap());
    for _ in 0..2 {
        assert!(workflows.cancel_workflow(run.id).await.unwrap());
    }
    assert_eq!(run.names(State::Cancelled).await, ["late", "queued", "waits"]);
    assert_eq!(case.store.heartbeat(run.worker).await.unwrap().cancel, [run.job("runs")]);
    assert!(case.finish(runs, Outcome::Cancelled).await);
    follow_up_all(&case.store).await;
    assert_eq!(run.names(State::Succeeded).await, ["done"]);
    assert_eq!(run.status().await, WorkflowStatus::Cancelled);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
}

/// A retry runs what is dead again, and has what was called off because of it wait again; what has succeeded stays.
pub async fn workflows_are_retried_from_the_failed_part(case: Case) {
    let steps = vec![
        step("a", ""),
        step("b", "a"),
        step("c", "b"),
        step("d", "c"),
        step("x", "a"),
        step("end", "d? x"),
    ];
    let run = Run::of(&case, steps).await;
    let workflows = case.store.workflows();
    run.end("a", succeeded()).await;
    run.end("b", dead()).await;
    assert_eq!(run.names(State::Cancelled).await, ["c", "d"]);
    assert_eq!(workflows.retry_workflow(WorkflowId::new()).await.unwrap(), None);
    case.take_all().await;

    let before = case.store.operations().revision().await.unwrap();
    assert_eq!(workflows.retry_workflow(run.id).await.unwrap(), Some(3));
    assert!(
        case.store.operations().revision().await.unwrap() > before,
        "what is kept of ended jobs is not true any more"
    );
    assert_eq!(workflows.retry_workflow(run.id).await.unwrap(), Some(0), "a repeat finds nothing to do");
    assert_eq!(run.names(State::Queued).await, ["b", "x"]);
    assert_eq!(run.names(State::Waiting).await, ["c", "d", "end"]);
    assert_eq!(run.announced().await, BTreeMap::from([(run.job("b"), 1)]));
    let b = case.get(run.job("b")).await;
    assert_eq!((b.attempt, b.errors.len(), b.finished_at), (0, 1, None), "fresh attempts, and the history");

    // It may fail again, in another place.
    run.end("b", succeeded()).await;
    run.end("x", succeeded()).await;
    run.end("c", dead()).await;
    assert_eq!(run.state("d").await, State::Cancelled);
    assert_eq!(run.names(State::Queued).await, ["end"]);
    assert_eq!(workflows.retry_workflow(run.id).await.unwrap(), Some(2));
    for name in ["c", "d", "end"] {
        run.end(name, succeeded()).await;
    }
    assert_eq!(run.status().await, WorkflowStatus::Succeeded);
    assert_eq!(case.get(run.job("d")).await.errors.len(), 2, "each time it was called off");
}

/// A retry while the news of the failure is still to be followed up loses nothing, and calls nobody off.
pub async fn a_retry_may_overtake_the_follow_up(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", "a"), step("ok", ""), step("c", "ok a")]).await;
    run.run("a", dead()).await;
    run.run("ok", succeeded()).await;
    assert_eq!(case.store.workflows().retry_workflow(run.id).await.unwrap(), Some(1));
    follow_up_all(&case.store).await;
    assert_eq!(run.names(State::Waiting).await, ["b", "c"]);
    run.end("a", succeeded()).await;
    assert_eq!(run.names(State::Queued).await, ["b", "c"]);
}

/// Jobs of a workflow are listed in the order in which they were given, page by page.
pub async fn jobs_of_workflows_are_listed(case: Case) {
    let run = Run::of(&case, vec![step("z", ""), step("a", ""), step("m", "z a"), step("b", "m")]).await;
    let workflows = case.other.workflows();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = workflows.workflow_jobs(run.id, after, 3).await.unwrap();
        names.extend(page.iter().map(|job| job.name.to_string()));
        assert!(page.iter().all(|job| job.job.id == run.job(job.name.as_str())));
        match page.last() {
            Some(last) => after = Some(last.job.id),
            None => break,
        }
    }
    assert_eq!(names, ["z", "a", "m", "b"]);
    assert!(workflows.workflow_jobs(WorkflowId::new(), None, 3).await.unwrap().is_empty());
    assert_eq!(workflows.workflow(WorkflowId::new()).await.unwrap(), None);
}

/// A job that runs may add others: they start when it has succeeded, and its children wait for them as well. Another
/// attempt adds what is new, and keeps the rest.
pub async fn jobs_add_to_their_workflow(case: Case) {
    let run = Run::of(&case, vec![step("split", ""), step("join", "split"), step("over", "split?")]).await;
    let limits = WorkflowLimits { jobs: 6, ..WorkflowLimits::default() };
    let workflows = case.store.workflows();
    let parts = |names: &[&str]| names.iter().map(|name| (name.parse().unwrap(), job())).collect::<Vec<_>>();
    let split = case.run_jobs(run.worker, &[run.job("split")]).await[0];
    let add = async |fence, names: &[&str]| {
        workflows.add_to_workflow(split.id, fence, &parts(names), limits).await.unwrap()
    };
    assert_eq!(add(split.fence, &["p0", "p1"]).await, Added::Jobs(2));
    assert_eq!(add(split.fence, &["p0", "join"]).await, Added::NameTaken("join".parse().unwrap()));
    assert_eq!(add(split.fence + 1, &["p2"]).await, Added::LeaseLost);
    assert!(case.finish(split, retry()).await);
    assert_eq!(add(split.fence, &["p2"]).await, Added::LeaseLost);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    follow_up_all(&case.store).await;

    let split = case.run_jobs(run.worker, &[run.job("split")]).await[0];
    assert_eq!(add(split.fence, &["p0", "p1", "p2", "p2"]).await, Added::Jobs(1));
    assert_eq!(add(split.fence, &["p3"]).await, Added::TooMany);
    let alone = case.running(1).await[0];
    let refused = workflows.add_to_workflow(alone.id, alone.fence, &parts(&["p"]), limits).await.unwrap();
    assert_eq!(refused, Added::NoWorkflow);
    assert!(case.finish(split, succeeded()).await);
    follow_up_all(&case.store).await;

    let listed = workflows.workflow_jobs(run.id, None, 10).await.unwrap();
    let jobs: BTreeMap<String, JobId> = listed.iter().map(|job| (job.name.to_string(), job.job.id)).collect();
    let run = Run { jobs, ..run };
    assert_eq!(run.names(State::Queued).await, ["p0", "p1", "p2"]);
    assert_eq!(run.names(State::Waiting).await, ["join", "over"]);
    run.end("p0", succeeded()).await;
    run.end("p1", dead()).await;
    assert_eq!(run.names(State::Cancelled).await, ["join"]);
    assert_eq!(run.state("over").await, State::Waiting);
    run.end("p2", succeeded()).await;
    assert_eq!(run.state("over").await, State::Queued);
    assert_eq!(workflows.parents(run.job("over"), None).await.unwrap().len(), 4);

    // And back from the failed part.
    assert_eq!(workflows.retry_workflow(run.id).await.unwrap(), Some(2));
    run.end("p1", succeeded()).await;
    assert_eq!(run.state("join").await, State::Queued);
}

/// A job without children may add some, too; they are called off if it fails.
pub async fn the_last_job_adds_more(case: Case) {
    for (outcome, wanted) in [(succeeded(), State::Queued), (dead(), State::Cancelled)] {
        let run = Run::of(&case, vec![step("a", "")]).await;
        let a = case.run_jobs(run.worker, &[run.job("a")]).await[0];
        let more = [("b".parse().unwrap(), job())];
        let limits = WorkflowLimits::default();
        let added = case.store.workflows().add_to_workflow(a.id, a.fence, &more, limits).await.unwrap();
        assert_eq!(added, Added::Jobs(1));
        assert_eq!(case.state(more[0].1.id).await, State::Waiting);
        assert!(case.finish(a, outcome).await);
        follow_up_all(&case.store).await;
        assert_eq!(case.state(more[0].1.id).await, wanted);
    }
}
