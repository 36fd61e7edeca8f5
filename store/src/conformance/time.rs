use std::time::Duration;

use windlass_core::{JobId, NewJob, Outcome, State};

use super::support::{Case, HOUR, Running, Timed, announced, job, retry, snoozed};

/// A job is due when its time has come, not a moment earlier.
pub async fn scheduled_jobs_are_due_in_time(timed: Timed) {
    let Timed { case, clock } = timed;
    let job = NewJob { run_at: Some(clock.now() + HOUR), ..job() };
    case.insert(std::slice::from_ref(&job)).await;
    clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
    assert_eq!(case.state(job.id).await, State::Scheduled);
    clock.advance(Duration::from_micros(1));
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.state(job.id).await, State::Queued);
}

/// A job past its expiry is not started, though nobody has called it dead yet.
pub async fn jobs_that_expired_are_not_claimed(timed: Timed) {
    let Timed { case, clock } = timed;
    let job = || NewJob { expires_at: Some(clock.now() + HOUR), ..job() };
    let (early, late) = (job(), job());
    case.insert(&[early.clone(), late.clone()]).await;
    let worker = case.worker().await;
    clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(case.claim(worker, &[early.id]).await.len(), 1);
    clock.advance(Duration::from_micros(1));
    assert_eq!(case.claim(worker, &[late.id]).await.len(), 0);
}

impl Case {
    async fn expire(&self) -> usize {
        self.store.timetable().expire(100).await.unwrap()
    }

    /// The last error of a job that has expired.
    async fn expired(&self, id: JobId) -> String {
        let job = self.get(id).await;
        assert_eq!(job.state, State::Dead);
        assert!(job.finished_at.is_some() && job.run_at.is_none());
        let error = job.errors.last().unwrap().clone();
        assert!(error.message.starts_with("expired: "), "{error:?}");
        error.message
    }
}

