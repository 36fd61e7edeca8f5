use std::time::Duration;

use windlass_core::{NewJob, QueueName, QueueRecord, State};

use super::support::{Case, announced, job, set};

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
        [QueueRecord { name: queue.clone(), paused: true }]
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
