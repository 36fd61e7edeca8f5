//! Limits of every kind, and fair queues.

mod ordering;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use windlass_core::{
    Finish, Gating, InsertOutcome, JobId, Limit, LimitRecord, NewJob, OnFailure, Outcome, Priority,
    QueueName, State, Store,
};

use super::support::{Case, HOUR, Running, Timed, announced, dead, ids, job, retry, set, snoozed, succeeded};

pub use ordering::*;

const SECOND: Duration = Duration::from_secs(1);

/// A job that names these limits.
fn limited(limits: &[&str]) -> NewJob {
    let limits = limits.iter().map(|limit| limit.parse().unwrap()).collect();
    NewJob { gating: Gating { limits, ..Gating::default() }, ..job() }
}

fn limited_jobs(count: usize, limits: &[&str]) -> Vec<NewJob> {
    (0..count).map(|_| limited(limits)).collect()
}

/// A job with this ordering key.
fn ordered(key: &str, on_failure: OnFailure) -> NewJob {
    let ordering_key = Some(key.parse().unwrap());
    NewJob { gating: Gating { ordering_key, on_failure, ..Gating::default() }, ..job() }
}

fn of_tenant(queue: &QueueName, tenant: &str) -> NewJob {
    let gating = Gating { tenant: Some(tenant.parse().unwrap()), ..Gating::default() };
    NewJob { queue: queue.clone(), gating, ..job() }
}

async fn set_limit(case: &Case, name: &str, limit: Limit) {
    case.store.operations().set_limit(&name.parse().unwrap(), limit).await.unwrap();
}

/// Does all that there is to follow up, a little at a time.
async fn follow_up(store: &dyn Store) {
    while store.follow_up(7).await.unwrap() > 0 {}
}

impl Case {
    /// Those of these jobs that are queued, after all is followed up.
    async fn ready(&self, ids: &[JobId]) -> Vec<JobId> {
        follow_up(&*self.store).await;
        let found = self.other.get(ids).await.unwrap();
        let queued = |id: &JobId| found.iter().any(|job| job.id == *id && job.state == State::Queued);
        ids.iter().copied().filter(queued).collect()
    }

    /// Claims the jobs that are ready, one of which is `id`, and answers its run.
    async fn run_one(&self, id: JobId) -> Running {
        let worker = self.worker().await;
        self.run_jobs(worker, &[id]).await.remove(0)
    }
}

/// A limit is for each of its keys; who waits is not announced and cannot be claimed, and comes in order of acceptance
/// once there is room.
pub async fn a_limit_is_for_each_key(case: Case) {
    set_limit(&case, "customer", Limit::concurrent(2)).await;
    assert_eq!(
        case.other.operations().limits().await.unwrap(),
        [LimitRecord { name: "customer".parse().unwrap(), limit: Limit::concurrent(2) }]
    );
    let many = limited_jobs(5, &["customer/42"]);
    let inserted = case.insert(&many).await;
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Waiting); 5]);
    assert_eq!(inserted.outbox, None);
    let other = limited(&["customer/7"]);
    case.insert(std::slice::from_ref(&other)).await;
    let many = ids(&many);
    assert_eq!(case.ready(&many).await, many[..2]);
    assert_eq!(case.state(other.id).await, State::Queued);
    assert_eq!(case.get(many[0]).await.gating.limits, ["customer/42".parse().unwrap()]);
    assert_eq!(announced(&case.take_all().await), set([many[0], many[1], other.id]));

    let worker = case.worker().await;
    assert_eq!(case.claim(worker, &many[2..]).await.len(), 0);
    let running = case.run_jobs(worker, &many[..2]).await;
    assert!(case.finish(running[1], succeeded()).await);
    assert_eq!(case.ready(&many).await, [many[2]]);
    assert_eq!(announced(&case.take_all().await), set([many[2]]));
}

