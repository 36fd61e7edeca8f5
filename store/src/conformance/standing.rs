use std::collections::BTreeMap;

use windlass_core::{CancelOutcome, Edition, JobId, NewProgress, Note, Outcome, Standing, State};

use super::support::{Case, HOUR, dead, retry, succeeded};

/// Where a job stands is a part of what a poll shows, at every step of its way.
pub async fn standing_is_a_part_of_the_record(case: Case) {
    let worker = case.worker().await;
    let ids = case.queued(7).await;
    let running = case.run_jobs(worker, &ids[1..]).await;
    let progress = NewProgress { value: 0.5, message: "half".into(), age: HOUR };
    let (id, fence) = (running[0].id, running[0].fence);
    let note = Note { id, fence, attempt: 1, progress: Some(progress), lines: Vec::new() };
    case.store.notes().note(&[note]).await.unwrap();
    case.request_cancel(running[1].id).await;
    for (job, outcome) in running[2..].iter().zip([succeeded(), dead(), retry(), Outcome::Released]) {
        assert!(case.finish(*job, outcome).await);
    }
    let mut asked = ids.clone();
    asked.push(JobId::new());
    let told = case.store.operations().standing(&asked).await.unwrap();
    let mut expected = BTreeMap::new();
    for id in &ids {
        expected.insert(*id, Standing::from(&case.get(*id).await));
    }
    assert_eq!(told.len(), ids.len());
    assert_eq!(told.into_iter().map(|job| (job.id, job)).collect::<BTreeMap<_, _>>(), expected);
    let states: Vec<State> = ids.iter().map(|id| expected[id].state).collect();
    let at_work = [State::Queued, State::Running, State::Running];
    let ended = [State::Succeeded, State::Dead, State::Retrying, State::Queued];
    assert_eq!(states, [&at_work[..], &ended].concat());
    assert!(expected[&ids[1]].progress_at.is_some() && expected[&ids[2]].cancel_requested);
    assert!(expected[&ids[5]].run_at.is_some());
    assert_eq!(case.store.operations().standing(&[]).await.unwrap(), []);
}

/// The revision moves whenever an operator changes a job that was over, and for nothing that jobs do themselves.
pub async fn operators_move_the_revision(case: Case) {
    let operations = case.store.operations();
    let revision = || async { case.other.operations().revision().await.unwrap() };
    let before = revision().await;
    let jobs = case.running(4).await;
    for (job, outcome) in jobs.iter().zip([succeeded(), dead(), dead(), retry()]) {
        assert!(case.finish(*job, outcome).await);
    }
    assert_eq!(case.store.cancel(jobs[3].id).await.unwrap(), CancelOutcome::Cancelled);
    let [done, first, second, _] = [0, 1, 2, 3].map(|at| jobs[at].id);
    assert_eq!(operations.retry(&[done], &[State::Dead]).await.unwrap(), []);
    assert_eq!(operations.delete(&[done], &[State::Dead]).await.unwrap(), []);
    assert_eq!(revision().await, before);
    assert_eq!(operations.retry(&[first], &[State::Dead]).await.unwrap(), [first]);
    let retried = revision().await;
    assert!(retried > before);
    assert_eq!(operations.delete(&[second], &[State::Dead]).await.unwrap(), [second]);
    assert!(revision().await > retried);
}

/// All who use the store know it by one name. An edition is the same as long as the revision is.
pub async fn editions_are_of_a_system_and_its_revision(case: Case) {
    let (near, far) = (case.store.operations(), case.other.operations());
    let system = near.system().await.unwrap();
    assert_eq!(far.system().await.unwrap(), system);
    assert!(system.expose().len() >= 32, "it can be guessed");
    let Some(first) = near.edition().await.unwrap() else { return };
    assert_eq!(first.system, system);
    assert_eq!(first.revision, near.revision().await.unwrap());
    let job = case.running(1).await[0];
    assert!(case.finish(job, dead()).await);
    let ended = far.edition().await.unwrap().unwrap();
    assert!(ended.at >= case.get(job.id).await.finished_at.unwrap(), "it goes by another clock");
    assert_eq!(Edition { at: first.at, ..ended }, first);
    assert_eq!(near.retry(&[job.id], &[State::Dead]).await.unwrap(), [job.id]);
    let retried = far.edition().await.unwrap().unwrap();
    assert!(retried.revision > first.revision && retried.history != first.history);
    assert_eq!(retried.system, system);
}
