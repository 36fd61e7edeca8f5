use std::time::Duration;

use windlass_core::{NewJob, State};

use super::support::{HOUR, Timed, job};

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
