use windlass_core::{CancelOutcome, Finish, JobId, NewJob, State, Timestamp};

use super::support::{Case, job, retry, set, snoozed};

/// Promotion takes what is due, oldest first, as much as asked for, and nothing before its time.
pub async fn promotion_keeps_to_time_and_limit(case: Case) {
    let far = NewJob { run_at: Some(Timestamp::MAX_UTC), ..job() };
    case.insert(std::slice::from_ref(&far)).await;
    let mut due: Vec<JobId> = Vec::new();
    for running in case.running(7).await {
        assert!(case.finish(running, if due.len().is_multiple_of(2) { retry() } else { snoozed() }).await);
        due.push(running.id);
    }
    assert_eq!(case.store.promote_due(0).await.unwrap(), 0);
    assert_eq!(case.store.promote_due(3).await.unwrap(), 3);
    assert_eq!(case.count(&due[..3], State::Queued).await, 3, "the first that were due");
    assert_eq!(case.store.promote_due(100).await.unwrap(), 4);
    assert_eq!(case.store.promote_due(100).await.unwrap(), 0);
    assert_eq!(case.count(&due, State::Queued).await, 7);
    assert_eq!(case.get(due[0]).await.run_at, None);
    assert_eq!(case.state(far.id).await, State::Scheduled);
    // Promoted, they are published at once.
    let groups = case.take_all().await;
    let promoted: Vec<_> = groups.iter().filter(|group| !group.published).collect();
    assert_eq!(promoted.len(), 2, "one group for each promotion");
    assert_eq!(super::support::announced(&groups), set(due));
}

/// Schedulers that promote at once promote each job once.
pub async fn concurrent_promotions(case: Case) {
    let running = case.running(120).await;
    let finishes: Vec<Finish> =
        running.iter().map(|job| Finish { id: job.id, fence: job.fence, outcome: retry() }).collect();
    case.store.finish(running[0].worker, &finishes, &[running[0].claim]).await.unwrap();
    let promotions = (0..8).map(|i| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        async move {
            let mut total = 0;
            for _ in 0..10 {
                total += store.promote_due(7).await.unwrap();
            }
            total
        }
    });
    let total: usize = futures::future::join_all(promotions).await.into_iter().sum();
    let rest = case.store.promote_due(1000).await.unwrap();
    assert_eq!(total + rest, 120);
    let groups = case.take_all().await;
    let messages = groups.iter().map(|group| group.messages.len()).sum::<usize>();
    assert_eq!(messages, 120, "each is announced once");
}

/// A job called off, or promoted, while its time had not come is not promoted later.
pub async fn what_was_called_off_is_not_promoted(case: Case) {
    for outcome in [retry(), snoozed()] {
        let job = case.running(1).await[0];
        assert!(case.finish(job, outcome).await);
        assert_eq!(case.store.cancel(job.id).await.unwrap(), CancelOutcome::Cancelled);
        assert_eq!(case.store.promote_due(10).await.unwrap(), 0);
        assert_eq!(case.state(job.id).await, State::Cancelled);
    }
}