/// Whatever ends a job, or keeps it from running for a while, makes room; what gives it back does not.
pub async fn every_way_out_makes_room(case: Case) {
    set_limit(&case, "one", Limit::concurrent(1)).await;
    let jobs = limited_jobs(8, &["one"]);
    case.insert(&jobs).await;
    let ids = ids(&jobs);
    for (at, outcome) in [succeeded(), dead(), Outcome::Cancelled, retry(), snoozed()].into_iter().enumerate()
    {
        assert_eq!(case.ready(&ids).await, [ids[at]], "before {outcome:?}");
        let running = case.run_one(ids[at]).await;
        assert!(case.finish(running, Outcome::Released).await);
        assert_eq!(case.ready(&ids).await, [ids[at]], "released");
        let running = case.run_one(ids[at]).await;
        assert!(case.ready(&ids).await.is_empty());
        assert!(case.finish(running, outcome).await);
    }
    // Cancelled while queued, and while waiting.
    assert_eq!(case.ready(&ids).await, [ids[5]]);
    case.store.cancel(ids[6]).await.unwrap();
    case.store.cancel(ids[5]).await.unwrap();
    assert_eq!(case.ready(&ids).await, [ids[7]]);
    // The one retried and the one snoozed are due, and come before what is accepted now.
    let last = limited(&["one"]);
    case.insert(std::slice::from_ref(&last)).await;
    case.store.promote_due(10).await.unwrap();
    for id in [ids[7], ids[3], ids[4], last.id] {
        assert_eq!(case.ready(&[&ids[..], &[last.id]].concat()).await, [id]);
        let running = case.run_one(id).await;
        assert!(case.finish(running, succeeded()).await);
    }
}

/// Four processes that claim, finish, retry, crash and rescue at random: never more than three at a time of either key;
/// and in the end no place is missing.
pub async fn limits_hold_whatever_happens(case: Case) {
    set_limit(&case, "key", Limit::concurrent(3)).await;
    let jobs: Vec<NewJob> = (0..60).map(|n| limited(&[["key/a", "key/b"][n % 2]])).collect();
    let all = ids(&jobs);
    let most = AtomicUsize::new(0);
    let process = |seed: u64| {
        let (case, all, jobs, most) = (&case, &all, &jobs, &most);
        async move {
            let mut rng = Rng::with_seed(seed);
            let store = if seed.is_multiple_of(2) { &case.store } else { &case.other };
            for part in jobs[seed as usize * 15..][..15].chunks(4) {
                store.insert(part).await.unwrap();
                follow_up(&**store).await;
            }
            loop {
                follow_up(&**store).await;
                store.promote_due(10).await.unwrap();
                let found = store.get(all).await.unwrap();
                if found.len() == all.len() && found.iter().all(|job| job.state.is_terminal()) {
                    return;
                }
                for key in ["key/a", "key/b"] {
                    let out = |state| matches!(state, State::Queued | State::Running);
                    let mine = found.iter().filter(|job| job.gating.limits[0].as_str() == key);
                    let out = mine.filter(|job| out(job.state)).count();
                    assert!(out <= 3, "{out} of {key} at once");
                    most.fetch_max(out, Ordering::Relaxed);
                }
                let mut queued: Vec<JobId> =
                    found.iter().filter(|job| job.state == State::Queued).map(|job| job.id).collect();
                rng.shuffle(&mut queued);
                queued.truncate(2);
                // A worker that never beats: anybody may rescue its jobs at any time.
                let worker = super::support::worker(Duration::ZERO);
                store.register(&worker).await.unwrap();
                let claimed = store.claim(worker.id, windlass_core::ClaimId::new(), &queued).await;
                for job in claimed.unwrap_or_default() {
                    let outcome = match rng.u8(..8) {
                        0 => continue,
                        1 => retry(),
                        2 => Outcome::Released,
                        3 => dead(),
                        _ => succeeded(),
                    };
                    let finish = Finish { id: job.id, fence: job.fence, outcome };
                    store.finish(worker.id, &[finish], &[]).await.unwrap();
                }
                if rng.bool() {
                    store.rescue(u32::MAX).await.unwrap();
                }
            }
        }
    };
    futures::join!(process(0), process(1), process(2), process(3));
    assert_eq!(most.into_inner(), 3, "the limit was reached");
    for key in ["key/a", "key/b"] {
        let more = limited_jobs(5, &[key]);
        case.insert(&more).await;
        assert_eq!(case.ready(&ids(&more)).await.len(), 3, "places behind {key}");
    }
}

