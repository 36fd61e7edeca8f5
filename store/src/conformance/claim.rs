use std::collections::{BTreeSet, HashMap};

use futures::future::join_all;
use windlass_core::{ClaimId, JobId, NewJob, Outcome, State, StoreError, Timestamp, WorkerId};

use super::support::{Case, give_up, ids, job, set, sorted, succeeded};

/// A claim takes what is queued, each once, and nothing else.
pub async fn claim_takes_what_is_queued(case: Case) {
    let queued = case.queued(3).await;
    let scheduled = NewJob { run_at: Some(Timestamp::MAX_UTC), ..job() };
    case.insert(std::slice::from_ref(&scheduled)).await;
    let cancelled = case.queued(1).await[0];
    case.store.cancel(cancelled).await.unwrap();
    let running = case.running(1).await[0];
    let wanted =
        [queued[2], JobId::new(), queued[0], scheduled.id, queued[0], cancelled, queued[2], running.id];
    let worker = case.worker().await;
    let claimed = case.claim(worker, &wanted).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [queued[0], queued[2]]);
    let found = case.get(queued[0]).await;
    assert_eq!((found.state, found.attempt), (State::Running, 1));
    assert!(found.started_at.unwrap() >= found.created_at);
    assert_eq!(case.state(queued[1]).await, State::Queued, "not asked for");
    assert_eq!(case.state(scheduled.id).await, State::Scheduled);
    assert_eq!(case.state(cancelled).await, State::Cancelled);
    assert!(case.finish(running, succeeded()).await, "the other worker's attempt is untouched");
    assert!(case.claim(worker, &wanted).await.is_empty(), "all are taken");
}

/// Claims of nothing, and of nothing known, take nothing.
pub async fn claim_of_nothing(case: Case) {
    let worker = case.worker().await;
    assert!(case.claim(worker, &[]).await.is_empty());
    assert!(case.claim(worker, &[JobId::new()]).await.is_empty());
}

/// However many workers ask for the same jobs at once, each job goes to one of them.
pub async fn each_job_is_claimed_once(case: Case) {
    let ids = case.queued(300).await;
    let mut workers = Vec::new();
    for _ in 0..12 {
        workers.push(case.worker().await);
    }
    let claims = workers.iter().enumerate().map(|(i, worker)| {
        let (store, mut wanted) = (if i % 2 == 0 { &case.store } else { &case.other }, ids.clone());
        // Each in another order.
        wanted.rotate_left(i * 25);
        if i % 3 == 0 {
            wanted.reverse();
        }
        async move {
            let mut mine = Vec::new();
            for group in wanted.chunks(50) {
                mine.extend(store.claim(*worker, ClaimId::new(), group).await.unwrap());
            }
            mine
        }
    });
    let claimed: Vec<_> = join_all(claims).await.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 300, "no job twice, and none forgotten");
    assert_eq!(set(claimed.iter().map(|job| job.id)), set(ids));
    assert!(claimed.iter().all(|job| job.fence == 1));
}

/// Repeated, a claim answers with those of its jobs that still run, and takes nothing more.
pub async fn claim_may_be_repeated(case: Case) {
    let ids = case.queued(4).await;
    let (worker, claim) = (case.worker().await, ClaimId::new());
    let first = sorted(case.store.claim(worker, claim, &ids[..3]).await.unwrap());
    let again = sorted(case.other.claim(worker, claim, &ids[..3]).await.unwrap());
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
    let done = super::support::Running { id: ids[1], fence: 1, worker, claim };
    assert!(case.finish(done, succeeded()).await);
    let again = sorted(case.store.claim(worker, claim, &ids[..3]).await.unwrap());
    assert_eq!(again.iter().map(|job| (job.id, job.fence)).collect::<Vec<_>>(), [(ids[0], 1), (ids[2], 1)]);
    assert_eq!(case.state(ids[3]).await, State::Queued);
    // Nobody else gets them by that.
    assert!(case.claim(case.worker().await, &ids[..3]).await.is_empty());
}

/// Repeated once all of its jobs were let go, a claim takes none of them again, and nobody else's either.
pub async fn a_claim_takes_but_once(case: Case) {
    let running = case.running(2).await;
    for job in &running {
        assert!(case.finish(*job, Outcome::Released).await);
    }
    let ids = [running[0].id, running[1].id];
    let (worker, claim) = (running[0].worker, running[0].claim);
    assert!(case.store.claim(worker, claim, &ids).await.unwrap().is_empty());
    assert_eq!(case.count(&ids, State::Queued).await, 2);
    let heirs = case.run_jobs(case.worker().await, &ids).await;
    assert!(case.store.claim(worker, claim, &ids).await.unwrap().is_empty());
    assert!(case.finish(heirs[0], succeeded()).await && case.finish(heirs[1], succeeded()).await);
}

