//! Workflows when things happen at once, are given up half-way, or are many.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::{
    After, CancelOutcome, ClaimId, Finish, JobId, JobRecord, Needs, Outcome, State, Step, Store,
    WorkflowOutcome, WorkflowStatus,
};

use super::super::support::{Case, dead, give_up, retry, succeeded};
use super::{Run, follow_up_all, graph, step};

/// Whether a cancellation of a child or its parent's success comes first: the child is over, or it is queued and
/// announced once. It never stays behind.
pub async fn cancellations_race_completions(case: Case) {
    for _ in 0..20 {
        let run = Run::of(&case, vec![step("a", ""), step("b", "a"), step("c", "b")]).await;
        let a = case.run_jobs(run.worker, &[run.job("a")]).await[0];
        case.take_all().await;
        let finish = async {
            assert!(case.finish(a, succeeded()).await);
            follow_up_all(&case.store).await;
        };
        let cancel = async {
            assert_eq!(case.other.cancel(run.job("b")).await.unwrap(), CancelOutcome::Cancelled);
            follow_up_all(&case.other).await;
        };
        futures::join!(finish, cancel);
        follow_up_all(&case.store).await;
        assert_eq!(run.names(State::Cancelled).await, ["b", "c"]);
        assert!(run.announced().await.is_empty(), "nothing is left to run");
    }
}

/// Two processes that follow up at once count each end once, and release each child once.
pub async fn follow_ups_race_each_other(case: Case) {
    const PARENTS: usize = 60;
    let mut steps: Vec<Step> = (0..PARENTS).map(|n| step(&format!("p{n}"), "")).collect();
    let half = |from| (from..PARENTS).step_by(2).map(|n| format!("p{n} ")).collect::<String>();
    steps.push(step("even", &half(0)));
    steps.push(step("odd", &half(1)));
    steps.push(Step { after: After::All(Needs::Succeeded), ..step("all", "") });
    let run = Run::of(&case, steps).await;
    case.take_all().await;
    let parents: Vec<JobId> = (0..PARENTS).map(|n| run.job(&format!("p{n}"))).collect();
    let running = case.run_jobs(run.worker, &parents).await;
    let work = |store: Arc<dyn Store>, from: usize| {
        let finishes = running.iter().skip(from).step_by(2).map(|job| Finish {
            id: job.id,
            fence: job.fence,
            outcome: succeeded(),
        });
        let finishes: Vec<Finish> = finishes.collect();
        async move {
            for group in finishes.chunks(5) {
                let (recorded, followed) =
                    futures::join!(store.finish(run.worker, group, &[]), store.follow_up(3));
                assert_eq!(recorded.unwrap().len(), group.len());
                followed.unwrap();
            }
            follow_up_all(&store).await;
        }
    };
    futures::join!(work(case.store.clone(), 0), work(case.other.clone(), 1));
    // What one of them had under way may have been skipped by the other.
    follow_up_all(&case.store).await;
    let released = BTreeMap::from([(run.job("even"), 1), (run.job("odd"), 1)]);
    assert_eq!(run.announced().await, released);
    for name in ["even", "odd"] {
        run.end(name, succeeded()).await;
    }
    assert_eq!(run.announced().await, BTreeMap::from([(run.job("all"), 1)]));
}

/// A parent that is noted twice, as one that paused before its end, is counted once.
pub async fn an_end_counts_once(case: Case) {
    let run = Run::of(&case, vec![step("a", ""), step("b", ""), step("c", "a b")]).await;
    run.run("a", retry()).await;
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    run.run("a", succeeded()).await;
    for _ in 0..2 {
        assert_eq!(case.store.follow_up(1).await.unwrap(), 1);
        assert_eq!(run.state("c").await, State::Waiting);
    }
    run.end("b", succeeded()).await;
    assert_eq!(run.state("c").await, State::Queued);
}

/// A follow-up that was given up anywhere is done by the next, once.
pub async fn a_follow_up_given_up_may_be_repeated(case: Case) {
    for waits in 1..200 {
        let run = Run::of(
            &case,
            vec![step("a", ""), step("b", "a"), step("x", ""), step("y", "x"), step("z", "y")],
        )
        .await;
        case.take_all().await;
        run.run("a", succeeded()).await;
        run.run("x", dead()).await;
        let done = give_up(case.store.follow_up(10), waits).await;
        // Of the first call the store may still be at work, and nobody else has its notes until that is decided.
        while run.state("b").await == State::Waiting || run.state("z").await == State::Waiting {
            follow_up_all(&case.other).await;
        }
        assert_eq!(run.announced().await, BTreeMap::from([(run.job("b"), 1)]), "after {waits}");
        assert_eq!(run.names(State::Cancelled).await, ["y", "z"]);
        assert_eq!(case.get(run.job("y")).await.errors.len(), 1);
        if done {
            return;
        }
    }
    panic!("a follow-up comes to an end");
}