/// However many wait behind one key, a job of another goes through at once; also where they share a second limit.
pub async fn a_flood_of_one_key_delays_no_other(case: Case) {
    set_limit(&case, "key", Limit::concurrent(1)).await;
    set_limit(&case, "all", Limit::concurrent(3)).await;
    let flood = limited_jobs(300, &["all", "key/a"]);
    case.insert(&flood).await;
    let others = [limited(&["all", "key/b"]), limited(&["key/c", "all"]), limited(&["all", "key/d"])];
    case.insert(&others).await;
    let (flood, others) = (ids(&flood), ids(&others));
    assert_eq!(case.ready(&others).await, others[..2]);
    assert_eq!(case.ready(&flood).await, flood[..1]);
    // Full: what all of them share decides, in order.
    let running = case.run_one(others[0]).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&others).await, [others[1], others[2]]);
    let running = case.run_one(flood[0]).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&flood).await, [flood[1]]);
}

/// Starts come as the bucket fills, by the store's clock, and a rest saves up no more than the bucket holds.
pub async fn rates_follow_the_clock(timed: Timed) {
    let Timed { case, clock } = timed;
    set_limit(&case, "mails", Limit::per(4, SECOND).burst(2)).await;
    let jobs = limited_jobs(12, &["mails/x"]);
    case.insert(&jobs).await;
    let ids = ids(&jobs);
    assert_eq!(case.ready(&ids).await, ids[..2]);
    assert_eq!(case.store.operations().next_start().await.unwrap(), Some(SECOND / 4));
    clock.advance(SECOND / 4 - Duration::from_micros(1));
    assert_eq!(case.ready(&ids).await, ids[..2]);
    clock.advance(Duration::from_micros(1));
    assert_eq!(case.ready(&ids).await, ids[..3]);
    clock.advance(SECOND / 2);
    assert_eq!(case.ready(&ids).await, ids[..5]);
    clock.advance(HOUR);
    assert_eq!(case.ready(&ids).await, ids[..7]);
    // An end makes no room for another start.
    let running = case.run_one(ids[0]).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&ids).await, ids[1..7]);
    // Nor is another key held back.
    let other = limited(&["mails/y"]);
    case.insert(std::slice::from_ref(&other)).await;
    assert_eq!(case.ready(&[other.id]).await, [other.id]);
    // A faster rate holds at once, for those who wait as well.
    set_limit(&case, "mails", Limit::per(1000, SECOND).burst(1)).await;
    assert_eq!(case.ready(&ids).await, ids[1..7]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(case.ready(&ids).await, ids[1..8]);
    clock.advance(Duration::from_millis(1));
    assert_eq!(case.ready(&ids).await, ids[1..9]);
    case.store.operations().remove_limit(&"mails".parse().unwrap()).await.unwrap();
    assert_eq!(case.ready(&ids).await, ids[1..]);
    assert_eq!(case.store.operations().next_start().await.unwrap(), None);
}

/// A rate that was slow does not hold back those under a faster one.
pub async fn a_rate_that_was_slow_is_forgotten(timed: Timed) {
    let Timed { case, clock } = timed;
    set_limit(&case, "x", Limit::per(1, 100 * HOUR)).await;
    let jobs = limited_jobs(3, &["x"]);
    case.insert(&jobs).await;
    let ids = ids(&jobs);
    assert_eq!(case.ready(&ids).await, ids[..1]);
    set_limit(&case, "x", Limit::per(1, SECOND)).await;
    assert_eq!(case.ready(&ids).await, ids[..1]);
    clock.advance(SECOND);
    assert_eq!(case.ready(&ids).await, ids[..2]);
}

