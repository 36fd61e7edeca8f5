use std::time::Duration;

use uuid::Uuid;
use windlass_core::{
    CancelOutcome, ClaimId, Finish, Idempotency, JobId, NewJob, NewWorker, OutboxId, Outcome, State,
    Timestamp, WorkerId,
};

use super::support::{Case, HOUR, Running, ids, job, retry, set, sorted, succeeded, worker};

/// Texts that end up in statements, JSON and patterns.
const TEXTS: [&str; 9] = [
    "'; DROP TABLE jobs; --",
    "\"quoted\" \\ back\\u0000slash",
    "$1 ?1 :name {schema} %s",
    "{\"json\": [1]}",
    "[\"a\",\"b\"]",
    "line\nbreak\ttab\r",
    "🦀 é \u{202e} \u{feff} \u{10ffff}",
    "NULL",
    "",
];

/// Labels, errors and names are data, whatever they look like.
pub async fn texts_are_data(case: Case) {
    for text in TEXTS {
        let mut job = job();
        job.labels = [(text.to_owned(), text.to_owned())].into();
        job.idempotency =
            Some(Box::new(Idempotency { key: format!("k{text}"), fingerprint: [0; 32], ttl: HOUR }));
        case.insert(std::slice::from_ref(&job)).await;
        let worker = NewWorker { label: text.into(), ..worker(HOUR) };
        case.store.register(&worker).await.unwrap();
        let running = case.run_jobs(worker.id, &[job.id]).await[0];
        let error = Outcome::Dead { error: text.into() };
        assert!(case.finish(running, error).await);
        let found = case.get(job.id).await;
        assert_eq!(found.labels, job.labels);
        assert_eq!((found.errors[0].message.as_str(), found.errors[0].worker.as_str()), (text, text));
        assert!(case.store.lead(text, worker.id, HOUR).await.unwrap(), "{text:?} is a name of its own");
    }
}

/// A NUL, which not every store can hold in a text, spoils nothing: neither the job it is in nor its neighbours.
pub async fn nul_spoils_nothing(case: Case) {
    let mut jobs = super::support::jobs(3);
    jobs[1].labels = [("a\0b".to_owned(), "c\0d".to_owned())].into();
    case.insert(&jobs).await;
    let found = case.get(jobs[1].id).await;
    let (name, value) = found.labels.first_key_value().unwrap();
    assert!(name.starts_with('a') && name.ends_with('b'), "{name:?}");
    assert!(value.starts_with('c') && value.ends_with('d'), "{value:?}");
    let worker = NewWorker { label: "host\0-1".into(), ..worker(HOUR) };
    case.store.register(&worker).await.unwrap();
    let running = case.run_jobs(worker.id, &ids(&jobs)).await;
    let finish = |(i, job): (usize, &Running)| {
        let error = if i == 1 { "before\0after".into() } else { "plain".into() };
        Finish { id: job.id, fence: job.fence, outcome: Outcome::Dead { error } }
    };
    let finishes: Vec<Finish> = running.iter().enumerate().map(finish).collect();
    assert_eq!(case.store.finish(worker.id, &finishes, &[]).await.unwrap().len(), 3);
    let mut messages = Vec::new();
    for job in &running {
        messages.push(case.get(job.id).await.errors.pop().unwrap().message);
    }
    messages.sort();
    assert!(messages[0].starts_with("before") && messages[0].ends_with("after"), "{messages:?}");
    assert_eq!(messages[1..], ["plain", "plain"]);
}

/// Large texts are kept whole.
pub async fn large_texts(case: Case) {
    let running = case.running(1).await[0];
    let error = "stack frame\n".repeat(100_000);
    assert!(case.finish(running, Outcome::Dead { error: error.clone() }).await);
    assert!(case.get(running.id).await.errors[0].message == error, "the error is kept whole");
}

