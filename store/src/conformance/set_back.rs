//! Clocks that are set: back, as by a correction, and on, as after a sleep. Nothing happens twice, and nothing waits for
//! the old time to come again but what was to be done at a certain time.

use std::time::Duration;

use windlass_core::{
    JobTemplate, Limit, Missed, NewJob, Outcome, Schedule, ScheduleDefinition, State, Timestamp, WorkerId,
};

use super::support::{Case, HOUR, Timed, announced, job, jobs, raw, succeeded};
use crate::VirtualClock;

const SECOND: Duration = Duration::from_secs(1);
const TTL: Duration = Duration::from_secs(3);

fn set_back(clock: &VirtualClock, by: Duration) {
    clock.set(clock.now() - by);
}

impl Case {
    async fn lead(&self, holder: WorkerId) -> bool {
        self.store.lead("maintenance", holder, TTL).await.unwrap()
    }
}

/// However a clock goes back and forth, and whatever is done to the schedule meanwhile: each tick makes one job.
pub async fn ticks_fire_once_on_any_clock(timed: Timed) {
    let Timed { case, clock } = timed;
    let schedule = Schedule::every(SECOND * 10).unwrap().missed(Missed::All);
    let template = JobTemplate::new("test.kind".parse().unwrap(), raw("1"));
    let definition = ScheduleDefinition { name: "s".parse().unwrap(), schedule, job: template };
    let timetable = case.store.timetable();
    timetable.put_schedule(&definition, None).await.unwrap();
    let record = async || case.other.timetable().schedules().await.unwrap().pop().unwrap();
    let first = record().await.next_at.unwrap();
    let (mut fired, mut last): (usize, Option<Timestamp>) = (0, None);
    let mut rng = fastrand::Rng::with_seed(7);
    for step in 0..60 {
        let by = SECOND * rng.u32(1..120);
        if rng.bool() {
            set_back(&clock, by)
        } else {
            clock.advance(by * 2)
        }
        match step % 10 {
            // A deployment.
            3 => timetable.put_schedule(&definition, None).await.unwrap(),
            // An operator, of what is on already.
            6 => assert!(timetable.enable_schedule(&definition.name, true).await.unwrap()),
            _ => {}
        }
        let (one, other) =
            futures::join!(timetable.fire_schedules(10), case.other.timetable().fire_schedules(10));
        one.unwrap();
        other.unwrap();
        let newest = record().await.last_at;
        assert!(newest >= last, "it fires for an earlier tick: {newest:?} after {last:?}");
        last = newest;
        let groups = case.take_all().await;
        let taken: Vec<_> = groups.iter().map(|group| group.id).collect();
        case.store.outbox_published(&taken, HOUR * 24 * 1000).await.unwrap();
        fired += announced(&groups).len();
    }
    let ticks = (last.unwrap() - first).num_seconds() / 10 + 1;
    assert!(ticks > 50, "too little has fired to tell: {ticks}");
    assert_eq!(i64::try_from(fired).unwrap(), ticks);

    // Off and on again, while the clock is back: what has fired does not come again.
    set_back(&clock, HOUR);
    assert!(timetable.enable_schedule(&definition.name, false).await.unwrap());
    assert!(timetable.enable_schedule(&definition.name, true).await.unwrap());
    assert!(record().await.next_at > last);
    clock.advance(HOUR - SECOND * 10);
    assert_eq!(timetable.fire_schedules(10).await.unwrap(), 0);
}

/// A leader that died before the clock was set back does not lead until the old time comes again.
pub async fn leadership_passes_on_after_a_set_back(timed: Timed) {
    let Timed { case, clock } = timed;
    let (gone, next) = (WorkerId::new(), WorkerId::new());
    assert!(case.lead(gone).await);
    assert!(!case.lead(next).await);
    set_back(&clock, HOUR);
    assert!(case.lead(next).await);
    assert!(!case.lead(gone).await);
    // Once found out, all is as before.
    assert!(case.lead(next).await);
    clock.advance(TTL);
    assert!(case.lead(gone).await);
}

/// A worker that is silent since the clock was set back is lost after its lease; one that is not keeps its jobs.
pub async fn silence_counts_from_the_set_back(timed: Timed) {
    let Timed { case, clock } = timed;
    let leader = WorkerId::new();
    assert!(case.lead(leader).await);
    let (silent, alive) =
        (case.running_for(SECOND * 30, 1).await[0], case.running_for(SECOND * 30, 1).await[0]);
    set_back(&clock, HOUR);
    assert!(case.lead(leader).await);
    for _ in 0..2 {
        clock.advance(SECOND * 14);
        case.store.heartbeat(alive.worker).await.unwrap();
        assert!(case.store.rescue(3).await.unwrap().workers.is_empty());
    }
    clock.advance(SECOND * 2);
    let rescued = case.store.rescue(3).await.unwrap();
    assert_eq!((rescued.workers, rescued.requeued), (vec![silent.worker], 1));
    assert_eq!(case.state(silent.id).await, State::Queued);
    assert!(!case.finish(silent, succeeded()).await);
    assert!(case.finish(alive, succeeded()).await);
}

