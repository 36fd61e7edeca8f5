use std::time::Duration;

use windlass_core::{Idempotency, InsertOutcome, JobId, Limit, NewJob, QueueName, QueueRecord, State};

use super::support::{Case, HOUR, Timed, announced, job, set};

/// No job of a paused queue is claimed; accepted they are still, and announced again when it is resumed.
pub async fn a_paused_queue_starts_nothing(case: Case) {
    let queue: QueueName = "mail".parse().unwrap();
    let (before, other) = (NewJob { queue: queue.clone(), ..job() }, job());
    case.insert(&[before.clone(), other.clone()]).await;
    let operations = case.store.operations();
    operations.pause_queue(&queue, true).await.unwrap();
    operations.pause_queue(&queue, true).await.unwrap();
    assert_eq!(
        case.other.operations().queues().await.unwrap(),
        [QueueRecord {
            name: queue.clone(),
            paused: true,
            draining: false,
            limit: Limit::default(),
            window: None
        }]
    );
    let during = NewJob { queue: queue.clone(), ..job() };
    let inserted = case.insert(std::slice::from_ref(&during)).await;
    case.store.outbox_published(&[inserted.outbox.unwrap()], Duration::from_secs(3600)).await.unwrap();
    let worker = case.worker().await;
    let ids = [before.id, other.id, during.id];
    let claimed = case.claim(worker, &ids).await;
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [other.id]);
    assert_eq!(case.count(&ids, State::Queued).await, 2);

    operations.pause_queue(&queue, false).await.unwrap();
    assert!(set([during.id]).is_subset(&announced(&case.take_all().await)));
    assert_eq!(case.claim(worker, &ids).await.len(), 2);
}

/// Relays are not shown the jobs of a paused queue, which nobody would take; and none of them is forgotten.
pub async fn a_paused_queue_is_not_announced(timed: Timed) {
    let Timed { case, clock } = timed;
    let queue: QueueName = "mail".parse().unwrap();
    let (mail, other) = (NewJob { queue: queue.clone(), ..job() }, job());
    case.insert(&[mail.clone(), other.clone()]).await;
    let alone = NewJob { queue: queue.clone(), ..job() };
    case.insert(std::slice::from_ref(&alone)).await;
    let operations = case.store.operations();
    operations.pause_queue(&queue, true).await.unwrap();
    for _ in 0..3 {
        clock.advance(HOUR);
        assert_eq!(announced(&case.take_all().await), set([other.id]));
    }
    // A message that was dropped meanwhile is not waited for.
    clock.advance(HOUR);
    let groups: Vec<_> = case.take_all().await.iter().map(|group| group.id).collect();
    case.store.outbox_published(&groups, HOUR).await.unwrap();
    let worker = case.worker_for(100 * HOUR).await;
    assert!(case.claim(worker, &[mail.id, alone.id]).await.is_empty());
    operations.pause_queue(&queue, false).await.unwrap();
    let groups = case.take_all().await;
    assert_eq!(announced(&groups), set([mail.id, alone.id, other.id]));
    let lost: Vec<_> = groups.into_iter().filter(|group| !group.published).collect();
    assert!(set([mail.id, alone.id]).is_subset(&announced(&lost)));
}

/// A queue that is drained refuses new jobs, alone and without a trace, and lets those inside run, until it is resumed.
pub async fn a_draining_queue_takes_no_jobs(case: Case) {
    let queue: QueueName = "mail".parse().unwrap();
    let inside = NewJob { queue: queue.clone(), ..job() };
    case.insert(std::slice::from_ref(&inside)).await;
    let operations = case.other.operations();
    operations.drain_queue(&queue).await.unwrap();
    assert!(operations.queues().await.unwrap()[0].draining);
    let idempotency = Idempotency { key: "k".into(), fingerprint: [1; 32], ttl: HOUR };
    let refused = NewJob { queue: queue.clone(), idempotency: Some(Box::new(idempotency)), ..job() };
    let other = job();
    let inserted = case.store.insert(&[refused.clone(), other.clone()]).await.unwrap();
    assert_eq!(inserted.outcomes, [InsertOutcome::QueueDraining, InsertOutcome::Created(State::Queued)]);
    assert!(case.store.get(&[refused.id]).await.unwrap().is_empty());
    let worker = case.worker().await;
    assert_eq!(case.claim(worker, &[inside.id, other.id]).await.len(), 2);
    // A pause is no resume.
    operations.pause_queue(&queue, true).await.unwrap();
    assert!(operations.queues().await.unwrap()[0].draining);
    operations.pause_queue(&queue, false).await.unwrap();
    let again = NewJob { id: JobId::new(), ..refused };
    let inserted = case.store.insert(std::slice::from_ref(&again)).await.unwrap();
    assert_eq!(inserted.outcomes, [InsertOutcome::Created(State::Queued)]);
}

/// What has been accepted stays so when its insert is repeated, though its queue takes no more and its limit is gone by
/// then; and it keeps its idempotency key.
pub async fn a_repeated_insert_is_not_refused(case: Case) {
    let (queue, operations) = (QueueName::default(), case.other.operations());
    operations.set_limit(&"one".parse().unwrap(), Limit::concurrent(1)).await.unwrap();
    let idempotency = Idempotency { key: "k".into(), fingerprint: [1; 32], ttl: HOUR };
    let plain = NewJob { idempotency: Some(Box::new(idempotency)), ..job() };
    let mut limited = job();
    limited.gating.limits.push("one".parse().unwrap());
    let group = [plain.clone(), limited.clone()];
    case.insert(&group).await;
    let before = case.picture(&[plain.id, limited.id]).await;

    operations.remove_limit(&"one".parse().unwrap()).await.unwrap();
    operations.drain_queue(&queue).await.unwrap();
    let again = case.store.insert(&group).await.unwrap().outcomes;
    assert!(matches!(again[..], [InsertOutcome::Created(_), InsertOutcome::Created(_)]), "{again:?}");
    assert_eq!(case.picture(&[plain.id, limited.id]).await, before);
    let other = NewJob { id: JobId::new(), ..plain.clone() };
    let mut limited = NewJob { id: JobId::new(), ..other.clone() };
    limited.gating.limits.push("one".parse().unwrap());
    for same_request in [other, limited] {
        let answer = case.store.insert(std::slice::from_ref(&same_request)).await.unwrap().outcomes;
        assert_eq!(answer, [InsertOutcome::Existing(plain.id)]);
    }
}
