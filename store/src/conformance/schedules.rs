use std::time::Duration;

use futures::future::join_all;
use windlass_core::{
    ClaimId, JobTemplate, Missed, Schedule, ScheduleDefinition, ScheduleRecord, State, Unique,
};

use super::support::{Case, HOUR, Timed, announced, give_up, raw, succeeded};

const SECOND: Duration = Duration::from_secs(1);

fn definition(name: &str, schedule: Schedule) -> ScheduleDefinition {
    let job = JobTemplate::new("test.kind".parse().unwrap(), raw(r#"{"tick": true}"#));
    ScheduleDefinition { name: name.parse().unwrap(), schedule, job }
}

fn every(interval: Duration) -> Schedule {
    Schedule::every(interval).unwrap().missed(Missed::All)
}

impl Case {
    async fn put(&self, definition: &ScheduleDefinition) {
        self.store.timetable().put_schedule(definition, None).await.unwrap();
    }

    async fn fire(&self) -> usize {
        self.store.timetable().fire_schedules(100).await.unwrap()
    }

    async fn only(&self) -> ScheduleRecord {
        self.other.timetable().schedules().await.unwrap().pop().unwrap()
    }

    /// The jobs that fired since the last time, in order of their ids.
    async fn fired(&self) -> Vec<windlass_core::JobRecord> {
        let groups = self.take_all().await;
        let taken: Vec<_> = groups.iter().map(|group| group.id).collect();
        self.store.outbox_published(&taken, HOUR * 24 * 1000).await.unwrap();
        let ids: Vec<_> = announced(&groups).into_iter().collect();
        self.other.get(&ids).await.unwrap()
    }
}

/// A tick makes its job, announced at once, and the schedule goes on to the next.
pub async fn a_tick_makes_its_job(timed: Timed) {
    let Timed { case, clock } = timed;
    let mut schedule = definition("hourly", Schedule::cron("0 0 * * * *", "Asia/Kolkata").unwrap());
    schedule.job.labels.insert("a".into(), "b".into());
    schedule.job.max_attempts = 3;
    schedule.job.gating.tenant = Some("acme".parse().unwrap());
    schedule.job.expires_in = Some(HOUR);
    case.put(&schedule).await;
    let first = case.only().await.next_at.unwrap();
    assert_eq!(first, schedule.schedule.next_after(clock.now()).unwrap());
    clock.advance((first - clock.now()).to_std().unwrap() - Duration::from_micros(1));
    assert_eq!(case.fire().await, 0);
    clock.advance(Duration::from_micros(1));
    assert_eq!(case.fire().await, 1);
    assert_eq!(case.fire().await, 0);
    let fired = case.fired().await;
    assert_eq!(fired.len(), 1);
    assert_eq!((fired[0].state, fired[0].max_attempts), (State::Queued, 3));
    assert_eq!(fired[0].labels["a"], "b");
    // On its tenant's behalf, as its worker hears, also when the answer to the claim was lost.
    assert_eq!(fired[0].gating, schedule.job.gating);
    let (worker, claim) = (case.worker().await, ClaimId::new());
    for _ in 0..2 {
        let claimed = case.store.claim(worker, claim, &[fired[0].id]).await.unwrap();
        assert_eq!(claimed[0].tenant, schedule.job.gating.tenant);
    }
    let record = case.only().await;
    assert_eq!(record.last_at, Some(first));
    assert_eq!(record.next_at, Some(first + chrono::TimeDelta::hours(1)));
    clock.advance(HOUR);
    let worker = case.worker().await;
    assert!(case.claim(worker, &[fired[0].id]).await.is_empty(), "it has expired");
}

/// However many schedulers there are, and wherever one of them dies: each tick fires once.
pub async fn each_tick_fires_once(timed: Timed) {
    let Timed { case, clock } = timed;
    case.put(&definition("tick", every(SECOND * 10))).await;
    let begun = case.only().await.next_at.unwrap();
    let mut fired = 0;
    for waits in 1..40 {
        clock.advance(SECOND * 10);
        let first = case.store.timetable();
        let (second, third) = (case.other.timetable(), case.other.timetable());
        // The first dies inside of it, earlier or later.
        futures::join!(
            give_up(first.fire_schedules(100), waits),
            async { second.fire_schedules(100).await.unwrap() },
            async { third.fire_schedules(100).await.unwrap() },
        );
        case.fire().await;
        fired += case.fired().await.len();
    }
    let record = case.only().await;
    let ticks = (record.last_at.unwrap() - begun).num_seconds() / 10 + 1;
    assert_eq!(i64::try_from(fired).unwrap(), ticks);
    assert!(ticks >= 39, "{ticks}");
    assert_eq!(record.next_at.unwrap() - record.last_at.unwrap(), chrono::TimeDelta::seconds(10));
}

/// Many schedulers on many schedules, without one dying.
pub async fn concurrent_schedulers_share_the_ticks(timed: Timed) {
    let Timed { case, clock } = timed;
    for i in 0..20 {
        case.put(&definition(&format!("s{i}"), every(SECOND * 30))).await;
    }
    clock.advance(SECOND * 60);
    let fires = (0..12).map(|i| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        store.timetable().fire_schedules(3)
    });
    for fired in join_all(fires).await {
        fired.unwrap();
    }
    while case.fire().await > 0 {}
    let jobs = case.fired().await.len();
    assert!(jobs == 40 || jobs == 60, "two ticks of each, or three: {jobs}");
    let next = |record: ScheduleRecord| record.next_at.unwrap() > clock.now();
    assert!(case.store.timetable().schedules().await.unwrap().into_iter().all(next));
}

/// Ticks for which nobody was there: dropped, made up for once, or each, and the newest hundred at most.
pub async fn missed_ticks_follow_the_policy(timed: Timed) {
    let Timed { case, clock } = timed;
    for (missed, expected) in [(Missed::Skip, 0), (Missed::Once, 1), (Missed::All, 5)] {
        let schedule = Schedule::every(HOUR).unwrap().missed(missed);
        case.put(&definition("s", schedule)).await;
        let next = case.only().await.next_at.unwrap();
        clock.advance((next - clock.now()).to_std().unwrap() + HOUR * 4 + SECOND * 600);
        assert_eq!(case.fire().await, 1);
        assert_eq!(case.fired().await.len(), expected, "{missed:?}");
        let record = case.only().await;
        assert_eq!(record.next_at, Some(next + chrono::TimeDelta::hours(5)), "{missed:?}");
        case.store.timetable().delete_schedule(&"s".parse().unwrap()).await.unwrap();
    }
    case.put(&definition("s", every(SECOND * 60))).await;
    clock.advance(HOUR * 10 + SECOND * 45);
    while case.fire().await > 0 {}
    let made = case.fired().await.len();
    assert!((100..=101).contains(&made), "{made}");
}

/// Jitter is a start of its own for each tick, within bounds.
pub async fn jitter_delays_the_start(timed: Timed) {
    let Timed { case, clock } = timed;
    let schedule = definition("s", every(HOUR).jitter(SECOND * 600));
    case.put(&schedule).await;
    let mut starts = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let tick = case.only().await.next_at.unwrap();
        clock.advance((tick - clock.now()).to_std().unwrap());
        case.fire().await;
        let start = schedule.schedule.start_of(&schedule.name, tick);
        starts.insert((start - tick).num_microseconds());
        assert!(start >= tick && start < tick + chrono::TimeDelta::seconds(600));
        clock.advance((start - tick).to_std().unwrap().saturating_sub(Duration::from_micros(1)));
        let early = if start > tick { case.store.promote_due(10).await.unwrap() } else { 0 };
        assert_eq!(early, 0);
        clock.advance(Duration::from_micros(1));
        assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    }
    assert!(starts.len() > 5, "{starts:?}");
}

