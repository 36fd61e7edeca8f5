use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use windlass_core::{Idempotency, InsertOutcome, JobId, NewJob, State};

use super::support::{Case, HOUR, announced, ids, job, retry, set, succeeded};

const CREATED: InsertOutcome = InsertOutcome::Created(State::Queued);

fn keyed(key: &str, fingerprint: u8) -> NewJob {
    keyed_for(key, fingerprint, HOUR)
}

fn keyed_for(key: &str, fingerprint: u8, ttl: Duration) -> NewJob {
    let idempotency = Idempotency { key: key.into(), fingerprint: [fingerprint; 32], ttl };
    NewJob { idempotency: Some(Box::new(idempotency)), ..job() }
}

impl Case {
    async fn insert_one(&self, job: &NewJob) -> InsertOutcome {
        let inserted = self.store.insert(std::slice::from_ref(job)).await.unwrap();
        assert_eq!(inserted.outbox.is_some(), inserted.outcomes == [CREATED]);
        inserted.outcomes[0]
    }

    async fn exists(&self, job: &NewJob) -> bool {
        !self.other.get(&[job.id]).await.unwrap().is_empty()
    }
}

/// The same key and the same request: the first job, whatever has become of it.
pub async fn same_request_same_job(case: Case) {
    let first = keyed("order-1", 1);
    assert_eq!(case.insert_one(&first).await, CREATED);
    let second = keyed("order-1", 1);
    assert_eq!(case.insert_one(&second).await, InsertOutcome::Existing(first.id));
    let running = case.run_jobs(case.worker().await, &[first.id]).await;
    assert_eq!(case.insert_one(&second).await, InsertOutcome::Existing(first.id));
    assert!(case.finish(running[0], succeeded()).await);
    assert_eq!(case.insert_one(&second).await, InsertOutcome::Existing(first.id));
    assert!(!case.exists(&second).await);
    assert_eq!(case.state(first.id).await, State::Succeeded);
}

/// The same key and another request: refused, and nothing stored.
pub async fn other_request_is_refused(case: Case) {
    let first = keyed("order-1", 1);
    case.insert_one(&first).await;
    let second = keyed("order-1", 2);
    assert_eq!(case.insert_one(&second).await, InsertOutcome::KeyReused);
    assert!(!case.exists(&second).await);
    // The refusal changed nothing about the key.
    assert_eq!(case.insert_one(&keyed("order-1", 1)).await, InsertOutcome::Existing(first.id));
}

/// A call whose answer was lost is repeated with the same ids, and is answered as the first time.
pub async fn the_same_call_again(case: Case) {
    let jobs = [keyed("a", 1), keyed("b", 2)];
    case.insert(&jobs).await;
    let again = case.insert(&jobs).await;
    assert_eq!((again.outcomes.as_slice(), again.outbox), ([CREATED; 2].as_slice(), None));
    assert_eq!(case.count(&ids(&jobs), State::Queued).await, 2);
}

/// Within a group the first job with a key has it, and every answer is at its job's place.
pub async fn a_key_twice_in_a_group(case: Case) {
    let before = keyed("old", 1);
    case.insert_one(&before).await;
    let jobs = [
        keyed("new", 1),
        job(),
        keyed("old", 1),
        keyed("new", 1),
        keyed("new", 2),
        keyed("old", 2),
        keyed("z", 1),
    ];
    let inserted = case.store.insert(&jobs).await.unwrap();
    let expected = [
        CREATED,
        CREATED,
        InsertOutcome::Existing(before.id),
        InsertOutcome::Existing(jobs[0].id),
        InsertOutcome::KeyReused,
        InsertOutcome::KeyReused,
        CREATED,
    ];
    assert_eq!(inserted.outcomes, expected);
    let created = set([jobs[0].id, jobs[1].id, jobs[6].id]);
    let found = case.other.get(&ids(&jobs)).await.unwrap();
    assert_eq!(set(found.iter().map(|job| job.id)), created);
    case.store.outbox_published(&[inserted.outbox.unwrap()], Duration::ZERO).await.unwrap();
    assert_eq!(announced(&case.take_all().await), created, "only what was created is published");
}

