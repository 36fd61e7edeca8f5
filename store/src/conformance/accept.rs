use std::time::Duration;

use futures::future::join_all;
use windlass_core::{Event, InsertOutcome, JobId, JobRecord, NewJob, Priority, State, Timestamp};

use super::support::{Case, HOUR, give_up, ids, job, jobs, raw, set};

/// A job with something in every field.
fn full() -> NewJob {
    let mut full = NewJob::new("mail.send-1_x".parse().unwrap(), raw(r#"{"to": "a@b"}"#));
    full.queue = "mail".parse().unwrap();
    full.priority = Priority::Urgent;
    full.max_attempts = 7;
    full.timeout = Some(Duration::from_millis(1_500));
    full.labels =
        [("tenant", "é 🦀"), ("", ""), ("quote'\"", "\\")].map(|(k, v)| (k.into(), v.into())).into();
    full.trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    full
}

/// What was accepted is answered by a poll.
pub async fn insert_then_get(case: Case) {
    let created = case.insert(&[job()]).await.at;
    let (expires_at, deadline) = (Some(created + HOUR), Some(created + HOUR * 2));
    let job = NewJob { expires_at, deadline, version: 9, ..full() };
    let inserted = case.store.insert(std::slice::from_ref(&job)).await.unwrap();
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Queued)]);
    assert!(inserted.outbox.is_some());
    let found = case.get(job.id).await;
    assert_eq!((&found.kind, &found.queue, found.priority), (&job.kind, &job.queue, job.priority));
    assert_eq!((found.state, found.attempt, found.max_attempts), (State::Queued, 0, 7));
    assert_eq!((found.created_at, &found.labels), (inserted.at, &job.labels));
    assert_eq!((found.run_at, found.started_at, found.finished_at), (None, None, None));
    assert_eq!((found.expires_at, found.deadline, found.version), (expires_at, deadline, 9));
    assert!(found.result.is_none() && found.errors.is_empty() && !found.cancel_requested);
}

/// What was accepted reaches the worker.
pub async fn insert_then_claim(case: Case) {
    let job = full();
    let at = case.insert(std::slice::from_ref(&job)).await.at;
    let claimed = case.claim(case.worker().await, &[job.id]).await.pop().unwrap();
    assert_eq!((claimed.id, claimed.fence, claimed.attempt, claimed.max_attempts), (job.id, 1, 1, 7));
    assert_eq!((&claimed.kind, &claimed.queue, claimed.priority), (&job.kind, &job.queue, job.priority));
    assert_eq!((claimed.payload.get(), claimed.timeout), (job.payload.get(), job.timeout));
    assert_eq!((claimed.created_at, claimed.labels, claimed.trace), (at, job.labels, job.trace));
}

/// Payloads and results come back byte for byte.
pub async fn json_is_kept_byte_for_byte(case: Case) {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let long = format!("\"{}\"", "ä".repeat(500_000));
    let texts = [
        "null",
        "true",
        "\"\"",
        "\"\\u0000 \\u0001 \\uD83E\\uDD80 \\/ \\\" \\\\\"",
        "\"\u{7f} \u{feff} \u{202e} 🦀 '; DROP TABLE jobs; -- $1 ?1 {schema}\"",
        "1e400",
        "-0.0",
        "123456789012345678901234567890.123456789012345678901234567890",
        r#"{"b":1,"a":2,"b":3}"#,
        " { \"spaced\" :\t[ 1 ,\n2 ] } ",
        &deep,
        &long,
    ];
    let jobs: Vec<NewJob> = texts.iter().map(|text| NewJob { payload: raw(text), ..job() }).collect();
    case.insert(&jobs).await;
    let mut payloads = case.other.operations().payloads(&ids(&jobs)).await.unwrap();
    payloads.sort_by_key(|(id, _)| *id);
    let sent: Vec<_> = jobs.iter().map(|job| (job.id, job.payload.get())).collect();
    assert_eq!(payloads.iter().map(|(id, payload)| (*id, payload.get())).collect::<Vec<_>>(), sent);
    let running = case.claim(case.worker().await, &ids(&jobs)).await;
    assert_eq!(running.len(), texts.len());
    let worker = case.worker().await;
    for claimed in running {
        let sent = jobs.iter().find(|job| job.id == claimed.id).unwrap();
        assert_eq!(claimed.payload.get(), sent.payload.get());
        let outcome = windlass_core::Outcome::Succeeded { result: Some(claimed.payload), keep: None };
        let finish = windlass_core::Finish { id: claimed.id, fence: claimed.fence, outcome };
        assert_eq!(case.store.finish(worker, &[finish], &[]).await.unwrap(), [claimed.id]);
        assert_eq!(case.get(claimed.id).await.result.unwrap().get(), sent.payload.get());
    }
}