/// The newest definition wins; what an operator switched off stays off; only other times change the next tick.
pub async fn definitions_are_replaced(timed: Timed) {
    let Timed { case, clock } = timed;
    let timetable = case.store.timetable();
    let name = "s".parse().unwrap();
    let mut first = definition("s", every(HOUR));
    case.put(&first).await;
    let next = case.only().await.next_at;
    clock.advance(HOUR * 2);
    first.job.priority = windlass_core::Priority::High;
    case.put(&first).await;
    assert_eq!(case.only().await.next_at, next, "a deployment drops no tick");
    assert_eq!(case.only().await.definition.job.priority, windlass_core::Priority::High);

    assert!(timetable.enable_schedule(&name, false).await.unwrap());
    case.put(&first).await;
    assert!(!case.only().await.enabled);
    assert_eq!(case.fire().await, 0);
    clock.advance(HOUR * 5);
    assert!(timetable.enable_schedule(&name, true).await.unwrap());
    assert!(case.only().await.next_at.unwrap() > clock.now(), "what passed meanwhile is not made up for");
    assert!(timetable.enable_schedule(&name, true).await.unwrap());
    assert_eq!(case.fire().await, 0);

    let second = definition("s", Schedule::cron("0 12 * * *", "Europe/Berlin").unwrap());
    timetable.put_schedule(&second, Some(false)).await.unwrap();
    let record = case.only().await;
    assert_eq!((record.enabled, record.next_at), (false, second.schedule.next_after(clock.now())));
    assert!(timetable.delete_schedule(&name).await.unwrap());
    assert!(!timetable.delete_schedule(&name).await.unwrap());
    assert!(!timetable.enable_schedule(&name, true).await.unwrap());
    assert!(timetable.schedules().await.unwrap().is_empty());
}

