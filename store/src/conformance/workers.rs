use std::time::Duration;

use futures::future::join_all;
use windlass_core::{
    ClaimId, JobId, KindInfo, NewJob, NewWorker, Outcome, Rescued, State, StoreError, Tally, WorkerId,
};

use super::support::{Case, HOUR, Running, announced, dead, job, retry, set, snoozed, succeeded, worker};

const NOTHING: Rescued = Rescued { workers: Vec::new(), requeued: 0, dead: 0 };

impl Case {
    /// A worker that is dead, and the jobs with this many attempts that it holds.
    async fn orphans(&self, count: usize, max_attempts: u32) -> Vec<Running> {
        let jobs: Vec<NewJob> = (0..count).map(|_| NewJob { max_attempts, ..job() }).collect();
        self.insert(&jobs).await;
        let worker = self.worker_for(Duration::ZERO).await;
        self.run_jobs(worker, &super::support::ids(&jobs)).await
    }

    async fn is_unknown(&self, worker: WorkerId) -> bool {
        match self.store.heartbeat(worker).await {
            Ok(_) => false,
            Err(StoreError::WorkerUnknown(id)) => id == worker,
            Err(error) => panic!("{error}"),
        }
    }
}

fn list(running: &[Running]) -> Vec<JobId> {
    running.iter().map(|job| job.id).collect()
}

/// A worker is known from its registration to its end, and may register again after a lost answer.
pub async fn workers_are_known_while_they_live(case: Case) {
    let new = worker(HOUR);
    assert!(case.is_unknown(new.id).await);
    case.store.register(&new).await.unwrap();
    case.other.register(&new).await.unwrap();
    assert!(!case.is_unknown(new.id).await);
    case.store.deregister(new.id).await.unwrap();
    assert!(case.is_unknown(new.id).await);
    let ids = case.queued(1).await;
    let refused = case.store.claim(new.id, ClaimId::new(), &ids).await;
    assert!(matches!(refused, Err(StoreError::WorkerUnknown(_))), "{refused:?}");
    // Again, and for one that never was: no harm.
    case.store.deregister(new.id).await.unwrap();
    case.store.deregister(WorkerId::new()).await.unwrap();
    assert_eq!(case.store.rescue(3).await.unwrap(), NOTHING);
}

/// Kinds are known from the first worker that says so, and the newest word on each counts.
pub async fn the_newest_word_on_a_kind_counts(case: Case) {
    let info = |kind: &str, queue: &str, max_attempts| KindInfo {
        queue: queue.parse().unwrap(),
        max_attempts,
        ..KindInfo::new(kind.parse().unwrap())
    };
    assert!(case.store.kinds().await.unwrap().is_empty());
    let first = NewWorker { kinds: vec![info("a", "x", 3), info("b", "x", 3)], ..worker(HOUR) };
    case.store.register(&first).await.unwrap();
    let second = NewWorker { kinds: vec![info("c", "y", u32::MAX >> 1), info("a", "y", 9)], ..worker(HOUR) };
    case.store.register(&second).await.unwrap();
    case.store.deregister(first.id).await.unwrap();
    let mut kinds = case.other.kinds().await.unwrap();
    kinds.sort_by(|x, y| x.kind.cmp(&y.kind));
    assert_eq!(kinds, [info("a", "y", 9), info("b", "x", 3), info("c", "y", u32::MAX >> 1)]);
}

/// A schema belongs to a version of its kind: workers of another version neither replace nor remove it.
pub async fn schemas_are_kept_by_version(case: Case) {
    let info = |version, schema: Option<&str>| KindInfo {
        version,
        schemas: schema.map(|schema| (version, schema.to_owned())).into_iter().collect(),
        ..KindInfo::new("a".parse().unwrap())
    };
    let (one, two, other) = ("{\"type\": \"object\"}", "{\"const\": \"\\u0000é\"}", "true");
    for (said, version, expected) in [
        (info(1, None), 1, vec![]),
        (info(1, Some(one)), 1, vec![(1, one)]),
        (info(3, Some(two)), 3, vec![(1, one), (3, two)]),
        (info(1, Some(other)), 3, vec![(1, other), (3, two)]),
        (info(2, None), 3, vec![(1, other), (3, two)]),
        (info(1, None), 3, vec![(3, two)]),
        (info(u16::MAX >> 1, Some(one)), u16::MAX >> 1, vec![(3, two), (u16::MAX >> 1, one)]),
    ] {
        case.store.register(&NewWorker { kinds: vec![said], ..worker(HOUR) }).await.unwrap();
        let kinds = case.other.kinds().await.unwrap();
        let schemas = expected.into_iter().map(|(version, schema)| (version, schema.to_owned())).collect();
        assert_eq!(kinds, [KindInfo { version, schemas, ..info(1, None) }]);
    }
}

