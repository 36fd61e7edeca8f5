use futures::future::join_all;
use windlass_core::{
    After, Idempotency, InsertOutcome, JobId, Needs, NewJob, NewWebhook, NewWorkflow, Outcome, QueueName,
    State, Step, Store, StoredSecret, Tenant, WebhookFilter, WebhookId, WorkflowLimits, WorkflowOutcome,
};

use super::support::{Case, HOUR, Timed, dead, ids, job, of_tenant, retry, snoozed, succeeded};

const CREATED: InsertOutcome = InsertOutcome::Created(State::Queued);

fn acme() -> Tenant {
    "acme".parse().unwrap()
}

fn ours() -> NewJob {
    of_tenant("acme", job())
}

fn several(count: usize) -> Vec<NewJob> {
    (0..count).map(|_| ours()).collect()
}

impl Case {
    async fn set_quota(&self, most: u32) {
        self.store.quotas().set_quota(&acme(), most).await.unwrap();
    }

    /// How many hold a place, once all has been seen to.
    async fn held(&self) -> u64 {
        while self.store.follow_up(100).await.unwrap() > 0 {}
        self.places().await
    }

    /// How many hold a place now.
    async fn places(&self) -> u64 {
        self.other.quotas().quota(&acme()).await.unwrap().unwrap().unfinished
    }

    async fn outcomes(&self, jobs: &[NewJob]) -> Vec<InsertOutcome> {
        self.store.insert(jobs).await.unwrap().outcomes
    }
}

/// A quota is there once it is set, changes at once, and is gone once it is removed, with what it has counted.
pub async fn a_quota_is_set_and_removed(case: Case) {
    let quotas = case.store.quotas();
    let tenant = acme();
    assert_eq!(quotas.quota(&tenant).await.unwrap(), None);
    // Of what is there already, nothing counts.
    case.insert(&several(2)).await;
    case.set_quota(1).await;
    case.set_quota(1).await;
    assert_eq!(case.outcomes(&several(2)).await, [CREATED, InsertOutcome::OverQuota]);
    case.set_quota(2).await;
    assert_eq!(case.outcomes(&several(2)).await, [CREATED, InsertOutcome::OverQuota]);
    case.set_quota(0).await;
    assert_eq!(case.outcomes(&several(1)).await, [InsertOutcome::OverQuota]);
    assert_eq!(case.places().await, 2);
    assert!(quotas.remove_quota(&tenant).await.unwrap());
    assert!(!quotas.remove_quota(&tenant).await.unwrap());
    assert_eq!(case.outcomes(&several(1)).await, [CREATED]);
    case.set_quota(1).await;
    assert_eq!(case.places().await, 0);
}

/// Jobs get places in order; those without are not stored, and others are not touched by it. A repeat counts nothing again,
/// and is not refused.
pub async fn a_quota_is_for_one_tenant(case: Case) {
    case.set_quota(2).await;
    let (mine, other) = (several(3), of_tenant("globex", job()));
    let group = [&mine[0], &other, &mine[1], &mine[2]].map(Clone::clone);
    let group = [group.to_vec(), vec![job()]].concat();
    for _ in 0..2 {
        let inserted = case.store.insert(&group).await.unwrap();
        assert_eq!(inserted.outcomes, [CREATED, CREATED, CREATED, InsertOutcome::OverQuota, CREATED]);
        assert_eq!(case.places().await, 2);
    }
    assert!(case.store.get(&[mine[2].id]).await.unwrap().is_empty());
    let stored = [mine[0].id, other.id, mine[1].id, group[4].id];
    assert_eq!(case.count(&stored, State::Queued).await, 4);
    // All of them are announced.
    let announced = super::support::announced(&case.take_all().await);
    assert!(announced.is_empty() || announced == super::support::set(stored), "{announced:?}");
}

/// A job twice in a group takes one place.
pub async fn a_place_is_for_a_job(case: Case) {
    case.set_quota(2).await;
    let job = ours();
    case.store.insert(&[job.clone(), job.clone(), ours()]).await.unwrap();
    assert_eq!(case.places().await, 2);
    assert_eq!(case.outcomes(&several(1)).await, [InsertOutcome::OverQuota]);
}

