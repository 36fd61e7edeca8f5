use futures::future::join_all;
use windlass_core::{CancelOutcome, ClaimId, HeartbeatReply, JobId, NewJob, State, Timestamp};

use super::support::{Case, HOUR, dead, job, retry, set, succeeded};

/// What does not run is called off at once.
pub async fn what_waits_is_called_off(case: Case) {
    let queued = case.queued(1).await[0];
    let scheduled = NewJob { run_at: Some(Timestamp::MAX_UTC), ..job() };
    case.insert(std::slice::from_ref(&scheduled)).await;
    let retrying = case.running(1).await[0];
    assert!(case.finish(retrying, retry()).await);
    for id in [queued, scheduled.id, retrying.id] {
        assert_eq!(case.store.cancel(id).await.unwrap(), CancelOutcome::Cancelled);
        let found = case.get(id).await;
        assert_eq!((found.state, found.run_at), (State::Cancelled, None));
        assert!(found.finished_at.unwrap() >= found.created_at);
        assert_eq!(case.other.cancel(id).await.unwrap(), CancelOutcome::Finished(State::Cancelled));
    }
    assert!(case.claim(case.worker().await, &[queued, scheduled.id, retrying.id]).await.is_empty());
}

/// What is over stays, and what does not exist is not found.
pub async fn what_is_over_stays(case: Case) {
    assert_eq!(case.store.cancel(JobId::new()).await.unwrap(), CancelOutcome::NotFound);
    for (outcome, state) in [(succeeded(), State::Succeeded), (dead(), State::Dead)] {
        let running = case.running(1).await[0];
        assert!(case.finish(running, outcome).await);
        let before = case.picture(&[running.id]).await;
        assert_eq!(case.store.cancel(running.id).await.unwrap(), CancelOutcome::Finished(state));
        assert_eq!(case.picture(&[running.id]).await, before);
    }
}

/// The worker of a running job is told at each heartbeat until the job has ended, and no other worker is.
pub async fn running_jobs_are_asked_to_stop(case: Case) {
    let running = case.running(3).await;
    let bystander = case.running(1).await[0];
    let worker = running[0].worker;
    assert_eq!(case.store.heartbeat(worker).await.unwrap(), HeartbeatReply::default());
    case.request_cancel(running[0].id).await;
    case.request_cancel(running[1].id).await;
    case.request_cancel(running[1].id).await;
    let found = case.get(running[0].id).await;
    assert_eq!((found.state, found.cancel_requested), (State::Running, true));
    for _ in 0..2 {
        let reply = case.other.heartbeat(worker).await.unwrap();
        assert_eq!(reply.cancel.len(), 2);
        assert_eq!(set(reply.cancel), set([running[0].id, running[1].id]));
    }
    assert!(case.store.heartbeat(bystander.worker).await.unwrap().cancel.is_empty());
    assert!(case.finish(running[0], windlass_core::Outcome::Cancelled).await);
    assert_eq!(case.store.heartbeat(worker).await.unwrap().cancel, [running[1].id]);
    assert!(case.finish(running[1], succeeded()).await);
    assert!(case.store.heartbeat(worker).await.unwrap().cancel.is_empty());
}

/// A request does not outlive the worker it was for.
pub async fn a_request_ends_with_its_job(case: Case) {
    let running = case.running_for(std::time::Duration::ZERO, 2).await;
    case.request_cancel(running[0].id).await;
    case.store.rescue(10).await.unwrap();
    assert_eq!(case.state(running[0].id).await, State::Cancelled);
    let heir = case.run_jobs(case.worker_for(HOUR).await, &[running[1].id]).await[0];
    assert!(case.store.heartbeat(heir.worker).await.unwrap().cancel.is_empty());
}

/// A cancellation and a claim of the same job do not both win, and the job ends either way.
pub async fn cancellations_race_claims(case: Case) {
    let ids = case.queued(60).await;
    let worker = case.worker().await;
    let cancels = join_all(ids.iter().map(|id| case.other.cancel(*id)));
    let claims = join_all(ids.chunks(5).map(|group| case.store.claim(worker, ClaimId::new(), group)));
    let (outcomes, claimed) = futures::join!(cancels, claims);
    let claimed = set(claimed.into_iter().flat_map(Result::unwrap).map(|job| job.id));
    let mut asked = Vec::new();
    for (id, outcome) in ids.iter().zip(outcomes) {
        let expected = if claimed.contains(id) { CancelOutcome::Requested } else { CancelOutcome::Cancelled };
        assert_eq!(outcome.unwrap(), expected);
        if claimed.contains(id) {
            asked.push(*id);
        } else {
            assert_eq!(case.state(*id).await, State::Cancelled);
        }
    }
    assert_eq!(set(case.store.heartbeat(worker).await.unwrap().cancel), set(asked));
}
