use std::collections::BTreeMap;

use futures::future::join_all;
use windlass_core::{DeadCursor, DeadFilter, JobId, NewJob, Outcome, State, Store};

use super::support::{
    Case, HOUR, Running, Timed, announced, dead, ids, job, of_tenant, raw, retry, set, succeeded,
};

/// Everything a filter finds, page by page.
async fn list(store: &dyn Store, filter: &DeadFilter, limit: usize) -> Vec<JobId> {
    let (mut found, mut after): (Vec<JobId>, Option<DeadCursor>) = (Vec::new(), None);
    loop {
        let page = store.operations().dead(filter, after, limit).await.unwrap();
        assert!(page.jobs.len() <= limit);
        assert!(page.jobs.iter().all(|job| job.state == State::Dead));
        found.extend(page.jobs.iter().map(|job| job.id));
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

/// The dead are listed by when they died, in pages of any size, as far as they fit the filter.
pub async fn dead_jobs_are_listed_newest_first(timed: Timed) {
    let Timed { case, clock } = timed;
    let label = |value: &str| BTreeMap::from([("team".to_owned(), value.to_owned())]);
    let new = [
        NewJob { queue: "mail".parse().unwrap(), ..job() },
        of_tenant("acme", NewJob { kind: "other.kind".parse().unwrap(), ..job() }),
        NewJob { labels: label("red"), ..job() },
        NewJob { labels: label("blue"), ..job() },
        job(),
        job(),
        job(),
    ];
    case.insert(&new).await;
    let jobs = ids(&new);
    let worker = case.worker().await;
    let mut times = Vec::new();
    // The fifth and the sixth die at the same time, and the last does not at all.
    let running = case.run_jobs(worker, &jobs).await;
    for (at, running) in running.iter().enumerate() {
        let outcome = if at == 6 { succeeded() } else { dead() };
        times.push(clock.now());
        assert!(case.finish(*running, outcome).await);
        if at != 4 {
            clock.advance(HOUR);
        }
    }
    let any = DeadFilter::default();
    let all = list(&*case.other, &any, 100).await;
    assert_eq!(set(all[..2].to_vec()), set([jobs[4], jobs[5]]));
    assert_eq!(all[2..], [jobs[3], jobs[2], jobs[1], jobs[0]]);
    for limit in [1, 2, 3, 6] {
        assert_eq!(list(&*case.store, &any, limit).await, all, "in pages of {limit}");
    }
    let cases = [
        (DeadFilter { queue: Some("mail".parse().unwrap()), ..any.clone() }, vec![jobs[0]]),
        (DeadFilter { kind: Some("other.kind".parse().unwrap()), ..any.clone() }, vec![jobs[1]]),
        (DeadFilter { label: Some(("team".into(), "red".into())), ..any.clone() }, vec![jobs[2]]),
        (DeadFilter { label: Some(("team".into(), "re".into())), ..any.clone() }, vec![]),
        (DeadFilter { tenant: Some("acme".parse().unwrap()), ..any.clone() }, vec![jobs[1]]),
        (DeadFilter { tenant: Some("acm".parse().unwrap()), ..any.clone() }, vec![]),
        (DeadFilter { since: Some(times[2]), until: Some(times[3]), ..any.clone() }, vec![jobs[2]]),
        (DeadFilter { until: Some(times[1]), ..any.clone() }, vec![jobs[0]]),
        (
            DeadFilter {
                queue: Some("mail".parse().unwrap()),
                kind: Some("other.kind".parse().unwrap()),
                ..any.clone()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        for limit in [1, 10] {
            assert_eq!(list(&*case.store, &filter, limit).await, expected, "{filter:?}");
        }
    }
    assert_eq!(case.store.operations().retry(&jobs, &[State::Dead]).await.unwrap().len(), 6);
    assert!(list(&*case.store, &any, 10).await.is_empty(), "retried, they are dead no more");
}

/// A retried job has all its attempts again, and keeps its history.
pub async fn retried_jobs_begin_anew(case: Case) {
    let new = NewJob { max_attempts: 2, ..job() };
    case.insert(std::slice::from_ref(&new)).await;
    let die = async || {
        for outcome in [retry(), dead()] {
            let running = case.run_jobs(case.worker().await, &[new.id]).await[0];
            assert!(case.finish(running, outcome).await);
            case.store.promote_due(10).await.unwrap();
        }
        assert_eq!(case.state(new.id).await, State::Dead);
    };
    die().await;
    let operations = case.store.operations();
    assert!(operations.retry(&[new.id], &[State::Succeeded, State::Cancelled]).await.unwrap().is_empty());
    assert_eq!(operations.retry(&[new.id, new.id, JobId::new()], &[State::Dead]).await.unwrap(), [new.id]);
    assert!(operations.retry(&[new.id], &State::TERMINAL).await.unwrap().is_empty(), "a repeat");
    let found = case.get(new.id).await;
    assert_eq!((found.state, found.attempt, found.finished_at), (State::Queued, 0, None));
    assert_eq!(announced(&case.take_all().await), set([new.id]), "it is announced at once");
    die().await;
    let attempts: Vec<u32> = case.get(new.id).await.errors.iter().map(|error| error.attempt).collect();
    assert_eq!(attempts, [1, 2, 1, 2]);

    // A result goes, and so does a request to cancel.
    let job = case.running(1).await[0];
    assert!(case.finish(job, Outcome::Succeeded { result: Some(raw("1")), keep: None }).await);
    operations.retry(&[job.id], &State::TERMINAL).await.unwrap();
    assert!(case.get(job.id).await.result.is_none());
    let job = case.run_jobs(case.worker().await, &[job.id]).await[0];
    assert_eq!(job.fence, 2, "the fence goes on");
    case.request_cancel(job.id).await;
    assert!(case.finish(job, Outcome::Cancelled).await);
    operations.retry(&[job.id], &State::TERMINAL).await.unwrap();
    assert!(!case.get(job.id).await.cancel_requested);
    let job = case.run_jobs(case.worker().await, &[job.id]).await[0];
    assert!(case.finish(job, retry()).await);
    assert_eq!(case.state(job.id).await, State::Retrying);
}

/// An expiry that has passed does not keep a retried job from running.
pub async fn what_has_expired_can_be_retried(timed: Timed) {
    let Timed { case, clock } = timed;
    let at = Some(clock.now() + HOUR);
    let new = NewJob { expires_at: at, deadline: at, ..job() };
    case.insert(std::slice::from_ref(&new)).await;
    let running = case.run_jobs(case.worker().await, &[new.id]).await[0];
    assert!(case.finish(running, dead()).await);
    clock.advance(HOUR);
    case.store.operations().retry(&[new.id], &State::TERMINAL).await.unwrap();
    let claimed = case.claim(case.worker().await, &[new.id]).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].time_left, None);
}

/// Retries that race each other, deletions and the ends of the jobs retry each job once per end, and leave nothing that
/// a later death would stumble on.
pub async fn retries_race_everything(case: Case) {
    let worker = case.worker().await;
    let jobs = case.queued(20).await;
    for _ in 0..5 {
        let running = case.run_jobs(worker, &jobs).await;
        let ends = join_all(running.iter().map(|job: &Running| case.finish(*job, dead())));
        let retries = join_all((0..6).map(async |i| {
            let store = if i % 2 == 0 { &case.store } else { &case.other };
            store.operations().retry(&jobs, &[State::Dead]).await.unwrap().len()
        }));
        let (recorded, retried) = futures::join!(ends, retries);
        assert!(recorded.into_iter().all(|recorded| recorded));
        let rest = case.store.operations().retry(&jobs, &[State::Dead]).await.unwrap();
        assert_eq!(retried.into_iter().sum::<usize>() + rest.len(), jobs.len());
        assert_eq!(case.count(&jobs, State::Queued).await, jobs.len());
        assert!(list(&*case.store, &DeadFilter::default(), 100).await.is_empty());
    }
}

/// Only what is over can be deleted, and then nothing is left of it.
pub async fn deleted_jobs_are_gone(case: Case) {
    let over = case.running(3).await;
    for (job, outcome) in over.iter().zip([succeeded(), Outcome::Cancelled, dead()]) {
        assert!(case.finish(*job, outcome).await);
    }
    let running = case.running(1).await[0];
    let queued = case.queued(1).await[0];
    let all: Vec<JobId> = over.iter().map(|job| job.id).chain([running.id, queued]).collect();
    let operations = case.store.operations();
    assert_eq!(operations.delete(&all, &[State::Cancelled]).await.unwrap(), [over[1].id]);
    assert_eq!(set(operations.delete(&all, &State::ALL).await.unwrap()), set([over[0].id, over[2].id]));
    assert!(operations.delete(&all, &State::ALL).await.unwrap().is_empty(), "a repeat");
    let left: Vec<JobId> = case.other.get(&all).await.unwrap().iter().map(|job| job.id).collect();
    assert_eq!(set(left), set([running.id, queued]));
    assert!(list(&*case.store, &DeadFilter::default(), 100).await.is_empty());
    // The same id again is a new job, without a past.
    case.insert(&[NewJob { id: over[2].id, ..job() }]).await;
    assert!(case.get(over[2].id).await.errors.is_empty());
    let again = case.run_jobs(case.worker().await, &[over[2].id]).await[0];
    assert!(case.finish(again, dead()).await);
}
