use windlass_core::{InsertOutcome, Limit, NewJob, State, Step, WorkflowOutcome, WorkflowStatus};

use super::{Run, follow_up_all, graph, step};
use crate::conformance::support::{Case, dead, job, succeeded};

/// A step whose job may run only while no other under the limit `one` does.
fn limited(name: &str, parents: &str) -> Step {
    let mut step = step(name, parents);
    step.job.gating.limits.push("one".parse().unwrap());
    step
}

async fn with_limit(case: &Case) {
    case.store.operations().set_limit(&"one".parse().unwrap(), Limit::concurrent(1)).await.unwrap();
}

/// Children come to their gates when their parents let them go, not before: one that waits for a parent takes no room.
pub async fn children_pass_their_gates(case: Case) {
    with_limit(&case).await;
    let steps = vec![step("a", ""), limited("b", "a"), limited("c", "a"), step("d", "b c"), limited("e", "")];
    let run = Run::of(&case, steps).await;
    follow_up_all(&case.store).await;
    assert_eq!(run.names(State::Queued).await, ["a", "e"]);
    run.end("a", succeeded()).await;
    assert_eq!(run.names(State::Queued).await, ["e"], "the limit has no room");
    assert_eq!(run.names(State::Waiting).await, ["b", "c", "d"]);
    run.end("e", succeeded()).await;
    for _ in 0..2 {
        let queued: Vec<String> = run.names(State::Queued).await.into_iter().map(str::to_owned).collect();
        assert_eq!(queued.len(), 1, "one at a time: {queued:?}");
        assert!(["b", "c"].contains(&queued[0].as_str()));
        run.end(&queued[0], succeeded()).await;
    }
    assert_eq!(run.names(State::Queued).await, ["d"]);
    run.end("d", succeeded()).await;
    assert_eq!(run.status().await, WorkflowStatus::Succeeded);
}

/// Run again, jobs of a workflow pass their gates again; a child with an open parent still takes no room.
pub async fn retried_workflows_pass_their_gates(case: Case) {
    with_limit(&case).await;
    let run = Run::of(&case, vec![limited("a", ""), limited("b", "a")]).await;
    follow_up_all(&case.store).await;
    run.end("a", dead()).await;
    assert_eq!(run.names(State::Cancelled).await, ["b"]);
    let other = NewJob { gating: limited("x", "").job.gating, ..job() };
    case.insert(std::slice::from_ref(&other)).await;
    follow_up_all(&case.store).await;
    assert_eq!(case.state(other.id).await, State::Queued);

    assert_eq!(case.store.workflows().retry_workflow(run.id).await.unwrap(), Some(2));
    follow_up_all(&case.store).await;
    assert_eq!(run.names(State::Waiting).await, ["a", "b"], "the other job has the room");
    let running = case.run_jobs(run.worker, &[other.id]).await;
    assert!(case.finish(running[0], succeeded()).await);
    follow_up_all(&case.store).await;
    for name in ["a", "b"] {
        assert_eq!(run.names(State::Queued).await, [name]);
        run.end(name, succeeded()).await;
    }
    assert_eq!(run.status().await, WorkflowStatus::Succeeded);
}

/// A workflow is accepted whole or not at all, also where one of its jobs names an unknown limit or a draining queue.
pub async fn a_refused_job_refuses_its_workflow(case: Case) {
    let mut draining = step("b", "a");
    draining.job.queue = "old".parse().unwrap();
    case.store.operations().drain_queue(&draining.job.queue).await.unwrap();
    for (second, why) in
        [(limited("b", "a"), InsertOutcome::UnknownLimit(0)), (draining, InsertOutcome::QueueDraining)]
    {
        let workflow = graph(vec![step("a", ""), second]);
        for _ in 0..2 {
            let outcome = case.store.workflows().insert_workflow(&workflow).await.unwrap();
            assert_eq!(outcome, WorkflowOutcome::Refused { at: 1, why });
        }
        assert!(case.other.workflows().workflow(workflow.id).await.unwrap().is_none());
        let ids: Vec<_> = workflow.jobs().iter().map(|job| job.id).collect();
        assert!(case.other.get(&ids).await.unwrap().is_empty());
    }
    assert!(case.take_all().await.is_empty());
}
