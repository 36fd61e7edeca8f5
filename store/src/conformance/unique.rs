use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use windlass_core::{
    ClaimId, Idempotency, InsertOutcome, JobId, NewJob, OnConflict, Outcome, State, Unique, WorkerId,
};

use super::support::{Case, HOUR, Timed, ids, job, jobs, raw, retry, set, succeeded};

const CREATED: InsertOutcome = InsertOutcome::Created(State::Queued);
const MINUTE: Duration = Duration::from_secs(60);

fn unique(rule: &Unique, payload: &str) -> NewJob {
    NewJob { unique: Some(Box::new(rule.clone())), payload: raw(payload), ..job() }
}

fn by_key(on_conflict: OnConflict) -> Unique {
    Unique::by_key("key").unwrap().on_conflict(on_conflict)
}

impl Case {
    async fn accept(&self, job: &NewJob) -> InsertOutcome {
        self.store.insert(std::slice::from_ref(job)).await.unwrap().outcomes[0]
    }

    async fn payload(&self, worker: WorkerId, id: JobId) -> String {
        self.claim(worker, &[id]).await.pop().unwrap().payload.get().to_owned()
    }
}

/// A job has its key until it is over, in whatever way; the state decides, not any clean-up.
pub async fn a_key_is_held_while_unfinished(case: Case) {
    let rule = by_key(OnConflict::Existing);
    let worker = case.worker().await;
    for end in [succeeded(), Outcome::Dead { error: "no".into() }, Outcome::Cancelled] {
        let first = unique(&rule, "1");
        assert_eq!(case.accept(&first).await, CREATED);
        let held = InsertOutcome::Held(first.id);
        assert_eq!(case.accept(&unique(&rule, "2")).await, held);
        let running = case.run_jobs(worker, &[first.id]).await[0];
        assert_eq!(case.accept(&unique(&rule, "2")).await, held);
        assert!(case.finish(running, retry()).await);
        case.store.maintain().await.unwrap();
        assert_eq!(case.accept(&unique(&rule, "2")).await, held, "between attempts");
        case.store.promote_due(10).await.unwrap();
        let running = case.run_jobs(worker, &[first.id]).await[0];
        assert!(case.finish(running, end).await);
    }
    let last = unique(&rule, "1");
    assert_eq!(case.accept(&last).await, CREATED);
    case.store.cancel(last.id).await.unwrap();
    case.store.maintain().await.unwrap();
    assert_eq!(case.accept(&unique(&rule, "2")).await, CREATED);
}