/// Processes that start at once with the same schedules.
pub async fn concurrent_definitions(case: Case) {
    let schedules: Vec<_> = (0..5).map(|i| definition(&format!("s{i}"), every(HOUR))).collect();
    let puts = (0..6).flat_map(|i| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        schedules.iter().map(move |schedule| store.timetable().put_schedule(schedule, None))
    });
    for put in join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(case.store.timetable().schedules().await.unwrap().len(), 5);
}

/// Through the night in which clocks are set forward, and the one in which they are set back.
pub async fn schedules_follow_the_clocks_of_their_zone(timed: Timed) {
    let Timed { case, clock } = timed;
    let nightly = Schedule::cron("30 2 * * *", "Europe/Berlin").unwrap();
    for _ in 0..2 {
        let nights = nightly.upcoming(clock.now(), 400);
        let day = chrono::TimeDelta::days(1);
        let change = nights.windows(2).position(|pair| pair[1] - pair[0] != day).unwrap();
        let expected = &nights[change..change + 3];
        clock.advance((expected[0] - clock.now()).to_std().unwrap() - HOUR);
        case.put(&definition("nightly", nightly.clone())).await;
        let mut fired = Vec::new();
        while clock.now() < expected[2] {
            clock.advance(HOUR / 2);
            case.fire().await;
            let last = case.only().await.last_at.filter(|last| fired.last() != Some(last));
            fired.extend(last.filter(|last| *last >= expected[0]));
        }
        assert_eq!(fired, expected);
        assert_eq!(case.fired().await.len(), 3);
        // What passes until the other change is not to be made up for.
        case.store.timetable().delete_schedule(&"nightly".parse().unwrap()).await.unwrap();
    }
}

/// A run that takes longer than its interval is not overtaken, where the template says so.
pub async fn unique_templates_do_not_overlap(timed: Timed) {
    let Timed { case, clock } = timed;
    let mut schedule = definition("s", every(SECOND * 60));
    schedule.job.unique = Some(Unique::by_key("s").unwrap());
    case.put(&schedule).await;
    clock.advance(SECOND * 60);
    case.fire().await;
    let first = case.fired().await;
    assert_eq!(first.len(), 1);
    let running = case.run_jobs(case.worker().await, &[first[0].id]).await[0];
    clock.advance(SECOND * 60);
    assert_eq!(case.fire().await, 1);
    assert!(case.fired().await.is_empty());
    assert!(case.finish(running, succeeded()).await);
    clock.advance(SECOND * 60);
    case.fire().await;
    assert_eq!(case.fired().await.len(), 1);
}
