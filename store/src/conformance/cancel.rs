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
    let nothing = HeartbeatReply { claims: vec![running[0].claim], ..HeartbeatReply::default() };
    assert_eq!(case.store.heartbeat(worker).await.unwrap(), nothing);
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

/// Many jobs are called off at once, as far as they are in the states asked for.
pub async fn many_are_called_off_at_once(case: Case) {
    let operations = case.store.operations();
    let scheduled = NewJob { run_at: Some(Timestamp::MAX_UTC), ..job() };
    let gone = NewJob { run_at: Some(Timestamp::MAX_UTC), ..job() };
    case.insert(&[scheduled.clone(), gone.clone()]).await;
    let queued = case.queued(2).await;
    let running = case.running(2).await;
    let retrying = case.running(1).await[0];
    assert!(case.finish(retrying, retry()).await);
    let over = case.running(1).await[0];
    assert!(case.finish(over, succeeded()).await);
    let all = [
        scheduled.id,
        queued[0],
        queued[1],
        running[0].id,
        running[1].id,
        retrying.id,
        over.id,
        JobId::new(),
    ];
    let called = operations.cancel_many(&all, &[State::Queued]).await.unwrap();
    assert_eq!(set(called), set(queued.clone()));
    assert_eq!(case.state(scheduled.id).await, State::Scheduled);
    assert!(operations.cancel_many(&all, &State::TERMINAL).await.unwrap().is_empty());
    assert!(operations.cancel_many(&[], &State::UNFINISHED).await.unwrap().is_empty());

    let unfinished = [scheduled.id, running[0].id, running[1].id, retrying.id];
    for expected in [&unfinished[..], &[running[0].id, running[1].id]] {
        let called = operations.cancel_many(&all, &State::UNFINISHED).await.unwrap();
        assert_eq!(set(called), set(expected.to_vec()), "a repeat asks again where it was but a request");
    }
    for id in [scheduled.id, queued[0], queued[1], retrying.id] {
        let found = case.get(id).await;
        assert_eq!((found.state, found.run_at), (State::Cancelled, None));
    }
    assert_eq!(set(case.store.heartbeat(running[0].worker).await.unwrap().cancel), set(ids_of(&running)));
    assert_eq!(case.state(gone.id).await, State::Scheduled, "others are left alone");
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
    // None of their times is left to stand in the way of a later one.
    operations.retry(&[retrying.id], &[State::Cancelled]).await.unwrap();
    let again = case.run_jobs(case.worker().await, &[retrying.id]).await[0];
    assert!(case.finish(again, retry()).await);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
}

/// Cancellations of many, promotions, claims and outcomes of the same jobs do not stand in each other's way, and no job
/// is lost.
pub async fn cancellations_of_many_race_everything(case: Case) {
    let due: Vec<NewJob> = (0..60).map(|_| NewJob { run_at: Some(Timestamp::UNIX_EPOCH), ..job() }).collect();
    case.insert(&due).await;
    let queued = super::support::ids(&due);
    let running = case.running(60).await;
    let all: Vec<JobId> = queued.iter().copied().chain(ids_of(&running)).collect();
    let worker = case.worker().await;
    let operations = case.other.operations();
    let cancels = join_all(
        all.chunks(15)
            .rev()
            .chain(all.chunks(40))
            .map(|group| operations.cancel_many(group, &State::UNFINISHED)),
    );
    let finishes = join_all(running.iter().map(|job| case.finish(*job, retry())));
    let promotions = join_all((0..10).map(|_| case.store.promote_due(20)));
    let claims = join_all(queued.chunks(5).map(|group| case.store.claim(worker, ClaimId::new(), group)));
    let (cancels, _, promotions, claims) = futures::join!(cancels, finishes, promotions, claims);
    cancels.into_iter().for_each(|called| drop(called.unwrap()));
    assert!(promotions.iter().all(Result::is_ok), "{promotions:?}");
    claims.into_iter().for_each(|claimed| drop(claimed.unwrap()));
    // What was between two states goes on, and what goes on can be called off.
    operations.cancel_many(&all, &State::UNFINISHED).await.unwrap();
    while case.store.promote_due(100).await.unwrap() > 0 {}
    for found in case.other.get(&all).await.unwrap() {
        let asked = found.state == State::Running && found.cancel_requested;
        assert!(asked || found.state == State::Cancelled, "{found:?}");
    }
}

fn ids_of(running: &[super::support::Running]) -> Vec<JobId> {
    running.iter().map(|job| job.id).collect()
}