/// A clock that leaps looks like silence: leases run out. The outcome of who had them is refused, so that each job has one.
pub async fn a_leap_costs_leases_and_records_nothing_twice(timed: Timed) {
    let Timed { case, clock } = timed;
    let old = case.running_for(SECOND * 30, 1).await[0];
    clock.advance(HOUR);
    assert_eq!(case.store.rescue(3).await.unwrap().requeued, 1);
    let new = case.run_jobs(case.worker().await, &[old.id]).await[0];
    set_back(&clock, HOUR);
    assert!(!case.finish(old, succeeded()).await);
    assert!(case.store.heartbeat(old.worker).await.is_err());
    assert!(case.finish(new, succeeded()).await);
    let job = case.get(old.id).await;
    assert_eq!((job.state, job.attempt, job.errors.len()), (State::Succeeded, 2, 1));
}

/// Who waits for a rate waits on from the present, and no more start than the rate allows.
pub async fn rates_go_on_after_a_set_back(timed: Timed) {
    let Timed { case, clock } = timed;
    let leader = WorkerId::new();
    assert!(case.lead(leader).await);
    let name = "slow".parse().unwrap();
    let limit = Limit::default().rate(1, SECOND * 60);
    case.store.operations().set_limit(&name, limit).await.unwrap();
    let mut waiting = jobs(4);
    waiting.iter_mut().for_each(|job| job.gating.limits = vec!["slow".parse().unwrap()]);
    case.insert(&waiting).await;
    let ids = super::support::ids(&waiting);
    let queued = async || {
        case.store.follow_up(100).await.unwrap();
        case.count(&ids, State::Queued).await
    };
    assert_eq!(queued().await, 1);
    set_back(&clock, HOUR);
    assert!(case.lead(leader).await);
    assert_eq!(queued().await, 1, "the set back is no token");
    let left = case.store.operations().next_start().await.unwrap().unwrap();
    assert!(left <= SECOND * 60, "{left:?}");
    for started in [2, 3] {
        clock.advance(SECOND * 60 - Duration::from_micros(1));
        assert_eq!(queued().await, started - 1);
        clock.advance(Duration::from_micros(1));
        assert_eq!(queued().await, started);
    }
}

/// Groups of the outbox are looked at again from the present on.
pub async fn the_outbox_goes_on_after_a_set_back(timed: Timed) {
    let Timed { case, clock } = timed;
    let leader = WorkerId::new();
    assert!(case.lead(leader).await);
    let (published, lost) = (case.insert(&[job()]).await, case.insert(&[job()]).await);
    case.store.outbox_published(&[published.outbox.unwrap()], SECOND * 30).await.unwrap();
    set_back(&clock, HOUR);
    assert!(case.take_all().await.is_empty());
    assert!(case.lead(leader).await);
    let taken: Vec<_> = case.take_all().await.into_iter().map(|group| group.id).collect();
    assert_eq!(taken.len(), 2);
    assert!(taken.contains(&published.outbox.unwrap()) && taken.contains(&lost.outbox.unwrap()));
}

/// What has happened stays, and what has a time waits for it: due and expired jobs, whichever way the clock goes.
pub async fn times_of_jobs_hold_on_any_clock(timed: Timed) {
    let Timed { case, clock } = timed;
    let at = clock.now() + HOUR;
    let (due, later) = (NewJob { run_at: Some(at), ..job() }, NewJob { run_at: Some(at + HOUR), ..job() });
    let (expired, expiring) =
        (NewJob { expires_at: Some(at), ..job() }, NewJob { expires_at: Some(at + HOUR), ..job() });
    case.insert(&[due.clone(), later.clone(), expired.clone(), expiring.clone()]).await;
    clock.set(at);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.store.timetable().expire(10).await.unwrap(), 1);
    set_back(&clock, HOUR * 2);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
    assert_eq!(case.store.timetable().expire(10).await.unwrap(), 0);
    let worker = case.worker_for(HOUR * 24).await;
    let all = [&due, &later, &expired, &expiring].map(|job| job.id);
    let claimed = case.claim(worker, &all).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [due.id, expiring.id]);
    // Its retry is counted from the time that the clock shows now.
    let again = Outcome::Retry { after: SECOND * 60, error: "again".into() };
    let fence = claimed[0].fence;
    let attempt = super::support::Running { id: due.id, fence, worker, claim: windlass_core::ClaimId::new() };
    assert!(case.finish(attempt, again).await);
    clock.advance(SECOND * 60);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.state(due.id).await, State::Queued);
    clock.set(at + HOUR);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.state(later.id).await, State::Queued);
    assert_eq!(case.state(expired.id).await, State::Dead);
}