/// Fifty requests at once, through two clients, make one job.
pub async fn concurrent_requests_make_one_job(case: Case) {
    let jobs: Vec<NewJob> = (0..50).map(|_| keyed("once", 1)).collect();
    let inserts = jobs.iter().enumerate().map(|(i, job)| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        store.insert(std::slice::from_ref(job))
    });
    let mut winners = HashSet::new();
    for (job, inserted) in jobs.iter().zip(join_all(inserts).await) {
        winners.insert(match inserted.unwrap().outcomes[0] {
            InsertOutcome::Existing(id) => id,
            outcome => {
                assert_eq!(outcome, CREATED);
                job.id
            }
        });
    }
    assert_eq!(winners.len(), 1, "all are told of one job");
    let found = case.other.get(&ids(&jobs)).await.unwrap();
    assert_eq!(found.iter().map(|job| job.id).collect::<HashSet<_>>(), winners, "and it is the only one");
}

/// Groups with the same keys in opposite order wait for each other, but not in a circle.
pub async fn crossing_groups_do_not_deadlock(case: Case) {
    for round in 0..20 {
        let group = |fingerprint| (0..40).map(move |i| keyed(&format!("{round}-{i}"), fingerprint));
        let forth: Vec<NewJob> = group(1).collect();
        let back: Vec<NewJob> = group(1).rev().collect();
        let (a, b) = futures::join!(case.store.insert(&forth), case.other.insert(&back));
        let (a, b) = (a.unwrap(), b.unwrap());
        for ((x, from_x), (y, from_y)) in
            forth.iter().zip(&a.outcomes).zip(back.iter().rev().zip(b.outcomes.iter().rev()))
        {
            let one_created = (*from_x == CREATED && *from_y == InsertOutcome::Existing(x.id))
                || (*from_y == CREATED && *from_x == InsertOutcome::Existing(y.id));
            assert!(one_created, "{from_x:?} {from_y:?}");
        }
    }
}

/// A key past its time is free again, for any request, before and after housekeeping.
pub async fn an_expired_key_is_free(case: Case) {
    let mut seen: Vec<JobId> = Vec::new();
    for fingerprint in 0..4 {
        let job = keyed_for("short", fingerprint, Duration::ZERO);
        assert_eq!(case.insert_one(&job).await, CREATED);
        seen.push(job.id);
        if fingerprint % 2 == 1 {
            case.store.maintain().await.unwrap();
        }
    }
    assert_eq!(case.count(&seen, State::Queued).await, 4, "the jobs stay");
    let twins = [keyed_for("shorter", 1, Duration::ZERO), keyed_for("shorter", 1, Duration::ZERO)];
    let outcomes = case.store.insert(&twins).await.unwrap().outcomes;
    assert_eq!(outcomes, [CREATED, InsertOutcome::Existing(twins[0].id)], "within a group no time passes");

    let last = keyed("short", 9);
    case.insert_one(&last).await;
    case.store.maintain().await.unwrap();
    assert_eq!(
        case.insert_one(&keyed("short", 9)).await,
        InsertOutcome::Existing(last.id),
        "a live key stays"
    );
}

/// Keys are told apart byte by byte.
pub async fn keys_are_bytes(case: Case) {
    let long = "k".repeat(255);
    let keys = ["a", "A", "a ", " a", "a\0", "a\0b", "ä", "a\u{308}", "'", "%", "_", "\\", &long, &long[1..]];
    let jobs: Vec<NewJob> = keys.iter().map(|key| keyed(key, 1)).collect();
    let inserted = case.insert(&jobs).await;
    assert!(inserted.outcomes.iter().all(|outcome| *outcome == CREATED));
    for (job, key) in jobs.iter().zip(keys) {
        assert_eq!(case.insert_one(&keyed(key, 1)).await, InsertOutcome::Existing(job.id), "{key:?}");
    }
}

/// Keys hold for scheduled jobs as well, and a job that failed keeps its key.
pub async fn keys_of_jobs_that_wait(case: Case) {
    let scheduled = NewJob { run_at: Some(chrono::DateTime::<chrono::Utc>::MAX_UTC), ..keyed("later", 1) };
    let inserted = case.store.insert(std::slice::from_ref(&scheduled)).await.unwrap();
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Scheduled)]);
    assert_eq!(case.insert_one(&keyed("later", 1)).await, InsertOutcome::Existing(scheduled.id));

    let failing = keyed("failing", 1);
    case.insert_one(&failing).await;
    let running = case.run_jobs(case.worker().await, &[failing.id]).await;
    assert!(case.finish(running[0], retry()).await);
    assert_eq!(case.insert_one(&keyed("failing", 1)).await, InsertOutcome::Existing(failing.id));
}
