use std::collections::BTreeMap;
use std::time::Duration;

use uuid::{NoContext, Uuid};
use windlass_core::{JobId, LogLevel, NewJob, NewLine, NewProgress, Note, Outcome, State};

use super::support::{HOUR, Timed, dead, job, raw, retry, set, succeeded};
use crate::{Keep, Retention, VirtualClock};

const DAY: Duration = Duration::from_secs(86_400);

/// The rules of tests that have a clock.
pub(super) fn rules() -> Retention {
    let long = Keep { succeeded: Some(30 * DAY), ..Keep::default() };
    Retention {
        any: Keep { succeeded: Some(5 * DAY), cancelled: Some(6 * DAY), dead: Some(10 * DAY) },
        queues: BTreeMap::from([("archive".parse().unwrap(), long)]),
    }
}

/// An id of the clock's time.
fn id_at(clock: &VirtualClock) -> JobId {
    let now = clock.now();
    let seconds = now.timestamp().unsigned_abs();
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos())).into()
}

/// A result is gone from polls when its time is over, not a moment earlier, and then from the store; a new one counts from
/// its own end.
pub async fn results_are_forgotten_in_time(timed: Timed) {
    let Timed { case, clock } = timed;
    let jobs = case.running(2).await;
    let with_result = || Outcome::Succeeded { result: Some(raw("\"r\"")), keep: Some(HOUR) };
    assert!(case.finish(jobs[0], with_result()).await);
    assert!(case.finish(jobs[1], succeeded()).await);
    let shown = async || case.get(jobs[0].id).await.result.is_some();
    assert_eq!(case.get(jobs[0].id).await.result_until, Some(clock.now() + HOUR));
    assert_eq!(case.get(jobs[1].id).await.result_until, None);
    clock.advance(HOUR - Duration::from_micros(1));
    case.store.maintain().await.unwrap();
    assert!(shown().await);
    clock.advance(Duration::from_micros(1));
    assert!(!shown().await, "also before the housekeeping");
    case.store.maintain().await.unwrap();
    assert!(!shown().await);
    assert_eq!(case.get(jobs[0].id).await.result_until, None);
    assert_eq!(case.state(jobs[0].id).await, State::Succeeded);
    // Run again, it has a result of its own, for as long.
    case.store.operations().retry(&[jobs[0].id], &State::TERMINAL).await.unwrap();
    let again = case.run_jobs(case.worker().await, &[jobs[0].id]).await[0];
    assert!(case.finish(again, with_result()).await);
    clock.advance(HOUR - Duration::from_micros(1));
    case.store.maintain().await.unwrap();
    assert!(shown().await);
    // And retried while an expired one is still in the store.
    clock.advance(Duration::from_micros(1));
    case.store.operations().retry(&[jobs[0].id], &State::TERMINAL).await.unwrap();
    let again = case.run_jobs(case.worker().await, &[jobs[0].id]).await[0];
    assert!(case.finish(again, with_result()).await);
    assert!(shown().await);
    case.other.maintain().await.unwrap();
    assert!(shown().await);
}

/// Jobs go, with everything kept of them, once their time is over by the rule for their state and queue. What is not over
/// stays, however old, whole and usable.
pub async fn what_has_been_kept_for_long_enough_goes(timed: Timed) {
    let Timed { case, clock } = timed;
    let new = |queue: &str| NewJob { id: id_at(&clock), queue: queue.parse().unwrap(), ..job() };
    let far = NewJob { run_at: Some(clock.now() + 365 * DAY), ..new("mail") };
    let mut jobs: Vec<NewJob> = (0..7).map(|_| new("mail")).collect();
    jobs.push(new("archive"));
    jobs.push(far);
    // An id of no time at all, which is in no day's partition.
    jobs.push(NewJob { id: Uuid::from_u128(7).into(), ..job() });
    case.insert(&jobs).await;
    let [done, called_off, died, waits, queued, runs, retried, archived, far, odd] =
        std::array::from_fn(|at| jobs[at].id);
    let worker = case.worker_for(1000 * DAY).await;
    let to_run = [done, called_off, died, waits, runs, retried, archived, odd];
    let running = case.run_jobs(worker, &to_run).await;
    let running = |id: JobId| *running.iter().find(|job| job.id == id).unwrap();
    for id in to_run {
        let job = running(id);
        let line = NewLine {
            number: 0,
            level: LogLevel::Info,
            message: "said".into(),
            fields: None,
            age: Duration::ZERO,
        };
        let progress = NewProgress { value: 0.5, message: "half".into(), age: Duration::ZERO };
        let note = Note { id, fence: job.fence, attempt: 1, progress: Some(progress), lines: vec![line] };
        case.store.notes().note(&[note]).await.unwrap();
        assert!(case.store.notes().checkpoint(id, job.fence, &raw("1")).await.unwrap());
    }
    for (id, outcome) in [
        (done, succeeded()),
        (called_off, Outcome::Cancelled),
        (died, dead()),
        (waits, retry()),
        (retried, dead()),
        (archived, succeeded()),
        (odd, succeeded()),
    ] {
        assert!(case.finish(running(id), outcome).await);
    }
    let all: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let left = async || {
        let (a, b) = futures::join!(case.store.maintain(), case.other.maintain());
        // One of them may find the other at it.
        assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
        case.store.maintain().await.unwrap();
        set(case.other.get(&all).await.unwrap().iter().map(|job| job.id))
    };
    clock.advance(5 * DAY - Duration::from_micros(1));
    assert_eq!(left().await.len(), all.len());
    let before = case.picture(&[waits, queued, runs, far]).await;
    let revision = async || case.other.operations().revision().await.unwrap();
    let at_first = revision().await;
    // A day's jobs may go together, once the day is over.
    clock.advance(DAY + Duration::from_micros(1));
    let stay = [died, waits, queued, runs, retried, archived, far];
    assert_eq!(left().await, set(stay), "six days on");
    let six_days_on = revision().await;
    assert!(six_days_on > at_first, "what was known of them is no longer so");
    assert_eq!(left().await, set(stay));
    assert_eq!(revision().await, six_days_on);
    assert_eq!(case.store.operations().retry(&[retried], &[State::Dead]).await.unwrap(), [retried]);
    clock.advance(5 * DAY);
    assert_eq!(left().await, set([waits, queued, runs, retried, archived, far]), "eleven days on");
    clock.advance(30 * DAY);
    let stay = [waits, queued, runs, retried, far];
    assert_eq!(left().await, set(stay));
    assert_eq!(case.picture(&[waits, queued, runs, far]).await, before);

    let notes = case.store.notes();
    for (id, kept) in [(done, 0), (died, 0), (archived, 0), (odd, 0), (waits, 1), (runs, 1)] {
        assert_eq!(notes.logs(id, None, 10).await.unwrap().len(), kept);
        assert_eq!(notes.last_checkpoint(id).await.unwrap().is_some(), kept == 1);
    }
    assert!(case.store.operations().dead(&Default::default(), None, 10).await.unwrap().jobs.is_empty());
    // What has stayed goes on as if nothing had happened.
    assert!(case.finish(running(runs), succeeded()).await);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    let again = case.claim(worker, &[waits, queued, retried]).await;
    let fences: BTreeMap<JobId, u32> = again.iter().map(|job| (job.id, job.fence)).collect();
    assert_eq!(fences, BTreeMap::from([(waits, 2), (queued, 1), (retried, 2)]));
    assert_eq!(case.get(waits).await.errors.len(), 1);
}
