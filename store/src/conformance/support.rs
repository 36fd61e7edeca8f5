use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use serde_json::value::RawValue;
use tokio::time::timeout;
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, Finish, InsertOutcome, Inserted, JobId, JobRecord, NewJob, NewWorker,
    OutboxGroup, Outcome, State, Store, WorkerId,
};

use super::Fixture;
use crate::{StoreOptions, VirtualClock};

/// Longer than any test takes.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// Long enough for a busy machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test's store, as two processes see it.
pub struct Case {
    /// The store under test.
    pub store: Arc<dyn Store>,
    /// Another client of it.
    pub other: Arc<dyn Store>,
}

/// One test's store on a clock that only the test moves.
pub struct Timed {
    /// The store under test.
    pub case: Case,
    /// Its clock.
    pub clock: VirtualClock,
}

impl Timed {
    /// As [`Case::run`].
    pub async fn run<F: Future<Output = ()>>(fixture: &dyn Fixture, test: impl FnOnce(Self) -> F) {
        let clock = VirtualClock::default();
        let options = StoreOptions {
            clock: Some(clock.clone()),
            retention: super::retention::rules(),
            ..StoreOptions::default()
        };
        Case::run_by(fixture, options, |case| test(Self { case, clock: clock.clone() })).await;
    }
}

/// A server that does not answer is to fail the test, not to hold it up for ever.
async fn in_time<T>(what: &str, it: impl Future<Output = T>) -> T {
    timeout(PATIENCE, it).await.unwrap_or_else(|_| panic!("the store: {what} takes far too long"))
}

/// A job that runs: what its worker needs to finish it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Running {
    pub id: JobId,
    pub fence: u32,
    pub worker: WorkerId,
    pub claim: ClaimId,
}

impl Case {
    /// Runs `test` on a store of its own, and removes that afterwards, also when the test fails.
    pub async fn run<F: Future<Output = ()>>(fixture: &dyn Fixture, test: impl FnOnce(Self) -> F) {
        Self::run_by(fixture, StoreOptions::default(), test).await;
    }

