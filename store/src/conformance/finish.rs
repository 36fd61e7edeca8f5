use std::time::Duration;

use windlass_core::{ClaimId, Finish, Outcome, State, WorkerId};

use super::support::{Case, HOUR, Running, dead, give_up, raw, retry, set, snoozed, succeeded};

/// Every outcome is recorded with all that belongs to it.
pub async fn every_outcome(case: Case) {
    let running = case.running(6).await;
    let outcomes = [
        Outcome::Succeeded { result: Some(raw("{\"n\": 1}")), keep: None },
        Outcome::Retry { after: HOUR, error: "lost the line".into() },
        dead(),
        Outcome::Cancelled,
        Outcome::Snoozed { after: HOUR },
        Outcome::Released,
    ];
    let finishes: Vec<Finish> = running
        .iter()
        .zip(outcomes)
        .map(|(job, outcome)| Finish { id: job.id, fence: job.fence, outcome })
        .collect();
    let before = case.get(running[0].id).await.started_at.unwrap();
    let recorded = case.store.finish(running[0].worker, &finishes, &[running[0].claim]).await.unwrap();
    assert_eq!(set(recorded), set(running.iter().map(|job| job.id)));

    let states =
        [State::Succeeded, State::Retrying, State::Dead, State::Cancelled, State::Scheduled, State::Queued];
    for ((job, finish), state) in running.iter().zip(&finishes).zip(states) {
        let found = case.get(job.id).await;
        assert_eq!(found.state, state);
        assert_eq!(finish.outcome.event().target(), Some(state), "as the state table says");
        assert_eq!(found.attempt, u32::from(finish.outcome.counts()), "{state}");
        assert_eq!(found.finished_at.is_some(), state.is_terminal(), "{state}");
        assert!(found.finished_at.is_none_or(|at| at >= before));
        let waits = matches!(state, State::Retrying | State::Scheduled);
        assert_eq!(found.run_at.is_some(), waits, "{state}");
        // By the store's clock, and an hour on.
        assert!(found.run_at.is_none_or(|at| at >= before + HOUR && at < before + 2 * HOUR));
        assert_eq!(
            found.result.as_deref().map(|json| json.get()),
            (state == State::Succeeded).then_some("{\"n\": 1}")
        );
        let messages: Vec<&str> = found.errors.iter().map(|error| error.message.as_str()).collect();
        let expected: &[&str] = match state {
            State::Retrying => &["lost the line"],
            State::Dead => &["never"],
            _ => &[],
        };
        assert_eq!(messages, expected);
    }
}

/// Only the newest fence records, and only while the job runs.
pub async fn outcomes_are_fenced(case: Case) {
    let job = case.running(1).await[0];
    let outcomes = || [succeeded(), retry(), dead(), Outcome::Cancelled, snoozed(), Outcome::Released];
    // Fences that were never given.
    for fence in [0, job.fence + 1, u32::MAX] {
        for outcome in outcomes() {
            assert!(!case.finish(Running { fence, ..job }, outcome).await);
        }
    }
    assert!(case.finish(job, Outcome::Released).await);
    let next = case.run_jobs(case.worker().await, &[job.id]).await[0];
    assert_eq!(next.fence, job.fence + 1);
    let before = case.picture(&[job.id]).await;
    for outcome in outcomes() {
        assert!(!case.finish(job, outcome).await, "an older attempt records nothing");
    }
    assert_eq!(case.picture(&[job.id]).await, before);
    assert!(case.finish(next, succeeded()).await);
    let before = case.picture(&[job.id]).await;
    for outcome in outcomes() {
        assert!(!case.finish(next, outcome).await, "it is over");
    }
    assert_eq!(case.picture(&[job.id]).await, before);
}

/// In a group each outcome stands for itself.
pub async fn a_group_is_answered_job_by_job(case: Case) {
    let running = case.running(4).await;
    assert!(case.finish(running[1], succeeded()).await);
    let unknown = windlass_core::JobId::new();
    let finish = |id, fence| Finish { id, fence, outcome: retry() };
    let group = [
        finish(running[3].id, 1),
        finish(unknown, 1),
        finish(running[1].id, 1),
        finish(running[0].id, 2),
        finish(running[2].id, 1),
    ];
    let recorded = case.store.finish(running[0].worker, &group, &[]).await.unwrap();
    assert_eq!(set(recorded), set([running[2].id, running[3].id]));
    assert_eq!(case.state(running[0].id).await, State::Running);
    assert!(case.store.finish(running[0].worker, &[], &[]).await.unwrap().is_empty());
}