/// Spans and instants of any length mean "for ever" or "at once", not an error.
pub async fn extreme_times(case: Case) {
    let mut jobs = super::support::jobs(4);
    jobs[0].run_at = Some(Timestamp::MAX_UTC);
    jobs[1].run_at = Some(Timestamp::MIN_UTC);
    jobs[2].timeout = Some(Duration::MAX);
    jobs[3].idempotency =
        Some(Box::new(Idempotency { key: "for ever".into(), fingerprint: [0; 32], ttl: Duration::MAX }));
    let group = case.insert(&jobs).await.outbox.unwrap();
    assert_eq!(case.state(jobs[0].id).await, State::Scheduled);
    assert!(case.get(jobs[0].id).await.run_at.unwrap() > Timestamp::UNIX_EPOCH);
    case.store.outbox_published(&[group], Duration::MAX).await.unwrap();
    assert!(case.take_all().await.is_empty());

    let worker = case.worker_for(Duration::MAX).await;
    case.store.heartbeat(worker).await.unwrap();
    assert!(case.store.rescue(3).await.unwrap().workers.is_empty());
    let claim = ClaimId::new();
    let claimed = sorted(case.store.claim(worker, claim, &ids(&jobs)).await.unwrap());
    assert_eq!(claimed.len(), 3);
    let patience = claimed.iter().find(|job| job.id == jobs[2].id).unwrap().timeout;
    assert!(patience.unwrap() > 1000 * HOUR);
    let outcomes = [
        Outcome::Retry { after: Duration::MAX, error: String::new() },
        Outcome::Snoozed { after: Duration::MAX },
        Outcome::Snoozed { after: Duration::from_nanos(1) },
    ];
    for (job, outcome) in claimed.iter().zip(outcomes) {
        assert!(case.finish(Running { id: job.id, fence: job.fence, worker, claim }, outcome).await);
        assert!(case.get(job.id).await.run_at.is_some());
    }
    assert!(case.store.lead("for ever", worker, Duration::MAX).await.unwrap());
    assert!(!case.store.lead("for ever", WorkerId::new(), Duration::MAX).await.unwrap());
}

/// Numbers at their ends.
pub async fn extreme_numbers(case: Case) {
    let job = NewJob { max_attempts: u32::MAX, ..job() };
    case.insert(std::slice::from_ref(&job)).await;
    assert!(case.get(job.id).await.max_attempts >= u32::MAX >> 1);
    let running = case.run_jobs(case.worker_for(Duration::ZERO).await, &[job.id]).await[0];
    assert!(!case.finish(Running { fence: u32::MAX, ..running }, succeeded()).await);
    assert_eq!(case.store.rescue(u32::MAX).await.unwrap().requeued, 1);
    assert!(case.store.outbox_take(usize::MAX).await.unwrap().len() <= 2);
    assert_eq!(case.store.promote_due(usize::MAX).await.unwrap(), 0);
    case.store.outbox_published(&[OutboxId(i64::MIN), OutboxId(-1)], HOUR).await.unwrap();
    // No crash at all is forgiven.
    case.run_jobs(case.worker_for(Duration::ZERO).await, &[job.id]).await;
    assert_eq!(case.store.rescue(0).await.unwrap().dead, 1);
}

/// Ids need not be new, nor in any order, nor made from the time.
pub async fn ids_of_any_kind(case: Case) {
    let kinds = [
        Uuid::nil(),
        Uuid::max(),
        // Years before and after any partition.
        Uuid::from_u128(1 << 80),
        Uuid::from_u128(0x0fff_ffff_ffff_7000_8000_0000_0000_0000),
        Uuid::from_u128(0x3f2a_9c5e_8b1d_4c6f_9e7a_1234_5678_9abc),
    ];
    let mut jobs: Vec<NewJob> = kinds.into_iter().map(|id| NewJob { id: id.into(), ..job() }).collect();
    jobs.push(job());
    let group = case.insert(&jobs).await.outbox.unwrap();
    case.store.outbox_published(&[group], Duration::ZERO).await.unwrap();
    assert_eq!(super::support::announced(&case.take_all().await), set(ids(&jobs)));
    for running in case.run_jobs(case.worker().await, &ids(&jobs)).await {
        assert!(case.finish(running, retry()).await);
    }
    assert_eq!(case.store.promote_due(100).await.unwrap(), jobs.len());
    for job in &jobs {
        assert_eq!(case.store.cancel(job.id).await.unwrap(), CancelOutcome::Cancelled);
    }
    assert_eq!(case.count(&ids(&jobs), State::Cancelled).await, jobs.len());
}

/// Ten thousand ids that nobody knows are looked for and not found.
pub async fn many_unknown_ids(case: Case) {
    let known = case.queued(1).await;
    let mut many: Vec<JobId> = (0..10_000).map(|_| JobId::new()).collect();
    many.extend(&known);
    assert_eq!(case.store.get(&many).await.unwrap().len(), 1);
    let worker = case.worker().await;
    let finishes: Vec<Finish> =
        many.iter().map(|id| Finish { id: *id, fence: 1, outcome: succeeded() }).collect();
    assert!(case.store.finish(worker, &finishes, &[]).await.unwrap().is_empty());
    assert_eq!(case.claim(worker, &many).await.len(), 1);
    assert_eq!(case.store.finish(worker, &finishes, &[]).await.unwrap(), known);
}