    async fn run_by<F: Future<Output = ()>>(
        fixture: &dyn Fixture,
        options: StoreOptions,
        test: impl FnOnce(Self) -> F,
    ) {
        let opened = async {
            let (store, other) = (fixture.client(options.clone()).await, fixture.client(options).await);
            // Processes that start at once on an empty database.
            let migrated = futures::join!(store.migrate(), other.migrate(), store.migrate());
            (store, other, migrated)
        };
        let (store, other, migrated) = in_time("opening and migrating it", opened).await;
        let result = match migrated {
            (Ok(()), Ok(()), Ok(())) => {
                let test = timeout(PATIENCE, test(Self { store, other }));
                AssertUnwindSafe(test).catch_unwind().await
            }
            failed => {
                in_time("removing it", fixture.remove()).await;
                panic!("migrate: {failed:?}");
            }
        };
        in_time("removing it", fixture.remove()).await;
        match result {
            Ok(ended) => ended.expect("the test takes far too long"),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Inserts jobs that are all new.
    pub(super) async fn insert(&self, jobs: &[NewJob]) -> Inserted {
        let inserted = self.store.insert(jobs).await.unwrap();
        assert_eq!(inserted.outcomes.len(), jobs.len());
        for outcome in &inserted.outcomes {
            assert!(matches!(outcome, InsertOutcome::Created(_)), "{outcome:?}");
        }
        inserted
    }

    /// Inserts `count` plain jobs.
    pub(super) async fn queued(&self, count: usize) -> Vec<JobId> {
        let jobs = jobs(count);
        self.insert(&jobs).await;
        ids(&jobs)
    }

    /// Registers a worker that lives longer than the test.
    pub(super) async fn worker(&self) -> WorkerId {
        self.worker_for(HOUR).await
    }

    /// Registers a worker with this lease.
    pub(super) async fn worker_for(&self, lease: Duration) -> WorkerId {
        let worker = worker(lease);
        self.store.register(&worker).await.unwrap();
        worker.id
    }

    /// Claims under a new claim id, and answers in the order of the ids.
    pub(super) async fn claim(&self, worker: WorkerId, ids: &[JobId]) -> Vec<ClaimedJob> {
        sorted(self.store.claim(worker, ClaimId::new(), ids).await.unwrap())
    }

    /// `count` jobs that run, in one claim of a new worker with this lease.
    pub(super) async fn running_for(&self, lease: Duration, count: usize) -> Vec<Running> {
        let ids = self.queued(count).await;
        let worker = self.worker_for(lease).await;
        self.run_jobs(worker, &ids).await
    }

    /// `count` jobs that run, in one claim of a new worker.
    pub(super) async fn running(&self, count: usize) -> Vec<Running> {
        self.running_for(HOUR, count).await
    }

    /// Claims these jobs, all of which must be queued.
    pub(super) async fn run_jobs(&self, worker: WorkerId, ids: &[JobId]) -> Vec<Running> {
        let claim = ClaimId::new();
        let claimed = sorted(self.store.claim(worker, claim, ids).await.unwrap());
        assert_eq!(claimed.len(), ids.len(), "all are claimed");
        claimed.iter().map(|job| Running { id: job.id, fence: job.fence, worker, claim }).collect()
    }

    /// Finishes `job` with `outcome`; whether that was recorded.
    pub(super) async fn finish(&self, job: Running, outcome: Outcome) -> bool {
        let finish = Finish { id: job.id, fence: job.fence, outcome };
        let recorded = self.store.finish(job.worker, &[finish], &[]).await.unwrap();
        assert!(recorded.is_empty() || recorded == [job.id], "{recorded:?}");
        !recorded.is_empty()
    }

    /// Reads a job that exists, through the other client.
    pub(super) async fn get(&self, id: JobId) -> JobRecord {
        let mut found = self.other.get(&[id]).await.unwrap();
        assert_eq!(found.len(), 1, "job {id} exists once");
        found.pop().unwrap()
    }

    /// Reads a job's state.
    pub(super) async fn state(&self, id: JobId) -> State {
        self.get(id).await.state
    }

    /// Everything that can be seen of these jobs, for comparison.
    pub(super) async fn picture(&self, ids: &[JobId]) -> Vec<String> {
        let mut found = self.other.get(ids).await.unwrap();
        found.sort_by_key(|job| job.id);
        found.iter().map(|job| format!("{job:?}")).collect()
    }

    /// How many of these jobs are in `state`.
    pub(super) async fn count(&self, ids: &[JobId], state: State) -> usize {
        self.other.get(ids).await.unwrap().iter().filter(|job| job.state == state).count()
    }

    /// Asks for a cancellation of a job that runs.
    pub(super) async fn request_cancel(&self, id: JobId) {
        assert_eq!(self.store.cancel(id).await.unwrap(), CancelOutcome::Requested);
    }

    /// Takes every outbox group that is due.
    pub(super) async fn take_all(&self) -> Vec<OutboxGroup> {
        self.store.outbox_take(usize::MAX).await.unwrap()
    }
}

/// Polls `call` until it has had to wait so many times, and drops it then, wherever it is. On a busy machine an answer may
/// be there before it is waited for, so the call may also come to its end. Whether it did.
pub(super) async fn give_up<T>(call: impl Future<Output = T>, waits: usize) -> bool {
    let mut call = std::pin::pin!(call);
    let mut left = waits;
    std::future::poll_fn(|context| {
        if call.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// A plain job.
pub(super) fn job() -> NewJob {
    NewJob::new("test.kind".parse().unwrap(), raw("{}"))
}

/// The job, on this tenant's behalf.
pub(super) fn of_tenant(tenant: &str, mut job: NewJob) -> NewJob {
    job.gating.tenant = Some(tenant.parse().unwrap());
    job
}

/// `count` plain jobs.
pub(super) fn jobs(count: usize) -> Vec<NewJob> {
    (0..count).map(|_| job()).collect()
}

/// A worker with this lease.
pub(super) fn worker(lease: Duration) -> NewWorker {
    NewWorker { id: WorkerId::new(), label: "host-1".into(), lease, kinds: Vec::new() }
}

/// JSON as it is.
pub(super) fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

pub(super) fn ids(jobs: &[NewJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

pub(super) fn set(ids: impl IntoIterator<Item = JobId>) -> BTreeSet<JobId> {
    ids.into_iter().collect()
}

/// The jobs that these groups announce.
pub(super) fn announced(groups: &[OutboxGroup]) -> BTreeSet<JobId> {
    set(groups.iter().flat_map(|group| &group.messages).map(|message| message.job_id))
}

pub(super) fn sorted(mut claimed: Vec<ClaimedJob>) -> Vec<ClaimedJob> {
    claimed.sort_by_key(|job| job.id);
    claimed
}

pub(super) fn succeeded() -> Outcome {
    Outcome::Succeeded { result: None, keep: None }
}

/// A failure that is due again at once.
pub(super) fn retry() -> Outcome {
    Outcome::Retry { after: Duration::ZERO, error: "again".into() }
}

/// A failure for good.
pub(super) fn dead() -> Outcome {
    Outcome::Dead { error: "never".into() }
}

/// A snooze that is over at once.
pub(super) fn snoozed() -> Outcome {
    Outcome::Snoozed { after: Duration::ZERO }
}