/// Payload fields and the kind make a key; other fields do not matter.
pub async fn fields_make_a_key(case: Case) {
    let rule = Unique::by_fields(["/customer"]).unwrap();
    let first = unique(&rule, r#"{"customer": 1, "at": 1}"#);
    assert_eq!(case.accept(&first).await, CREATED);
    assert_eq!(case.accept(&unique(&rule, r#"{"at":2,"customer":1}"#)).await, InsertOutcome::Held(first.id));
    assert_eq!(case.accept(&unique(&rule, r#"{"customer": 2}"#)).await, CREATED);
    let other = NewJob { kind: "other.kind".parse().unwrap(), ..unique(&rule, r#"{"customer": 1}"#) };
    assert_eq!(case.accept(&other).await, CREATED);
}

/// A refused job is not stored.
pub async fn a_conflict_may_be_refused(case: Case) {
    let rule = by_key(OnConflict::Refuse);
    let (first, second) = (unique(&rule, "1"), unique(&rule, "2"));
    assert_eq!(case.accept(&first).await, CREATED);
    assert_eq!(case.accept(&second).await, InsertOutcome::Refused(first.id));
    assert!(case.store.get(&[second.id]).await.unwrap().is_empty());
}

/// Of many processes that insert one key at once, one makes the job.
pub async fn concurrent_unique_inserts_make_one_job(case: Case) {
    let rule = by_key(OnConflict::Existing);
    let jobs: Vec<NewJob> = (0..50).map(|_| unique(&rule, "1")).collect();
    let inserts = jobs.iter().enumerate().map(|(i, job)| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        store.insert(std::slice::from_ref(job))
    });
    let mut winners = HashSet::new();
    for (job, inserted) in jobs.iter().zip(join_all(inserts).await) {
        winners.insert(match inserted.unwrap().outcomes[0] {
            InsertOutcome::Held(id) => id,
            outcome => {
                assert_eq!(outcome, CREATED);
                job.id
            }
        });
    }
    assert_eq!(winners.len(), 1);
    let found = case.other.get(&ids(&jobs)).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<HashSet<_>>(), winners);
}

/// Groups with many keys in opposite order, some of them twice, do not wait for each other in a circle.
pub async fn crossing_unique_groups_do_not_deadlock(case: Case) {
    for round in 0..10 {
        let rule = |i: usize, on| Unique::by_key(format!("{round}-{i}")).unwrap().on_conflict(on);
        let group = |on| (0..30).chain(0..5).map(|i| unique(&rule(i, on), "1")).collect::<Vec<_>>();
        let forth = group(OnConflict::ReplaceAll);
        let mut back = group(OnConflict::Existing);
        back.reverse();
        let (a, b) = futures::join!(case.store.insert(&forth), case.other.insert(&back));
        a.unwrap();
        b.unwrap();
        let mut all = ids(&forth);
        all.extend(ids(&back));
        assert_eq!(case.count(&all, State::Queued).await, 30, "one job for each key");
    }
}

/// Within a group the first has the key; a replacement changes what is inserted, and what is there already.
pub async fn a_group_with_a_key_twice(case: Case) {
    let rule = by_key(OnConflict::Replace);
    let group = [unique(&rule, "1"), job(), unique(&rule, "2"), unique(&rule, "3")];
    let inserted = case.store.insert(&group).await.unwrap();
    let replaced = InsertOutcome::Replaced(group[0].id);
    assert_eq!(inserted.outcomes, [CREATED, CREATED, replaced, replaced]);
    assert_eq!(case.store.insert(&group).await.unwrap().outcomes[0], CREATED, "the same call again");
    let again = [unique(&rule, "4"), unique(&rule, "5")];
    assert_eq!(case.store.insert(&again).await.unwrap().outcomes, [replaced, replaced]);
    assert_eq!(case.payload(case.worker().await, group[0].id).await, "5");
    assert_eq!(case.accept(&unique(&rule, "6")).await, InsertOutcome::Held(group[0].id), "it has started");
}

/// A call whose answer was lost is repeated and answered as the first time, also when the job is over by then.
pub async fn a_unique_insert_may_be_repeated(case: Case) {
    let rule = by_key(OnConflict::Refuse);
    let first = unique(&rule, "1");
    for _ in 0..2 {
        assert_eq!(case.accept(&first).await, CREATED);
    }
    let running = case.run_jobs(case.worker().await, &[first.id]).await[0];
    assert!(case.finish(running, succeeded()).await);
    let second = unique(&rule, "2");
    assert_eq!(case.accept(&second).await, CREATED);
    assert_eq!(case.accept(&first).await, CREATED, "it was accepted");
    assert_eq!(case.state(first.id).await, State::Succeeded);
    assert_eq!(case.accept(&unique(&rule, "3")).await, InsertOutcome::Refused(second.id));
}

/// Whether a replacement or a claim comes first: what runs is what the store says was put there.
pub async fn replacements_race_claims(case: Case) {
    for round in 0..30 {
        let rule = Unique::by_key(format!("{round}")).unwrap().on_conflict(OnConflict::Replace);
        let (first, second) = (unique(&rule, "1"), unique(&rule, "2"));
        assert_eq!(case.accept(&first).await, CREATED);
        let worker = case.worker().await;
        let wanted = [first.id];
        let (claimed, inserted) = futures::join!(
            case.other.claim(worker, ClaimId::new(), &wanted),
            case.store.insert(std::slice::from_ref(&second)),
        );
        let payload = claimed.unwrap()[0].payload.get().to_owned();
        match inserted.unwrap().outcomes[0] {
            InsertOutcome::Replaced(id) => assert_eq!((id, payload.as_str()), (first.id, "2")),
            InsertOutcome::Held(id) => assert_eq!((id, payload.as_str()), (first.id, "1")),
            outcome => panic!("{outcome:?}"),
        }
    }
}

/// An idempotency key stands for the job that its request was answered with.
pub async fn unique_and_idempotency_keys_together(case: Case) {
    let keyed = |rule: &Unique, key: &str| {
        let idempotency = Idempotency { key: key.into(), fingerprint: [1; 32], ttl: HOUR };
        NewJob { idempotency: Some(Box::new(idempotency)), ..unique(rule, "1") }
    };
    let rule = by_key(OnConflict::Existing);
    let first = keyed(&rule, "a");
    assert_eq!(case.accept(&first).await, CREATED);
    assert_eq!(case.accept(&keyed(&rule, "b")).await, InsertOutcome::Held(first.id));
    assert_eq!(case.accept(&keyed(&rule, "b")).await, InsertOutcome::Existing(first.id), "a repeat");
    let refused = by_key(OnConflict::Refuse);
    assert_eq!(case.accept(&keyed(&refused, "c")).await, InsertOutcome::Refused(first.id));
    case.store.cancel(first.id).await.unwrap();
    assert_eq!(case.accept(&keyed(&refused, "c")).await, CREATED, "the refusal did not take the key");
}

/// A call given up anywhere leaves all of it or nothing.
pub async fn a_unique_insert_given_up_is_all_or_nothing(case: Case) {
    let rule = by_key(OnConflict::Existing);
    for waits in 1..40 {
        let group = [unique(&rule, "1"), unique(&rule, "2")];
        super::support::give_up(case.store.insert(&group), waits).await;
        let last = unique(&rule, "3");
        let holder = match case.other.insert(std::slice::from_ref(&last)).await.unwrap().outcomes[0] {
            InsertOutcome::Held(id) => id,
            outcome => {
                assert_eq!(outcome, CREATED);
                last.id
            }
        };
        assert!(set([group[0].id, last.id]).contains(&holder));
        case.store.cancel(holder).await.unwrap();
    }
}

/// For a period, the key is held whatever becomes of the job, and free from its end on.
pub async fn a_key_is_held_for_a_period(timed: Timed) {
    let Timed { case, clock } = timed;
    for rule in [Unique::by_key("k").unwrap().within(HOUR), Unique::throttle("k", HOUR).unwrap()] {
        let first = unique(&rule, "1");
        assert_eq!(case.accept(&first).await, CREATED);
        let running = case.run_jobs(case.worker().await, &[first.id]).await[0];
        assert!(case.finish(running, succeeded()).await);
        clock.advance(HOUR - Duration::from_micros(1));
        case.store.maintain().await.unwrap();
        assert_eq!(case.accept(&unique(&rule, "2")).await, InsertOutcome::Held(first.id));
        clock.advance(Duration::from_micros(1));
        let second = unique(&rule, "3");
        assert_eq!(case.accept(&second).await, CREATED);
        assert_eq!(case.accept(&unique(&rule, "4")).await, InsertOutcome::Held(second.id));
        clock.advance(HOUR);
        case.store.maintain().await.unwrap();
        assert_eq!(case.accept(&unique(&rule, "5")).await, CREATED, "clean-up changes nothing");
    }
}

/// Housekeeping looks at keys again and again and lets those of unfinished jobs be.
pub async fn housekeeping_leaves_keys_in_use(timed: Timed) {
    let Timed { case, clock } = timed;
    let rule = by_key(OnConflict::Existing);
    let first = unique(&rule, "1");
    assert_eq!(case.accept(&first).await, CREATED);
    for _ in 0..3 {
        clock.advance(HOUR * 2);
        case.store.maintain().await.unwrap();
        assert_eq!(case.accept(&unique(&rule, "2")).await, InsertOutcome::Held(first.id));
    }
}

/// Each enqueue moves the start and replaces the payload, up to the longest wait; once it has started, a new one begins.
pub async fn debounced_jobs_start_after_the_last(timed: Timed) {
    let Timed { case, clock } = timed;
    let rule = Unique::debounce("index", MINUTE).unwrap().max_wait(MINUTE * 3);
    let begun = clock.now();
    let first = unique(&rule, "1");
    assert_eq!(case.accept(&first).await, InsertOutcome::Created(State::Scheduled));
    for (after, start) in [(40, 100), (80, 140), (130, 180)] {
        clock.advance(Duration::from_secs(after) - (clock.now() - begun).to_std().unwrap());
        assert_eq!(case.accept(&unique(&rule, &after.to_string())).await, InsertOutcome::Replaced(first.id));
        let run_at = case.get(first.id).await.run_at.unwrap();
        assert_eq!((run_at - begun).num_seconds(), start);
        assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
    }
    clock.advance(Duration::from_secs(50));
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.accept(&unique(&rule, "4")).await, InsertOutcome::Replaced(first.id));
    assert_eq!(case.state(first.id).await, State::Queued, "it is due, and stays so");
    assert_eq!(case.payload(case.worker().await, first.id).await, "4");
    let next = unique(&rule, "5");
    assert_eq!(case.accept(&next).await, InsertOutcome::Created(State::Scheduled), "that one has started");
    let group = [unique(&rule, "6"), unique(&rule, "7")];
    let replaced = InsertOutcome::Replaced(next.id);
    assert_eq!(case.store.insert(&group).await.unwrap().outcomes, [replaced, replaced]);
}

/// A replacement moves the time of a job that waits for it, where that is asked for.
pub async fn a_replacement_may_move_the_time(timed: Timed) {
    let Timed { case, clock } = timed;
    let later = |by: Duration, on| NewJob { run_at: Some(clock.now() + by), ..unique(&by_key(on), "2") };
    let first = later(HOUR, OnConflict::Existing);
    assert_eq!(case.accept(&first).await, InsertOutcome::Created(State::Scheduled));
    let replaced = InsertOutcome::Replaced(first.id);
    assert_eq!(case.accept(&later(HOUR * 3, OnConflict::Replace)).await, replaced);
    assert_eq!(case.get(first.id).await.run_at, first.run_at);
    let moved = later(HOUR * 2, OnConflict::ReplaceAll);
    assert_eq!(case.accept(&moved).await, replaced);
    assert_eq!(case.get(first.id).await.run_at, moved.run_at);
    clock.advance(HOUR);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
    assert_eq!(case.accept(&unique(&by_key(OnConflict::ReplaceAll), "4")).await, replaced);
    assert_eq!(case.store.promote_due(10).await.unwrap(), 1);
    assert_eq!(case.accept(&unique(&by_key(OnConflict::Existing), "3")).await, InsertOutcome::Held(first.id));
    case.insert(&jobs(2)).await;
}