/// Raised, a limit lets through at once; lowered, it lets what runs finish; forgotten, it holds nobody back.
pub async fn changed_limits_hold_at_once(case: Case) {
    set_limit(&case, "x", Limit::concurrent(1)).await;
    let jobs = limited_jobs(8, &["x"]);
    case.insert(&jobs).await;
    let ids = ids(&jobs);
    assert_eq!(case.ready(&ids).await, ids[..1]);
    set_limit(&case, "x", Limit::concurrent(3)).await;
    assert_eq!(case.ready(&ids).await, ids[..3]);
    set_limit(&case, "x", Limit::concurrent(2)).await;
    for (at, ready) in [&ids[1..3], &ids[2..4], &ids[3..5]].into_iter().enumerate() {
        let running = case.run_one(ids[at]).await;
        assert!(case.finish(running, succeeded()).await);
        assert_eq!(case.ready(&ids).await, *ready);
    }
    let operations = case.store.operations();
    assert!(operations.remove_limit(&"x".parse().unwrap()).await.unwrap());
    assert!(!operations.remove_limit(&"x".parse().unwrap()).await.unwrap());
    assert_eq!(case.ready(&ids).await, ids[3..]);
}

/// A job that names a limit which nobody has defined is refused, alone, and leaves nothing: not even its key.
pub async fn unknown_limits_are_refused(case: Case) {
    set_limit(&case, "known", Limit::default()).await;
    let idempotency = windlass_core::Idempotency { key: "k".into(), fingerprint: [1; 32], ttl: HOUR };
    let unknown = NewJob { idempotency: Some(Box::new(idempotency)), ..limited(&["known/1", "unknown/1"]) };
    let fine = limited(&["known/1"]);
    let group = [unknown.clone(), fine.clone(), job()];
    let inserted = case.store.insert(&group).await.unwrap();
    let [waiting, queued] = [State::Waiting, State::Queued].map(InsertOutcome::Created);
    assert_eq!(inserted.outcomes, [InsertOutcome::UnknownLimit(1), waiting, queued]);
    assert!(case.store.get(&[unknown.id]).await.unwrap().is_empty());
    set_limit(&case, "unknown", Limit::concurrent(1)).await;
    let again = NewJob { id: JobId::new(), ..unknown };
    assert_eq!(case.store.insert(std::slice::from_ref(&again)).await.unwrap().outcomes, [waiting]);
    assert_eq!(case.ready(&[fine.id, again.id]).await, [fine.id, again.id]);
}

/// A queue's limit is for all of its jobs, whatever else they wait for, and for no other queue's.
pub async fn a_queue_is_limited_as_a_whole(case: Case) {
    let queue: QueueName = "mail".parse().unwrap();
    case.store.operations().limit_queue(&queue, Limit::concurrent(2), None).await.unwrap();
    set_limit(&case, "x", Limit::concurrent(1)).await;
    let jobs: Vec<NewJob> = [job(), limited(&["x"]), limited(&["x"]), job(), job()]
        .into_iter()
        .map(|job| NewJob { queue: queue.clone(), ..job })
        .collect();
    let inserted = case.insert(&jobs).await;
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Waiting); 5]);
    let (ids, elsewhere) = (ids(&jobs), job());
    case.insert(std::slice::from_ref(&elsewhere)).await;
    assert_eq!(case.state(elsewhere.id).await, State::Queued);
    assert_eq!(case.ready(&ids).await, ids[..2]);
    let running = case.run_one(ids[0]).await;
    assert!(case.finish(running, succeeded()).await);
    // The next in line waits for x, which keeps nobody else.
    assert_eq!(case.ready(&ids).await, [ids[1], ids[3]]);
    let running = case.run_one(ids[1]).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&ids).await, [ids[2], ids[3]]);
    case.store.operations().limit_queue(&queue, Limit::default(), None).await.unwrap();
    assert_eq!(case.ready(&ids).await, ids[2..]);
}