/// Fleets that start at once register without waiting in a circle.
pub async fn concurrent_registrations(case: Case) {
    let kinds: Vec<KindInfo> = (0..20)
        .map(|i| KindInfo {
            schemas: [(1, format!("{{\"title\": \"{i}\"}}"))].into(),
            ..KindInfo::new(format!("kind.{i}").parse().unwrap())
        })
        .collect();
    let workers: Vec<NewWorker> = (0..10)
        .map(|i| {
            let mut kinds = kinds.clone();
            kinds.rotate_left(i);
            if i % 2 == 0 {
                kinds.reverse();
            }
            NewWorker { kinds, ..worker(HOUR) }
        })
        .collect();
    let registrations = workers.iter().enumerate().map(|(i, worker)| {
        let store = if i % 2 == 0 { &case.store } else { &case.other };
        store.register(worker)
    });
    for registered in join_all(registrations).await {
        registered.unwrap();
    }
    assert_eq!(case.store.kinds().await.unwrap().len(), 20);
}

/// The jobs of a worker that fell silent are queued again, with a record of the attempt, and announced at once.
pub async fn silent_workers_lose_their_jobs(case: Case) {
    let live = case.running(2).await;
    case.store.heartbeat(live[0].worker).await.unwrap();
    let before = case.picture(&list(&live)).await;
    let lost = case.orphans(3, 5).await;
    let rescued = case.store.rescue(3).await.unwrap();
    assert_eq!(rescued, Rescued { workers: vec![lost[0].worker], requeued: 3, dead: 0 });
    for running in &lost {
        let found = case.get(running.id).await;
        assert_eq!((found.state, found.attempt, found.finished_at), (State::Queued, 1, None));
        assert_eq!(found.errors.len(), 1);
        assert_eq!((found.errors[0].attempt, found.errors[0].worker.as_str()), (1, "host-1"));
        assert!(!found.errors[0].message.is_empty());
    }
    assert_eq!(case.picture(&list(&live)).await, before, "others are left alone");
    let groups = case.take_all().await;
    assert_eq!(announced(&groups), set(list(&lost)));
    assert!(groups.iter().all(|group| !group.published && group.messages.iter().all(|m| m.attempt == 2)));
    assert_eq!(case.store.rescue(3).await.unwrap(), NOTHING, "once");
}

/// A worker declared dead has nothing to say any more.
pub async fn the_rescued_are_fenced_off(case: Case) {
    let lost = case.orphans(2, 5).await[0];
    case.store.rescue(3).await.unwrap();
    assert!(case.is_unknown(lost.worker).await);
    for outcome in [succeeded(), retry(), dead(), Outcome::Released] {
        assert!(!case.finish(lost, outcome).await);
    }
    let refused = case.store.claim(lost.worker, ClaimId::new(), &[lost.id]).await;
    assert!(matches!(refused, Err(StoreError::WorkerUnknown(id)) if id == lost.worker), "{refused:?}");
    let heir = case.run_jobs(case.worker().await, &[lost.id]).await[0];
    assert!(!case.finish(lost, succeeded()).await, "nor once another has the job");
    assert!(case.finish(heir, succeeded()).await);
}

/// A job is quarantined once it has lost as many workers as it may, and one without attempts left is dead.
pub async fn poison_jobs_are_quarantined(case: Case) {
    let id = case.orphans(1, 10).await[0].id;
    for lost in 1..=3 {
        if lost > 1 {
            case.run_jobs(case.worker_for(Duration::ZERO).await, &[id]).await;
        }
        let rescued = case.store.rescue(3).await.unwrap();
        assert_eq!((rescued.requeued, rescued.dead), if lost < 3 { (1, 0) } else { (0, 1) });
    }
    let found = case.get(id).await;
    assert_eq!((found.state, found.attempt, found.errors.len()), (State::Dead, 3, 3));
    assert!(found.finished_at.is_some());

    let last = case.orphans(1, 1).await[0];
    assert_eq!(case.store.rescue(3).await.unwrap().dead, 1);
    let found = case.get(last.id).await;
    assert_eq!((found.state, found.errors.len()), (State::Dead, 1));
}

