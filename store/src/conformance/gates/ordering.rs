//! Ordering keys, and jobs that stand at many gates at once.

use std::time::Duration;

use windlass_core::{Finish, JobId, Limit, Message, NewJob, OnFailure, Outcome, Priority, State};

use super::super::support::{Case, dead, ids, retry, snoozed, succeeded};
use super::{follow_up, limited, ordered, set_limit};

/// One at a time and in order of acceptance, however urgent; across retries, snoozes and crashes; past what is cancelled
/// or dead.
pub async fn an_ordering_key_is_kept(case: Case) {
    set_limit(&case, "x", Limit::concurrent(1)).await;
    let jobs: Vec<NewJob> = (0..7)
        .map(|n| NewJob {
            priority: if n % 2 == 0 { Priority::Low } else { Priority::Urgent },
            ..ordered("account/1", OnFailure::Block)
        })
        .collect();
    case.insert(&jobs).await;
    let elsewhere = ordered("account/2", OnFailure::Block);
    case.insert(std::slice::from_ref(&elsewhere)).await;
    let ids = ids(&jobs);
    assert_eq!(case.ready(&ids).await, ids[..1]);
    assert_eq!(case.ready(&[elsewhere.id]).await, [elsewhere.id]);
    let announced: Vec<Message> =
        case.take_all().await.into_iter().flat_map(|group| group.messages).collect();
    for job in [&jobs[0], &elsewhere] {
        assert!(announced.contains(&job.message()), "with their keys, for brokers that care: {announced:?}");
    }
    for outcome in [retry(), snoozed(), Outcome::Released] {
        let waits = !matches!(outcome, Outcome::Released);
        let running = case.run_one(ids[0]).await;
        assert!(case.ready(&ids).await.is_empty(), "while it runs");
        assert!(case.finish(running, outcome).await);
        if waits {
            assert!(case.ready(&ids).await.is_empty(), "before its next attempt");
            case.store.promote_due(10).await.unwrap();
        }
        assert_eq!(case.ready(&ids).await, ids[..1]);
    }
    // Its worker is lost.
    let lost = case.worker_for(Duration::ZERO).await;
    case.run_jobs(lost, &ids[..1]).await;
    case.store.rescue(u32::MAX).await.unwrap();
    assert_eq!(case.ready(&ids).await, ids[..1]);
    let running = case.run_one(ids[0]).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&ids).await, ids[1..2]);
    // The head is called off, and one in the middle of the line.
    case.store.cancel(ids[3]).await.unwrap();
    case.store.cancel(ids[1]).await.unwrap();
    assert_eq!(case.ready(&ids).await, ids[2..3]);
    let running = case.run_one(ids[2]).await;
    assert!(case.finish(running, dead()).await);
    assert_eq!(case.ready(&ids).await, ids[4..5]);
}

/// While a job waits for a limit it has its turn, so that a successor with other limits does not pass it.
pub async fn a_turn_is_kept_at_other_gates(case: Case) {
    set_limit(&case, "x", Limit::concurrent(1)).await;
    let first = limited(&["x"]);
    let mut second = limited(&["x"]);
    second.gating.ordering_key = Some("k".parse().unwrap());
    let third = ordered("k", OnFailure::Skip);
    case.insert(&[first.clone(), second.clone(), third.clone()]).await;
    let all = [first.id, second.id, third.id];
    for id in all {
        assert_eq!(case.ready(&all).await, [id]);
        let running = case.run_one(id).await;
        assert!(case.finish(running, succeeded()).await);
    }
}