/// A job that has not started by its expiry is dead, whatever it waits for; one that has is not affected.
pub async fn jobs_expire_in_every_state(timed: Timed) {
    let Timed { case, clock } = timed;
    let by = Some(clock.now() + HOUR);
    let job = |run_at| NewJob { expires_at: by, run_at, ..job() };
    let later = Some(clock.now() + HOUR * 2);
    let (queued, scheduled, plain) = (job(None), job(later), job(None));
    let (running, retrying, snoozing, released, done) =
        (job(None), job(None), job(None), job(None), job(None));
    let all = [&queued, &scheduled, &running, &retrying, &snoozing, &released, &done].map(Clone::clone);
    case.insert(&all).await;
    case.insert(&[NewJob { expires_at: None, ..plain.clone() }]).await;
    let worker = case.worker().await;
    let started = case.run_jobs(worker, &[running.id]).await[0];
    let run = async |id| case.run_jobs(worker, &[id]).await[0];
    let [a, b, c, d] =
        [run(retrying.id).await, run(snoozing.id).await, run(released.id).await, run(done.id).await];
    let again = Outcome::Retry { after: HOUR * 3, error: "again".into() };
    assert!(case.finish(a, again).await);
    assert!(case.finish(b, Outcome::Snoozed { after: HOUR * 3 }).await);
    assert!(case.finish(c, Outcome::Released).await);
    assert!(case.finish(d, super::support::succeeded()).await);
    clock.advance(HOUR - Duration::from_micros(1));
    assert_eq!(case.expire().await, 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(case.expire().await, 7);
    for dead in [&queued, &scheduled, &snoozing, &released] {
        assert!(case.expired(dead.id).await.contains("not started"));
    }
    assert_eq!(case.get(queued.id).await.attempt, 0);
    for (id, state) in [
        (plain.id, State::Queued),
        (running.id, State::Running),
        (retrying.id, State::Retrying),
        (done.id, State::Succeeded),
    ] {
        assert_eq!(case.state(id).await, state);
    }
    // The one that runs comes back unstarted: it is too late now.
    assert!(case.finish(started, Outcome::Released).await);
    assert!(case.claim(worker, &[running.id]).await.is_empty());
    clock.advance(Duration::from_secs(10));
    assert_eq!(case.expire().await, 1);
    case.expired(running.id).await;
    // The one that failed runs again.
    clock.advance(HOUR * 3);
    assert_eq!(case.expire().await, 0);
    case.store.promote_due(10).await.unwrap();
    assert_eq!(case.claim(worker, &[retrying.id, scheduled.id, snoozing.id]).await.len(), 1);
    assert_eq!(case.expire().await, 0, "nothing is left to look at");
}

/// By its deadline a job is over: those not running die then, those running as soon as they come back, and none starts.
pub async fn deadlines_end_jobs(timed: Timed) {
    let Timed { case, clock } = timed;
    let job = |run_at| NewJob { deadline: Some(clock.now() + HOUR), run_at, ..job() };
    let (queued, scheduled, retrying, running, lost) =
        (job(None), job(Some(clock.now() + HOUR * 2)), job(None), job(None), job(None));
    let all = [&queued, &scheduled, &retrying, &running, &lost].map(Clone::clone);
    case.insert(&all).await;
    let worker = case.worker().await;
    clock.advance(HOUR / 2);
    let claimed = case.claim(worker, &[retrying.id]).await.pop().unwrap();
    assert_eq!(claimed.time_left, Some(HOUR / 2));
    let attempt =
        Running { id: retrying.id, fence: claimed.fence, worker, claim: windlass_core::ClaimId::new() };
    assert!(case.finish(attempt, Outcome::Retry { after: HOUR, error: "again".into() }).await);
    let runs = case.run_jobs(worker, &[running.id]).await[0];
    let short = case.worker_for(HOUR / 4).await;
    case.run_jobs(short, &[lost.id]).await;
    clock.advance(HOUR / 2);
    assert!(case.claim(worker, &[queued.id]).await.is_empty(), "none starts");
    assert_eq!(case.expire().await, 5);
    for dead in [&queued, &scheduled, &retrying] {
        assert!(case.expired(dead.id).await.contains("deadline"));
    }
    let errors = case.get(retrying.id).await.errors;
    assert_eq!(errors.iter().map(|e| e.attempt).collect::<Vec<_>>(), [1, 1], "{errors:?}");
    assert_eq!(case.state(running.id).await, State::Running, "its worker stops it");
    assert!(case.finish(runs, snoozed()).await);
    assert_eq!(case.store.rescue(3).await.unwrap().requeued, 1);
    clock.advance(Duration::from_secs(10));
    assert_eq!(case.expire().await, 2);
    for dead in [&running, &lost] {
        assert!(case.expired(dead.id).await.contains("deadline"));
    }
    assert_eq!(case.expire().await, 0);
    case.store.promote_due(10).await.unwrap();
    assert!(announced(&case.take_all().await).is_empty());
}

/// The sweep keeps to its limit, may be given up anywhere, and is shared by those who do it at once.
pub async fn expiry_goes_in_batches(timed: Timed) {
    let Timed { case, clock } = timed;
    let jobs: Vec<_> = (0..60)
        .map(|i| NewJob {
            expires_at: Some(clock.now() + HOUR),
            deadline: (i % 2 == 0).then(|| clock.now() + HOUR),
            ..job()
        })
        .collect();
    case.insert(&jobs).await;
    clock.advance(HOUR);
    for waits in 1..10 {
        super::support::give_up(case.store.timetable().expire(10), waits).await;
    }
    let (a, b) = futures::join!(case.store.timetable().expire(20), case.other.timetable().expire(20));
    assert!(a.unwrap() <= 20 && b.unwrap() <= 20);
    while case.expire().await > 0 {}
    for job in &jobs {
        let job = case.get(job.id).await;
        assert_eq!((job.state, job.errors.len(), job.attempt), (State::Dead, 1, 0));
    }
}

/// An end that comes first stands, and an attempt after a lost lease does not expire.
pub async fn expiry_races_claims(timed: Timed) {
    let Timed { case, clock } = timed;
    let jobs: Vec<_> = (0..40).map(|_| NewJob { expires_at: Some(clock.now() + HOUR), ..job() }).collect();
    case.insert(&jobs).await;
    let ids = super::support::ids(&jobs);
    let worker = case.worker().await;
    clock.advance(HOUR - Duration::from_micros(1));
    let (claimed, ()) = futures::join!(case.claim(worker, &ids), async {
        clock.advance(Duration::from_micros(1));
        case.expire().await;
    });
    clock.advance(Duration::from_secs(10));
    case.expire().await;
    assert_eq!(case.count(&ids, State::Running).await, claimed.len());
    assert_eq!(case.count(&ids, State::Dead).await, ids.len() - claimed.len());
    for job in claimed {
        let run = Running { id: job.id, fence: job.fence, worker, claim: windlass_core::ClaimId::new() };
        assert!(case.finish(run, retry()).await);
    }
}