/// Failures, and attempts that did not count, are no lost workers; and only what counts uses attempts up.
pub async fn only_lost_workers_count_as_crashes(case: Case) {
    let job = NewJob { max_attempts: 3, ..job() };
    case.insert(std::slice::from_ref(&job)).await;
    for outcome in [snoozed(), Outcome::Released, retry()] {
        let running = case.run_jobs(case.worker().await, &[job.id]).await[0];
        assert!(case.finish(running, outcome).await);
        case.store.promote_due(10).await.unwrap();
    }
    // Claimed for the fourth time, and the second that counts.
    case.run_jobs(case.worker_for(Duration::ZERO).await, &[job.id]).await;
    assert_eq!(case.store.rescue(2).await.unwrap().requeued, 1);
    assert_eq!((case.state(job.id).await, case.get(job.id).await.attempt), (State::Queued, 2));
    // The last attempt is lost; that is decided by attempts, with crashes to spare.
    case.run_jobs(case.worker_for(Duration::ZERO).await, &[job.id]).await;
    assert_eq!(case.store.rescue(100).await.unwrap().dead, 1);
}

/// Of the jobs that a dead worker ever claimed, a rescue takes those that it still holds.
pub async fn a_rescue_takes_what_is_still_held(case: Case) {
    let lost = case.orphans(3, 5).await;
    assert!(case.finish(lost[0], Outcome::Released).await);
    assert!(case.finish(lost[1], retry()).await);
    let heir = case.run_jobs(case.worker().await, &[lost[0].id]).await[0];
    let before = case.picture(&list(&lost[..2])).await;
    let rescued = case.store.rescue(3).await.unwrap();
    assert_eq!(rescued, Rescued { workers: vec![lost[0].worker], requeued: 1, dead: 0 });
    assert_eq!(case.picture(&list(&lost[..2])).await, before);
    assert!(case.finish(heir, succeeded()).await);
}

/// Where a cancellation was asked for, a lost worker settles it.
pub async fn a_lost_worker_settles_cancellations(case: Case) {
    let lost = case.orphans(2, 5).await;
    case.request_cancel(lost[0].id).await;
    let rescued = case.store.rescue(3).await.unwrap();
    assert_eq!((rescued.requeued, rescued.dead), (2, 0));
    let found = case.get(lost[0].id).await;
    assert_eq!((found.state, found.errors.len()), (State::Cancelled, 1));
    assert!(found.finished_at.is_some());
    assert_eq!(announced(&case.take_all().await), set([lost[1].id]));
}

/// Who says goodbye lets go of everything at once, and a heartbeat still under way does not undo that.
pub async fn goodbye_frees_at_once(case: Case) {
    let held = case.running(2).await;
    let worker = held[0].worker;
    assert!(case.finish(held[0], succeeded()).await);
    assert_eq!(case.store.rescue(3).await.unwrap(), NOTHING, "it lives");
    case.store.deregister(worker).await.unwrap();
    assert!(case.is_unknown(worker).await);
    assert_eq!(case.store.rescue(3).await.unwrap(), Rescued { workers: vec![worker], requeued: 1, dead: 0 });
    assert_eq!(case.state(held[0].id).await, State::Succeeded);
    assert_eq!(case.state(held[1].id).await, State::Queued);
}

/// Rescuers that find the same dead worker free its jobs once.
pub async fn concurrent_rescues(case: Case) {
    for _ in 0..5 {
        let lost = case.orphans(20, 10).await;
        let rescues = (0..6).map(|i| {
            let store = if i % 2 == 0 { &case.store } else { &case.other };
            store.rescue(3)
        });
        let all: Vec<Rescued> = join_all(rescues).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().map(|rescued| rescued.requeued).sum::<u64>(), 20);
        assert_eq!(all.iter().map(|rescued| rescued.workers.len()).sum::<usize>(), 1);
        let found = case.other.get(&list(&lost)).await.unwrap();
        assert!(found.iter().all(|job| job.state == State::Queued && job.errors.len() == 1));
        assert_eq!(case.take_all().await.iter().map(|group| group.messages.len()).sum::<usize>(), 20);
        // Out of the way of the next round.
        case.run_jobs(case.worker().await, &list(&lost)).await;
    }
}

/// Outcomes that cross a rescue are recorded, or the job is freed: never both, never neither.
pub async fn outcomes_race_the_rescue(case: Case) {
    for _ in 0..10 {
        let lost = case.orphans(30, 10).await;
        let finishes: Vec<_> = lost
            .iter()
            .map(|job| windlass_core::Finish { id: job.id, fence: job.fence, outcome: succeeded() })
            .collect();
        let closed = [lost[0].claim];
        let finish = case.other.finish(lost[0].worker, &finishes, &closed);
        let (recorded, rescued) = futures::join!(finish, case.store.rescue(3));
        let (recorded, rescued) = (recorded.unwrap(), rescued.unwrap());
        assert_eq!(recorded.len() as u64 + rescued.requeued, 30);
        assert_eq!(case.count(&list(&lost), State::Succeeded).await, recorded.len());
        assert_eq!(case.count(&list(&lost), State::Queued).await as u64, rescued.requeued);
        case.run_jobs(case.worker().await, &case.still_queued(&list(&lost)).await).await;
    }
}