/// A workflow whose acceptance was given up anywhere is there as a whole or not at all, and may be accepted again.
pub async fn a_workflow_given_up_is_all_or_nothing(case: Case) {
    for waits in 1..200 {
        let workflow = graph(vec![step("a", ""), step("b", "a"), step("c", "a b")]);
        let ids: Vec<JobId> = workflow.jobs().iter().map(|job| job.id).collect();
        let done = give_up(case.store.workflows().insert_workflow(&workflow), waits).await;
        let jobs = case.other.get(&ids).await.unwrap().len();
        assert!(jobs == 3 || (jobs == 0 && !done), "{jobs} of 3 after {waits} waits");
        for _ in 0..2 {
            let again = case.store.workflows().insert_workflow(&workflow).await.unwrap();
            assert!(matches!(again, WorkflowOutcome::Created { .. }), "{again:?}");
        }
        let record = case.other.workflows().workflow(workflow.id).await.unwrap().unwrap();
        assert_eq!(record.counts, [(State::Queued, 1), (State::Waiting, 2)]);
        let groups = case.take_all().await;
        let messages: Vec<JobId> = groups.iter().flat_map(|g| &g.messages).map(|m| m.job_id).collect();
        assert_eq!(messages, [ids[0]]);
        let parents = case.other.workflows().parents(ids[2], None).await.unwrap();
        assert_eq!(parents.len(), 2);
        if done {
            return;
        }
    }
    panic!("an insert comes to an end");
}

/// The largest batch: what is to run at its end costs as much per job as in a small one.
pub async fn large_batches_end(case: Case) {
    let mut steps: Vec<Step> = (0..9_998).map(|n| step(&format!("j{n}"), "")).collect();
    steps.push(Step { after: After::All(Needs::Succeeded), ..step("won", "") });
    steps.push(Step { after: After::All(Needs::Finished), ..step("over", "") });
    let run = Run::of(&case, steps).await;
    let jobs: Vec<JobId> = (0..9_998).map(|n| run.job(&format!("j{n}"))).collect();
    for group in jobs.chunks(1000) {
        assert_eq!(run.state("over").await, State::Waiting);
        let claimed = case.store.claim(run.worker, ClaimId::new(), group).await.unwrap();
        let finish =
            |(n, id, fence)| Finish { id, fence, outcome: if n == 500 { dead() } else { succeeded() } };
        let finishes = claimed.iter().enumerate().map(|(n, job)| finish((n, job.id, job.fence)));
        let recorded = case.store.finish(run.worker, &finishes.collect::<Vec<_>>(), &[]).await.unwrap();
        assert_eq!(recorded.len(), group.len());
        while case.store.follow_up(200).await.unwrap() > 0 {}
    }
    assert_eq!(run.state("won").await, State::Cancelled);
    run.end("over", succeeded()).await;
    assert_eq!(run.status().await, WorkflowStatus::Failed);
}

/// Whatever the graph, and whatever becomes of its jobs, while follow-ups are given up half-way: every job ends as its
/// parents' ends demand, and none starts before them.
pub async fn any_workflow_ends_right(case: Case) {
    for seed in 0..8 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let jobs = rng.usize(5..40);
        let mut parents: Vec<BTreeMap<usize, Needs>> = Vec::new();
        for at in 0..jobs {
            let count = if at == 0 { 0 } else { rng.usize(0..4) };
            let needs =
                |rng: &mut fastrand::Rng| if rng.u8(0..3) == 0 { Needs::Finished } else { Needs::Succeeded };
            parents.push((0..count).map(|_| (rng.usize(0..at), needs(&mut rng))).collect());
        }
        let name = |at: usize| format!("j{at}");
        let steps = parents.iter().enumerate().map(|(at, parents)| {
            let after =
                parents.iter().map(|(parent, needs)| (name(*parent).parse().unwrap(), *needs)).collect();
            Step { after: After::Jobs(after), ..step(&name(at), "") }
        });
        let run = Run::of(&case, steps.collect()).await;
        let place: BTreeMap<JobId, usize> = (0..jobs).map(|at| (run.job(&name(at)), at)).collect();
        // What each attempt ends with, if it comes to that.
        let dies: BTreeSet<usize> = (0..jobs).filter(|_| rng.u8(0..6) == 0).collect();
        let mut ran = BTreeSet::new();
        loop {
            give_up(case.store.follow_up(3), rng.usize(1..12)).await;
            let (one, two) = futures::join!(case.store.follow_up(2), case.other.follow_up(2));
            for called in [one, two, case.store.promote_due(10).await] {
                called.unwrap();
            }
            let queued: Vec<JobId> = run.announced().await.into_keys().collect();
            if queued.is_empty() && run.status().await != WorkflowStatus::Running {
                break;
            }
            for job in case.run_jobs(run.worker, &queued).await {
                let at = place[&job.id];
                for (parent, needs) in &parents[at] {
                    let parent = run.state(&name(*parent)).await;
                    assert!(parent.is_terminal(), "seed {seed}: {at} runs before its parent is over");
                    assert!(*needs == Needs::Finished || parent == State::Succeeded, "seed {seed}: {at}");
                }
                let outcome = match (rng.u8(0..4), dies.contains(&at)) {
                    (0, _) => retry(),
                    (_, true) => dead(),
                    (_, false) => succeeded(),
                };
                if !matches!(outcome, Outcome::Retry { .. }) {
                    assert!(ran.insert(at), "seed {seed}: {at} runs once");
                }
                assert!(case.finish(job, outcome).await);
            }
        }
        // The reference: in the order in which they were made, every job comes after its parents.
        let mut ends: Vec<State> = Vec::new();
        for (at, parents) in parents.iter().enumerate() {
            let off = parents
                .iter()
                .any(|(parent, needs)| *needs == Needs::Succeeded && ends[*parent] != State::Succeeded);
            ends.push(match (off, dies.contains(&at)) {
                (true, _) => State::Cancelled,
                (false, true) => State::Dead,
                (false, false) => State::Succeeded,
            });
        }
        for (at, end) in ends.iter().enumerate() {
            let job: JobRecord = case.get(run.job(&name(at))).await;
            assert_eq!(job.state, *end, "seed {seed}: job {at} after {:?}", parents[at]);
        }
    }
}