/// Whoever accepts at the same time, there are as many jobs as the quota says, and no more.
pub async fn a_quota_holds_against_many(case: Case) {
    case.set_quota(10).await;
    let groups: Vec<Vec<NewJob>> = (0..12).map(|number| several(1 + number % 3)).collect();
    let stores: [&dyn Store; 2] = [&*case.store, &*case.other];
    let accepts = groups.iter().enumerate().map(|(number, group)| stores[number % 2].insert(group));
    let mut created = 0;
    for inserted in join_all(accepts).await {
        let outcomes = inserted.unwrap().outcomes;
        assert!(outcomes.iter().all(|outcome| [CREATED, InsertOutcome::OverQuota].contains(outcome)));
        created += outcomes.iter().filter(|outcome| **outcome == CREATED).count();
    }
    assert_eq!((created, case.held().await), (10, 10));
    let all: Vec<JobId> = groups.iter().flat_map(|group| ids(group)).collect();
    assert_eq!(case.store.get(&all).await.unwrap().len(), 10);
}

/// However a job ends, its place is given back; and not before, whatever else befalls it.
pub async fn every_end_gives_the_place_back(timed: Timed) {
    let Timed { case, clock } = timed;
    case.set_quota(20).await;
    let jobs = several(8);
    let expiring = NewJob { expires_at: Some(clock.now() + HOUR), ..ours() };
    let scheduled = NewJob { run_at: Some(clock.now() + 100 * HOUR), ..ours() };
    case.insert(&jobs).await;
    case.store.insert(&[expiring, scheduled.clone()]).await.unwrap();
    assert_eq!(case.held().await, 10);
    let worker = case.worker_for(2 * HOUR).await;
    let running = case.run_jobs(worker, &ids(&jobs)[..6]).await;
    assert_eq!(case.held().await, 10);
    // Pauses are no ends.
    assert!(case.finish(running[0], retry()).await);
    assert!(case.finish(running[1], snoozed()).await);
    assert!(case.finish(running[2], Outcome::Released).await);
    assert_eq!(case.held().await, 10);
    assert!(case.finish(running[3], succeeded()).await);
    assert!(case.finish(running[4], dead()).await);
    assert_eq!(case.places().await, 10);
    assert_eq!(case.held().await, 8);
    case.store.cancel(jobs[6].id).await.unwrap();
    assert_eq!(case.held().await, 7);
    case.store.operations().cancel_many(&[scheduled.id], &[State::Scheduled]).await.unwrap();
    assert_eq!(case.held().await, 6);
    // The one that still runs loses its worker, for good; and one expires.
    clock.advance(3 * HOUR);
    case.store.rescue(1).await.unwrap();
    assert_eq!(case.store.timetable().expire(100).await.unwrap(), 1);
    assert_eq!(case.held().await, 4);
    assert_eq!(case.state(jobs[5].id).await, State::Dead);
}

/// Who was let go and comes to life again counts again; who has not been let go yet does not count twice.
pub async fn a_retry_counts_again(case: Case) {
    case.set_quota(2).await;
    let jobs = several(2);
    case.insert(&jobs).await;
    let worker = case.worker().await;
    let again = async |id| case.store.operations().retry(&[id], &[State::Dead]).await.unwrap();
    for let_go in [true, false] {
        let running = case.run_jobs(worker, &[jobs[0].id]).await;
        assert!(case.finish(running[0], dead()).await);
        if let_go {
            assert_eq!(case.held().await, 1);
        }
        assert_eq!(again(jobs[0].id).await, [jobs[0].id]);
        assert_eq!(case.held().await, 2);
        assert_eq!(case.outcomes(&several(1)).await, [InsertOutcome::OverQuota]);
    }
    // Also one that was accepted before there was a quota.
    case.store.quotas().remove_quota(&acme()).await.unwrap();
    case.set_quota(2).await;
    let running = case.run_jobs(worker, &ids(&jobs)).await;
    assert!(case.finish(running[0], dead()).await);
    assert_eq!(case.held().await, 0);
    again(jobs[0].id).await;
    assert_eq!(case.held().await, 1);
    let running = case.run_jobs(worker, &[jobs[0].id]).await;
    assert!(case.finish(running[0], succeeded()).await);
    assert_eq!(case.held().await, 0);
}

/// Who retries and who gives places back at the same time agree in the end.
pub async fn retries_race_with_places(case: Case) {
    case.set_quota(100).await;
    let jobs = several(20);
    case.insert(&jobs).await;
    let worker = case.worker().await;
    for _ in 0..3 {
        for running in case.run_jobs(worker, &ids(&jobs)).await {
            assert!(case.finish(running, dead()).await);
        }
        let all = ids(&jobs);
        let (retried, followed) =
            futures::join!(case.store.operations().retry(&all, &[State::Dead]), case.other.follow_up(100));
        assert_eq!((retried.unwrap().len(), followed.is_ok()), (20, true));
        assert_eq!(case.held().await, 20);
    }
}