/// With `skip`, successors go ahead while a failed job waits; it comes first once it is due.
pub async fn failures_can_be_passed(case: Case) {
    let jobs: Vec<NewJob> = (0..4).map(|_| ordered("k", OnFailure::Skip)).collect();
    case.insert(&jobs).await;
    let ids = ids(&jobs);
    assert_eq!(case.ready(&ids).await, ids[..1]);
    let running = case.run_one(ids[0]).await;
    assert!(case.finish(running, retry()).await);
    assert_eq!(case.ready(&ids).await, ids[1..2]);
    let running = case.run_one(ids[1]).await;
    case.store.promote_due(10).await.unwrap();
    assert!(case.ready(&ids).await.is_empty(), "one at a time");
    assert!(case.finish(running, succeeded()).await);
    for id in [ids[0], ids[2], ids[3]] {
        assert_eq!(case.ready(&ids).await, [id]);
        let running = case.run_one(id).await;
        assert!(case.finish(running, succeeded()).await);
    }
}

/// Two clients that insert at once into one key: what one has accepted before, runs before, and all run one at a time.
pub async fn clients_share_one_order(case: Case) {
    let from = |store: usize| {
        let case = &case;
        async move {
            let store = [&case.store, &case.other][store];
            let mut accepted = Vec::new();
            for n in 0..12 {
                let group: Vec<_> = (0..1 + n % 3).map(|_| ordered("k", OnFailure::Block)).collect();
                store.insert(&group).await.unwrap();
                accepted.extend(ids(&group));
                if n % 4 == 0 {
                    follow_up(&**store).await;
                }
            }
            accepted
        }
    };
    let (mine, theirs) = futures::join!(from(0), from(1));
    // And after all of those, by turns.
    let mut turns = Vec::new();
    for n in 0..6 {
        let job = ordered("k", OnFailure::Block);
        [&case.store, &case.other][n % 2].insert(std::slice::from_ref(&job)).await.unwrap();
        turns.push(job.id);
    }
    let all = [&mine[..], &theirs[..], &turns[..]].concat();
    let worker = case.worker().await;
    let mut order = Vec::new();
    while order.len() < all.len() {
        let ready = case.ready(&all).await;
        assert_eq!(ready.len(), 1, "after {}", order.len());
        let running = case.run_jobs(worker, &ready).await[0];
        assert!(case.finish(running, succeeded()).await);
        order.extend(ready);
    }
    for line in [mine, theirs] {
        assert!(line.iter().map(|id| order.iter().position(|one| one == id)).is_sorted());
    }
    assert_eq!(order[order.len() - turns.len()..], turns);
}

/// Jobs that want the same limits in every order, worked off by four at once: nobody waits in a circle.
pub async fn crossing_gates_do_not_deadlock(case: Case) {
    for name in ["a", "b", "c"] {
        set_limit(&case, name, Limit::concurrent(1)).await;
    }
    let sets: [&[&str]; 6] = [&["a", "b"], &["b", "a"], &["b", "c"], &["c", "a"], &["a", "b", "c"], &["c"]];
    let jobs: Vec<NewJob> = (0..48)
        .map(|n| {
            let mut job = limited(sets[n % 6]);
            if n % 4 == 0 {
                job.gating.ordering_key = Some(["k", "l"][n % 3 % 2].parse().unwrap());
            }
            job
        })
        .collect();
    case.insert(&jobs).await;
    let all = ids(&jobs);
    let worker = case.worker().await;
    let process = |store: &'static str| {
        let (case, all) = (&case, &all);
        async move {
            let store = if store == "other" { &case.other } else { &case.store };
            loop {
                follow_up(&**store).await;
                let found = store.get(all).await.unwrap();
                if found.iter().all(|job| job.state.is_terminal()) {
                    return;
                }
                let queued: Vec<JobId> =
                    found.iter().filter(|job| job.state == State::Queued).map(|job| job.id).collect();
                for job in store.claim(worker, windlass_core::ClaimId::new(), &queued).await.unwrap() {
                    let finish = Finish { id: job.id, fence: job.fence, outcome: succeeded() };
                    store.finish(worker, &[finish], &[]).await.unwrap();
                }
            }
        }
    };
    futures::join!(process("store"), process("other"), process("store"), process("other"));
    assert_eq!(case.count(&all, State::Succeeded).await, 48);
}