/// A limit on a queue at work: what runs counts, what was queued is claimed only as far as there is room, and the rest
/// comes later, urgent jobs first.
pub async fn a_limit_on_a_busy_queue_holds(case: Case) {
    let jobs: Vec<NewJob> = (0..6)
        .map(|n| NewJob { priority: if n == 5 { Priority::Urgent } else { Priority::Normal }, ..job() })
        .collect();
    let scheduled = NewJob { run_at: Some(chrono::Utc::now() + HOUR), ..job() };
    case.insert(&jobs).await;
    case.insert(std::slice::from_ref(&scheduled)).await;
    let ids = ids(&jobs);
    let worker = case.worker().await;
    let running = case.run_jobs(worker, &ids[..2]).await;
    case.other.operations().limit_queue(&QueueName::default(), Limit::concurrent(3), None).await.unwrap();
    // Two messages that are on their way.
    assert!(case.claim(worker, &ids[3..5]).await.is_empty());
    assert_eq!(case.ready(&ids).await, [ids[2], ids[3], ids[5]], "not claimed yet, or let through");
    assert_eq!(case.claim(worker, &[ids[2], ids[5]]).await.len(), 0);
    assert_eq!(case.ready(&ids).await, [ids[3]]);
    assert_eq!(case.claim(worker, &[ids[3]]).await.len(), 1);
    for (run, next) in running.into_iter().zip([ids[5], ids[4]]) {
        assert!(case.finish(run, succeeded()).await);
        assert_eq!(case.ready(&ids).await, [next]);
        assert_eq!(case.claim(worker, &[next]).await.len(), 1);
    }
    assert_eq!(case.state(ids[2]).await, State::Waiting);
}

/// In a fair queue, the jobs of a tenant that comes late pass those of a flood: all but the window, and one for one.
pub async fn a_fair_queue_gives_each_tenant_its_turn(case: Case) {
    const WINDOW: usize = 4;
    let queue: QueueName = "shared".parse().unwrap();
    case.store.operations().limit_queue(&queue, Limit::default(), Some(4)).await.unwrap();
    let flood: Vec<_> = (0..60).map(|_| of_tenant(&queue, "loud")).collect();
    case.insert(&flood).await;
    follow_up(&*case.store).await;
    let late: Vec<_> = (0..10).map(|n| of_tenant(&queue, ["b", "c"][n % 2])).collect();
    case.insert(&late).await;
    let (flood, late) = (ids(&flood), ids(&late));
    let all = [&flood[..], &late[..]].concat();
    let worker = case.worker().await;
    let mut started = Vec::new();
    while started.len() < all.len() {
        let ready = case.ready(&all).await;
        assert!(ready.len() <= WINDOW, "{} are on their way", ready.len());
        assert!(!ready.is_empty(), "{} have started", started.len());
        // They are started, and none of them ends: the window is for the way only.
        started.extend(case.run_jobs(worker, &ready).await.iter().map(|run| run.id));
    }
    let last_late = started.iter().rposition(|id| late.contains(id)).unwrap();
    assert!(last_late < WINDOW + 3 * 5 + WINDOW, "the last of the late ones started as number {last_late}");
    assert!(started[..last_late].iter().any(|id| flood[WINDOW..].contains(id)), "the flood goes on");
    // Within a tenant, in order.
    for tenant in [&flood[..], &[late[0], late[2], late[4]]] {
        let places = tenant.iter().map(|id| started.iter().position(|one| one == id));
        assert!(places.is_sorted_by_key(|place| place.unwrap() / WINDOW));
    }
}

/// A job that is due later comes to its gates only then, and counts for nothing before.
pub async fn scheduled_jobs_come_to_their_gates_when_due(timed: Timed) {
    let Timed { case, clock } = timed;
    set_limit(&case, "x", Limit::concurrent(1)).await;
    let later = NewJob { run_at: Some(clock.now() + HOUR), ..limited(&["x"]) };
    let inserted = case.insert(std::slice::from_ref(&later)).await;
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Scheduled)]);
    let now = limited(&["x"]);
    case.insert(std::slice::from_ref(&now)).await;
    assert_eq!(case.ready(&[later.id, now.id]).await, [now.id]);
    clock.advance(HOUR);
    case.store.promote_due(10).await.unwrap();
    assert_eq!(case.ready(&[later.id, now.id]).await, [now.id]);
    assert_eq!(case.state(later.id).await, State::Waiting);
    let running = case.run_one(now.id).await;
    assert!(case.finish(running, succeeded()).await);
    assert_eq!(case.ready(&[later.id, now.id]).await, [later.id]);
}