/// Groups of any size are answered job by job, in order.
pub async fn groups_of_any_size(case: Case) {
    let nothing = case.store.insert(&[]).await.unwrap();
    assert!(nothing.outcomes.is_empty() && nothing.outbox.is_none());
    for size in [1, 2, 1000, 5000] {
        let mut jobs = jobs(size);
        // So that the order can be told from the answers.
        for job in jobs.iter_mut().step_by(3) {
            job.run_at = Some(Timestamp::MAX_UTC);
        }
        let inserted = case.insert(&jobs).await;
        for (job, outcome) in jobs.iter().zip(&inserted.outcomes) {
            let state = if job.run_at.is_some() { State::Scheduled } else { State::Queued };
            assert_eq!(*outcome, InsertOutcome::Created(state));
        }
        let found = case.other.get(&ids(&jobs)).await.unwrap();
        assert_eq!(set(found.iter().map(|job| job.id)), set(ids(&jobs)));
        assert!(found.iter().all(|job| job.created_at == inserted.at));
    }
}

/// Only what is due at once is queued; the rest waits for its time, to the microsecond.
pub async fn due_decides_between_queued_and_scheduled(case: Case) {
    let now = case.insert(&[job()]).await.at;
    let later = now + HOUR;
    let run_ats = [None, Some(now - HOUR), Some(now), Some(later), Some(Timestamp::MIN_UTC)];
    let jobs = run_ats.map(|run_at| NewJob { run_at, ..job() });
    let inserted = case.insert(&jobs).await;
    let states = [State::Queued, State::Queued, State::Queued, State::Scheduled, State::Queued];
    assert_eq!(inserted.outcomes, states.map(InsertOutcome::Created));
    for (job, state) in jobs.iter().zip(states) {
        let found = case.get(job.id).await;
        let run_at = (state == State::Scheduled).then_some(later);
        assert_eq!((found.state, found.run_at), (state, run_at), "{:?}", job.run_at);
    }
    assert_eq!(State::Scheduled.after(Event::Due), Some(State::Queued), "the premise");
    let scheduled = NewJob { run_at: Some(later), ..job() };
    assert_eq!(case.insert(&[scheduled]).await.outbox, None, "nothing to publish");
}

/// A repeated insert makes nothing new, and changes nothing.
pub async fn insert_may_be_repeated(case: Case) {
    let mut jobs = jobs(3);
    jobs[2].run_at = Some(Timestamp::MAX_UTC);
    case.insert(&jobs).await;
    let running = case.run_jobs(case.worker().await, &[jobs[0].id]).await;
    let before = case.picture(&ids(&jobs)).await;
    let again = case.insert(&jobs).await;
    assert_eq!(again.outbox, None, "there is nothing new to publish");
    assert_eq!(case.picture(&ids(&jobs)).await, before);
    assert!(
        case.finish(running[0], super::support::succeeded()).await,
        "the repetition left the attempt alone"
    );

    // With one that is new among them.
    jobs.push(job());
    let again = case.insert(&jobs).await;
    assert!(again.outbox.is_some());
    case.store.outbox_published(&[again.outbox.unwrap()], Duration::ZERO).await.unwrap();
    let groups = case.take_all().await;
    assert_eq!(super::support::announced(&groups), set([jobs[3].id]));
}

/// The same id twice in a group is one job.
pub async fn an_id_twice_in_a_group(case: Case) {
    let job = job();
    let inserted = case.insert(&[job.clone(), job.clone()]).await;
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Queued); 2]);
    assert_eq!(case.claim(case.worker().await, &[job.id, job.id]).await.len(), 1);
}

/// A group is accepted as a whole or not at all, whenever the caller gives up; and it may be repeated then.
pub async fn an_insert_given_up_is_all_or_nothing(case: Case) {
    for waits in 1..=20 {
        let jobs = jobs(200);
        give_up(case.store.insert(&jobs), waits).await;
        let found = case.other.get(&ids(&jobs)).await.unwrap().len();
        assert!(found == 0 || found == 200, "{found} of 200 after {waits} waits");
        case.insert(&jobs).await;
        assert_eq!(case.count(&ids(&jobs), State::Queued).await, 200);
    }
}

/// Many processes accept at once.
pub async fn concurrent_inserts(case: Case) {
    let groups: Vec<Vec<NewJob>> = (0..20).map(|_| jobs(50)).collect();
    let inserts = groups.iter().enumerate().map(|(i, group)| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        store.insert(group)
    });
    let mut outboxes = Vec::new();
    for inserted in join_all(inserts).await {
        outboxes.push(inserted.unwrap().outbox.unwrap());
    }
    outboxes.sort();
    outboxes.dedup();
    assert_eq!(outboxes.len(), 20, "each group has an outbox row of its own");
    let all: Vec<JobId> = groups.iter().flat_map(|group| ids(group)).collect();
    assert_eq!(case.count(&all, State::Queued).await, 1000);
}

/// A read answers each job once, and says nothing of jobs that do not exist.
pub async fn get_answers_what_exists(case: Case) {
    let known = case.queued(2).await;
    let unknown = JobId::new();
    assert!(case.store.get(&[]).await.unwrap().is_empty());
    assert!(case.store.get(&[unknown]).await.unwrap().is_empty());
    let found: Vec<JobRecord> = case.store.get(&[known[1], unknown, known[0], known[1]]).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(set(found.iter().map(|job| job.id)), set(known.clone()));
    let operations = case.store.operations();
    assert!(operations.payloads(&[]).await.unwrap().is_empty());
    assert!(operations.payloads(&[unknown]).await.unwrap().is_empty());
    let found = operations.payloads(&[known[1], unknown, known[0], known[1]]).await.unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(set(found.into_iter().map(|(id, _)| id)), set(known));
}