/// What is refused for want of a place leaves its idempotency key free, and what is refused for another reason no place
/// taken.
pub async fn a_refusal_takes_nothing(case: Case) {
    case.set_quota(1).await;
    let keyed = || NewJob {
        idempotency: Some(Box::new(Idempotency { key: "k".into(), fingerprint: [1; 32], ttl: HOUR })),
        ..ours()
    };
    let first = ours();
    case.insert(std::slice::from_ref(&first)).await;
    assert_eq!(case.outcomes(&[keyed()]).await, [InsertOutcome::OverQuota]);
    case.store.cancel(first.id).await.unwrap();
    assert_eq!(case.held().await, 0);
    let queue: QueueName = "drained".parse().unwrap();
    case.store.operations().drain_queue(&queue).await.unwrap();
    assert_eq!(case.outcomes(&[NewJob { queue, ..ours() }]).await, [InsertOutcome::QueueDraining]);
    assert_eq!(case.places().await, 0);
    let accepted = keyed();
    assert_eq!(case.outcomes(std::slice::from_ref(&accepted)).await, [CREATED]);
    assert_eq!(case.outcomes(&[keyed()]).await, [InsertOutcome::Existing(accepted.id)]);
    assert_eq!(case.places().await, 1);
}

/// A workflow gets places for all of its jobs or is refused; what is called off in it gives them back, and what is retried
/// takes them again.
pub async fn a_workflow_is_counted_job_by_job(case: Case) {
    case.set_quota(3).await;
    let workflow = |names: &[&str]| {
        let step = |(at, name): (usize, &&str)| {
            let parents = names[..at].first().map(|first| (first.parse().unwrap(), Needs::Succeeded));
            let after = After::Jobs(parents.into_iter().collect());
            Step { name: name.parse().unwrap(), job: ours(), after }
        };
        let steps = names.iter().enumerate().map(step).collect();
        NewWorkflow::new("w".parse().unwrap(), steps, WorkflowLimits::default()).unwrap()
    };
    let insert =
        async |workflow: &NewWorkflow| case.store.workflows().insert_workflow(workflow).await.unwrap();
    let refused = insert(&workflow(&["a", "b", "c", "d"])).await;
    assert!(matches!(refused, WorkflowOutcome::Refused { why: InsertOutcome::OverQuota, .. }), "{refused:?}");
    assert_eq!(case.places().await, 0);
    let graph = workflow(&["a", "b", "c"]);
    assert!(matches!(insert(&graph).await, WorkflowOutcome::Created { .. }));
    assert_eq!(case.held().await, 3);
    let worker = case.worker().await;
    let running = case.run_jobs(worker, &[graph.jobs()[0].id]).await;
    assert!(case.finish(running[0], dead()).await);
    assert_eq!(case.held().await, 0);
    case.store.workflows().retry_workflow(graph.id).await.unwrap();
    assert_eq!(case.held().await, 3);
}

/// Deleted jobs hold no place: they are followed up before.
pub async fn a_deleted_job_holds_no_place(case: Case) {
    case.set_quota(1).await;
    let job = ours();
    case.insert(std::slice::from_ref(&job)).await;
    case.store.cancel(job.id).await.unwrap();
    let delete = async || case.store.operations().delete(&[job.id], &[State::Cancelled]).await.unwrap();
    assert_eq!(delete().await, []);
    assert_eq!(case.held().await, 0);
    assert_eq!(delete().await, [job.id]);
    assert_eq!(case.held().await, 0);
    assert_eq!(case.outcomes(&several(1)).await, [CREATED]);
}

/// What webhooks are told is no job of the tenant's: it is neither refused nor counted.
pub async fn deliveries_count_for_no_quota(case: Case) {
    case.set_quota(1).await;
    let id = WebhookId::new();
    let webhook = NewWebhook {
        id,
        tenant: Some(acme()),
        url: "https://example.com".into(),
        filter: WebhookFilter::default(),
        enabled: true,
        secret: StoredSecret::new("\"one\""),
    };
    assert!(case.store.webhooks().create_webhook(&webhook).await.unwrap());
    let job = ours();
    case.insert(std::slice::from_ref(&job)).await;
    case.set_quota(0).await;
    case.store.cancel(job.id).await.unwrap();
    assert_eq!(case.held().await, 0);
    let told = case.other.webhooks().deliveries(id, None, 10).await.unwrap();
    assert_eq!(told.iter().map(|delivery| delivery.state).collect::<Vec<_>>(), [Some(State::Queued)]);
}
