use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use windlass_core::{NewJob, OutboxGroup, OutboxId, Outcome, Priority, Timestamp};

use super::support::{Case, HOUR, announced, ids, job, jobs, set, succeeded};

impl Case {
    /// Inserts `count` jobs and makes their group due at once, as one whose messages were published.
    async fn due_group(&self, count: usize) -> (OutboxId, Vec<NewJob>) {
        let jobs = jobs(count);
        let group = self.insert(&jobs).await.outbox.unwrap();
        self.make_due(&[group]).await;
        (group, jobs)
    }

    async fn make_due(&self, groups: &[OutboxId]) {
        self.store.outbox_published(groups, Duration::ZERO).await.unwrap();
    }
}

fn numbers(groups: &[OutboxGroup]) -> Vec<OutboxId> {
    groups.iter().map(|group| group.id).collect()
}

/// A group that was just accepted is left to the process that accepted it, and one that was confirmed is left alone
/// until it is to be verified.
pub async fn groups_become_due_in_time(case: Case) {
    let group = case.insert(&jobs(2)).await.outbox.unwrap();
    assert!(case.take_all().await.is_empty(), "its process is about to publish it");
    case.store.outbox_published(&[group], HOUR).await.unwrap();
    assert!(case.take_all().await.is_empty(), "confirmed");
    case.make_due(&[group]).await;
    assert_eq!(numbers(&case.take_all().await), [group]);
    assert!(case.take_all().await.is_empty(), "whoever took it is at it");
    case.make_due(&[group]).await;
    assert_eq!(numbers(&case.other.outbox_take(1).await.unwrap()), [group], "for as long as jobs wait");
}

/// A group carries a message for each of its jobs, with all that a worker goes by.
pub async fn messages_say_what_a_worker_needs(case: Case) {
    let mut jobs = jobs(3);
    jobs[0].trace = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    jobs[1].priority = Priority::Low;
    jobs[1].kind = "another.kind".parse().unwrap();
    jobs[2].queue = "another-queue".parse().unwrap();
    let group = case.insert(&jobs).await.outbox.unwrap();
    case.make_due(&[group]).await;
    let mut taken = case.take_all().await;
    assert_eq!(taken.len(), 1);
    let group = taken.pop().unwrap();
    assert!(group.published && group.age < HOUR);
    assert_eq!(group.messages.len(), 3);
    for job in &jobs {
        assert!(group.messages.contains(&job.message()), "{:?}", group.messages);
    }
}

/// A job that was queued again announces its next attempt.
pub async fn messages_announce_the_next_attempt(case: Case) {
    let running = case.running(1).await[0];
    assert!(case.finish(running, Outcome::Released).await);
    let groups = case.take_all().await;
    assert_eq!(groups.len(), 1);
    assert!(!groups[0].published, "nobody has published it yet");
    assert_eq!(groups[0].messages[0].job_id, running.id);
    assert_eq!(groups[0].messages[0].attempt, running.fence + 1);
}

/// Messages are for jobs that are still queued, and a group without any goes away.
pub async fn groups_without_queued_jobs_vanish(case: Case) {
    let (group, jobs) = case.due_group(4).await;
    let worker = case.worker().await;
    let running = case.run_jobs(worker, &[jobs[0].id]).await;
    case.store.cancel(jobs[1].id).await.unwrap();
    assert!(case.finish(running[0], succeeded()).await);
    assert_eq!(announced(&case.take_all().await), set(ids(&jobs[2..])));
    case.run_jobs(worker, &ids(&jobs[2..])).await;
    case.make_due(&[group]).await;
    assert!(case.take_all().await.is_empty());

    // It is gone: even when one of its jobs is queued once more, that is in a group of its own.
    let released = super::support::Running { id: jobs[2].id, fence: 1, worker, claim: running[0].claim };
    assert!(case.finish(released, Outcome::Released).await);
    case.make_due(&[group]).await;
    let groups = case.take_all().await;
    assert_eq!(groups.len(), 1);
    assert_ne!(groups[0].id, group);
    assert_eq!(announced(&groups), set([jobs[2].id]));
}

/// A job that waits for its time is announced when it is queued, not before.
pub async fn scheduled_jobs_are_not_announced(case: Case) {
    let mut jobs = jobs(2);
    jobs[0].run_at = Some(Timestamp::MAX_UTC);
    let group = case.insert(&jobs).await.outbox.unwrap();
    case.make_due(&[group]).await;
    assert_eq!(announced(&case.take_all().await), set([jobs[1].id]));
}

/// Relays that take at once never get the same group, and together get all of them.
pub async fn relays_share_the_groups(case: Case) {
    let mut all = HashSet::new();
    for _ in 0..60 {
        all.insert(case.insert(&[job()]).await.outbox.unwrap());
    }
    case.make_due(&all.iter().copied().collect::<Vec<_>>()).await;
    let relays = (0..8).map(|i| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        async move {
            let mut mine = Vec::new();
            for _ in 0..20 {
                let some = store.outbox_take(4).await.unwrap();
                assert!(some.len() <= 4);
                mine.extend(numbers(&some));
            }
            mine
        }
    });
    let taken: Vec<OutboxId> = join_all(relays).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 60, "no group twice, and none forgotten");
    assert_eq!(taken.into_iter().collect::<HashSet<_>>(), all);
}

/// The limit holds, and the groups due longest come first.
pub async fn the_limit_holds(case: Case) {
    let mut groups = Vec::new();
    for _ in 0..5 {
        groups.push(case.insert(&[job()]).await.outbox.unwrap());
    }
    // Due in the opposite of the order in which they were made.
    for group in groups.iter().rev() {
        case.make_due(&[*group]).await;
    }
    assert!(case.store.outbox_take(0).await.unwrap().is_empty());
    let first = numbers(&case.store.outbox_take(2).await.unwrap());
    assert_eq!(first.iter().collect::<HashSet<_>>(), groups[3..].iter().collect());
    assert_eq!(numbers(&case.store.outbox_take(10).await.unwrap()).len(), 3);
}

/// To confirm nothing, or a group that is gone, does no harm; neither does to confirm twice.
pub async fn confirmations_may_be_late(case: Case) {
    let (group, jobs) = case.due_group(1).await;
    case.store.cancel(jobs[0].id).await.unwrap();
    assert!(case.take_all().await.is_empty());
    let (next, _) = case.due_group(1).await;
    assert_ne!(next, group, "the number of a group that is gone is not given again");
    case.store.outbox_published(&[group, OutboxId(i64::MAX), group], HOUR).await.unwrap();
    case.store.outbox_published(&[], HOUR).await.unwrap();
    assert_eq!(numbers(&case.take_all().await), [next], "the late confirmation was not taken for another's");
}