/// A claim that comes to the store once more, long after it was closed, takes what is queued by then. Its worker hears of
/// that with its heartbeats, and finds what it holds by it.
pub async fn a_claim_may_come_late(case: Case) {
    let held = async |worker| set_of(case.other.heartbeat(worker).await.unwrap().claims);
    let running = case.running(2).await;
    let (worker, claim) = (running[0].worker, running[0].claim);
    let others = case.run_jobs(worker, &case.queued(1).await).await[0].claim;
    assert_eq!(held(worker).await, set_of([claim, others]));
    for job in &running {
        assert!(case.finish(*job, super::support::retry()).await);
    }
    assert_eq!(held(worker).await, set_of([claim, others]), "until it is closed");
    case.store.finish(worker, &[], &[claim]).await.unwrap();
    assert_eq!(held(worker).await, set_of([others]));
    case.store.promote_due(10).await.unwrap();
    let ids = [running[0].id, running[1].id];
    case.store.claim(worker, claim, &ids).await.unwrap();
    assert_eq!(held(worker).await, set_of([claim, others]));
    let found = sorted(case.store.claim(worker, claim, &[]).await.unwrap());
    assert_eq!(found.iter().map(|job| (job.id, job.fence)).collect::<Vec<_>>(), ids.map(|id| (id, 2)));
    for job in found {
        let job = super::support::Running { id: job.id, fence: job.fence, worker, claim };
        assert!(case.finish(job, Outcome::Released).await);
    }
    case.store.finish(worker, &[], &[claim]).await.unwrap();
    assert_eq!(held(worker).await, set_of([others]));
    assert_eq!(case.count(&ids, State::Queued).await, 2);
}

fn set_of(claims: impl IntoIterator<Item = ClaimId>) -> BTreeSet<ClaimId> {
    claims.into_iter().collect()
}

/// A claim given up half-way, whose commit may have come through, is repeated and strands no job.
pub async fn a_claim_given_up_strands_nothing(case: Case) {
    let worker = case.worker().await;
    for waits in 1..=20 {
        let ids = case.queued(50).await;
        let claim = ClaimId::new();
        give_up(case.store.claim(worker, claim, &ids), waits).await;
        // Of the first call the store may still be at work; it then decides when the second can look.
        let claimed = case.store.claim(worker, claim, &ids).await.unwrap();
        assert_eq!(set(claimed.iter().map(|job| job.id)), set(ids), "after {waits} waits");
        assert!(claimed.iter().all(|job| job.fence == 1));
    }
}

/// A worker that nobody knows claims nothing.
pub async fn unknown_workers_claim_nothing(case: Case) {
    let ids = case.queued(2).await;
    let stranger = WorkerId::new();
    let refused = case.store.claim(stranger, ClaimId::new(), &ids).await.unwrap_err();
    assert!(matches!(refused, StoreError::WorkerUnknown(id) if id == stranger), "{refused:?}");
    assert!(!refused.retryable());
    assert_eq!(case.count(&ids, State::Queued).await, 2);
}

/// The fence grows by one with each claim, also where the attempt does not count.
pub async fn the_fence_only_grows(case: Case) {
    let id = case.queued(1).await[0];
    let worker = case.worker().await;
    let mut counted = 0;
    for round in 1..=6 {
        let claimed = case.claim(worker, &[id]).await.pop().unwrap();
        assert_eq!((claimed.fence, claimed.attempt), (round, counted + 1));
        let running = super::support::Running { id, fence: claimed.fence, worker, claim: ClaimId::new() };
        let outcome = match round % 3 {
            0 => Outcome::Released,
            1 => super::support::retry(),
            _ => super::support::snoozed(),
        };
        counted += u32::from(outcome.counts());
        assert!(case.finish(running, outcome).await);
        assert_eq!(case.get(id).await.attempt, counted);
        case.store.promote_due(10).await.unwrap();
    }
}

/// Claims and outcomes of the same jobs, in different orders and from many sides, do not wait in a circle.
pub async fn claims_and_outcomes_cross(case: Case) {
    let ids = ids(&super::support::jobs(60));
    let jobs: Vec<NewJob> = ids.iter().map(|id| NewJob { id: *id, ..job() }).collect();
    case.insert(&jobs).await;
    let mut workers = Vec::new();
    for _ in 0..6 {
        workers.push(case.worker().await);
    }
    let loops = workers.iter().enumerate().map(|(i, worker)| {
        let (store, mut wanted) = (if i % 2 == 0 { &case.store } else { &case.other }, ids.clone());
        wanted.rotate_left(i * 10);
        if i % 2 == 0 {
            wanted.reverse();
        }
        async move {
            let mut fences: HashMap<JobId, Vec<u32>> = HashMap::new();
            for _ in 0..15 {
                let claim = ClaimId::new();
                let claimed = store.claim(*worker, claim, &wanted).await.unwrap();
                let mut finishes = Vec::new();
                for job in &claimed {
                    fences.entry(job.id).or_default().push(job.fence);
                    let finish =
                        windlass_core::Finish { id: job.id, fence: job.fence, outcome: Outcome::Released };
                    finishes.push(finish);
                }
                finishes.reverse();
                let recorded = store.finish(*worker, &finishes, &[claim]).await.unwrap();
                assert_eq!(recorded.len(), claimed.len());
            }
            fences
        }
    });
    let mut all: HashMap<JobId, Vec<u32>> = HashMap::new();
    for fences in join_all(loops).await {
        fences.into_iter().for_each(|(id, mut seen)| all.entry(id).or_default().append(&mut seen));
    }
    for (id, mut seen) in all {
        seen.sort_unstable();
        let expected: Vec<u32> = (1..).take(seen.len()).collect();
        assert_eq!(seen, expected, "each fence of job {id} was given once");
    }
}