/// Claims that cross the end of their worker are refused, or their jobs are freed by a rescue: none is stranded.
pub async fn claims_race_the_rescue(case: Case) {
    for _ in 0..15 {
        let ids = case.queued(10).await;
        let worker = case.worker_for(Duration::ZERO).await;
        // Something that is held, so that the rescue has something to do.
        case.run_jobs(worker, &ids[..1]).await;
        let claims = join_all(ids[1..].chunks(3).map(|ids| case.other.claim(worker, ClaimId::new(), ids)));
        let (claims, rescued) = futures::join!(claims, case.store.rescue(3));
        rescued.unwrap();
        for claim in claims {
            assert!(matches!(claim, Ok(_) | Err(StoreError::WorkerUnknown(_))), "{claim:?}");
        }
        case.store.rescue(3).await.unwrap();
        assert_eq!(case.still_queued(&ids).await.len(), 10);
    }
}

impl Case {
    async fn still_queued(&self, ids: &[JobId]) -> Vec<JobId> {
        let found = self.other.get(ids).await.unwrap();
        found.iter().filter(|job| job.state == State::Queued).map(|job| job.id).collect()
    }
}

/// Workers are listed with what they run, and jobs are counted by queue as far as they have side tables.
pub async fn the_fleet_is_seen(case: Case) {
    let operations = case.other.operations();
    assert!(operations.workers(None, 10).await.unwrap().is_empty());
    assert_eq!(operations.tally().await.unwrap(), Tally { complete: true, ..Tally::default() });

    let kind: windlass_core::Kind = "a".parse().unwrap();
    let new =
        NewWorker { kinds: vec![KindInfo { version: 7, ..KindInfo::new(kind.clone()) }], ..worker(HOUR) };
    case.store.register(&new).await.unwrap();
    let mail = |count| -> Vec<NewJob> {
        (0..count).map(|_| NewJob { queue: "mail".parse().unwrap(), ..super::support::job() }).collect()
    };
    let jobs = mail(6);
    case.insert(&jobs).await;
    let running = case.run_jobs(new.id, &super::support::ids(&jobs)[..5]).await;
    for (job, outcome) in running.iter().zip([
        Outcome::Succeeded { result: None, keep: None },
        Outcome::Dead { error: "e".into() },
        Outcome::Retry { after: HOUR, error: "e".into() },
    ]) {
        assert!(case.finish(*job, outcome).await);
    }
    let late = NewJob { run_at: Some(windlass_core::Timestamp::MAX_UTC), ..super::support::job() };
    case.insert(&[late]).await;
    let idle = case.worker_for(Duration::ZERO).await;
    // It has said goodbye and left a job behind.
    let gone = case.running(1).await[0];
    case.store.deregister(gone.worker).await.unwrap();

    let workers = operations.workers(None, 10).await.unwrap();
    let expected = [gone.worker, idle, new.id];
    assert_eq!(workers.iter().map(|worker| worker.id).collect::<Vec<_>>(), expected, "newest first");
    assert_eq!((workers[0].seen_at, workers[0].alive), (None, false));
    assert_eq!(workers[0].running, [gone.id]);
    assert_eq!((workers[1].alive, workers[1].running.len()), (false, 0));
    let found = &workers[2];
    assert_eq!((&*found.label, found.lease, found.alive), ("host-1", HOUR, true));
    assert!(found.seen_at.unwrap() >= found.started_at);
    assert_eq!(found.kinds, [(kind, 7)]);
    assert_eq!(found.running, [running[3].id, running[4].id]);
    let page = operations.workers(Some(gone.worker), 1).await.unwrap();
    assert_eq!(page.iter().map(|worker| worker.id).collect::<Vec<_>>(), [idle]);

    let tally = operations.tally().await.unwrap();
    let count = |queue: &str, state, count| ((queue.parse().unwrap(), state), count);
    let expected = [
        count("default", State::Scheduled, 1),
        count("default", State::Running, 1),
        count("mail", State::Running, 2),
        count("mail", State::Retrying, 1),
        count("mail", State::Dead, 1),
    ];
    assert_eq!((tally.counts, tally.complete), (expected.into_iter().collect(), true));
}