/// Large groups are recorded whole.
pub async fn large_groups(case: Case) {
    let running = case.running(2000).await;
    let finishes: Vec<Finish> = running
        .iter()
        .enumerate()
        .map(|(i, job)| {
            let outcome = if i % 4 == 0 { retry() } else { succeeded() };
            Finish { id: job.id, fence: job.fence, outcome }
        })
        .collect();
    let recorded = case.store.finish(running[0].worker, &finishes, &[running[0].claim]).await.unwrap();
    assert_eq!(recorded.len(), 2000);
    let ids: Vec<_> = running.iter().map(|job| job.id).collect();
    assert_eq!(case.count(&ids, State::Retrying).await, 500);
    assert_eq!(case.count(&ids, State::Succeeded).await, 1500);
}

/// Error records are kept in order, with the attempt as the user counts it and the worker's label.
pub async fn errors_are_kept_in_order(case: Case) {
    let id = case.queued(1).await[0];
    let stranger = WorkerId::new();
    for (round, outcome) in ["first", "", "second", "", "third"].into_iter().enumerate() {
        let running = case.run_jobs(case.worker().await, &[id]).await[0];
        let (outcome, by) = match (outcome, round) {
            ("", 1) => (snoozed(), running.worker),
            ("", _) => (Outcome::Released, running.worker),
            // Recorded by a worker that was forgotten meanwhile: its id stands for the label.
            (error, 2) => (Outcome::Retry { after: Duration::ZERO, error: error.into() }, stranger),
            (error, _) => (Outcome::Retry { after: Duration::ZERO, error: error.into() }, running.worker),
        };
        assert!(case.finish(Running { worker: by, ..running }, outcome).await);
        case.store.promote_due(10).await.unwrap();
    }
    let found = case.get(id).await;
    let errors: Vec<(u32, String, String)> =
        found.errors.iter().map(|e| (e.attempt, e.message.clone(), e.worker.clone())).collect();
    let expected =
        [(1, "first", "host-1".into()), (2, "second", stranger.to_string()), (3, "third", "host-1".into())];
    assert_eq!(errors, expected.map(|(attempt, message, worker)| (attempt, message.into(), worker)));
    assert!(found.errors.is_sorted_by_key(|error| error.at));
    assert!(found.errors[0].at >= found.created_at);
    assert_eq!(found.attempt, 3);
}

/// Where a cancellation was asked for, the job does not get another attempt; success and failure for good stand.
pub async fn outcomes_after_a_cancellation_request(case: Case) {
    let cases = [
        (succeeded(), State::Succeeded),
        (dead(), State::Dead),
        (retry(), State::Cancelled),
        (snoozed(), State::Cancelled),
        (Outcome::Released, State::Cancelled),
        (Outcome::Cancelled, State::Cancelled),
    ];
    for (outcome, state) in cases {
        let job = case.running(1).await[0];
        case.request_cancel(job.id).await;
        assert!(case.finish(job, outcome).await);
        let found = case.get(job.id).await;
        assert_eq!((found.state, found.run_at), (state, None));
        assert!(found.finished_at.is_some());
        assert!(case.store.heartbeat(job.worker).await.unwrap().cancel.is_empty(), "the request is settled");
    }
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0, "none of them comes back");
}

/// A finish given up half-way is recorded once, whether or not it is repeated.
pub async fn a_finish_given_up_may_be_repeated(case: Case) {
    for waits in 1..=20 {
        let running = case.running(50).await;
        let finishes: Vec<Finish> =
            running.iter().map(|job| Finish { id: job.id, fence: job.fence, outcome: retry() }).collect();
        let (worker, closed) = (running[0].worker, [running[0].claim]);
        give_up(case.store.finish(worker, &finishes, &closed), waits).await;
        case.store.finish(worker, &finishes, &closed).await.unwrap();
        for job in running {
            let found = case.get(job.id).await;
            assert_eq!((found.state, found.errors.len()), (State::Retrying, 1));
        }
    }
}

/// Closing claims that are unknown, or closed already, does no harm.
pub async fn claims_are_closed(case: Case) {
    let running = case.running(2).await;
    let finishes: Vec<Finish> =
        running.iter().map(|job| Finish { id: job.id, fence: job.fence, outcome: succeeded() }).collect();
    let (worker, claim) = (running[0].worker, running[0].claim);
    case.store.finish(worker, &finishes, &[claim, ClaimId::new(), claim]).await.unwrap();
    case.store.finish(worker, &[], &[claim]).await.unwrap();
    // Nothing is held any more: the goodbye is final.
    case.store.deregister(worker).await.unwrap();
    assert!(case.store.rescue(3).await.unwrap().workers.is_empty());
}
