//! A process's handle on the store: each call crosses a [`Line`], which may be slow, cut, or deaf.

use std::{
    any::Any,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::value::RawValue;
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, DeadCursor, DeadFilter, DeadPage, Edition, Finish, Found,
    HeartbeatReply, Inserted, JobFilter, JobId, JobNotes, JobRecord, Keys, KindInfo, Limit, LimitName,
    LimitRecord, NewJob, NewWorker, Operations, OutboxGroup, OutboxId, QueueName, QueueRecord, Quotas,
    Rescued, ScheduleDefinition, ScheduleName, ScheduleRecord, Standing, State, Store, StoreError, SystemId,
    Tally, Timetable, Webhooks, WorkerId, WorkerRecord, Workflows,
};

use crate::{
    absent::{Absent, not_simulated},
    tables::Tables,
};

/// What a call does to the tables, and tells of it if asked to.
pub type Work = Box<dyn FnOnce(&mut Tables, Option<&mut String>) + Send>;

/// The way to the tables.
#[async_trait]
pub trait Line: Debug + Send + Sync + 'static {
    /// Has the work done, at some time or never, and comes back when the answer is here. An error tells nothing about that.
    async fn carry(&self, what: &(dyn Fn() -> String + Send + Sync), work: Work) -> Result<(), StoreError>;

    /// A claim's answer as it arrives.
    fn mark(&self, _: &mut ClaimedJob) {}
}

/// A handle on the tables.
#[derive(Debug)]
pub struct SimStore<L> {
    line: L,
}

impl<L: Line> SimStore<L> {
    pub fn new(line: L) -> Self {
        Self { line }
    }

    async fn call<T: Debug + Send + 'static>(
        &self,
        what: impl Fn() -> String + Send + Sync,
        work: impl FnOnce(&mut Tables) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let slot = Arc::new(Mutex::new(None));
        let answer = slot.clone();
        let work: Work = Box::new(move |tables, told| {
            let done = work(tables);
            if let Some(told) = told {
                *told = format!("{done:?}");
            }
            *slot.lock().unwrap() = Some(done);
        });
        self.line.carry(&what, work).await?;
        answer.lock().unwrap().take().expect("the line has had the work done")
    }
}

#[async_trait]
impl<L: Line> Store for SimStore<L> {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.call(|| "ping".into(), |_| Ok(())).await
    }

    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        let (ids, jobs) = (ids_of(jobs), jobs.to_vec());
        self.call(move || format!("insert {ids:?}"), move |tables| tables.insert(&jobs)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        let ids = ids.to_vec();
        self.call(|| "get".into(), move |tables| Ok(tables.get(&ids))).await
    }

    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        self.call(move || format!("cancel {id}"), move |tables| Ok(tables.cancel(id))).await
    }

    async fn outbox_take(&self, limit: usize) -> Result<Vec<OutboxGroup>, StoreError> {
        self.call(|| "outbox_take".into(), move |tables| Ok(tables.outbox_take(limit))).await
    }

    async fn outbox_published(&self, groups: &[OutboxId], verify_after: Duration) -> Result<(), StoreError> {
        let groups = groups.to_vec();
        let what = groups.clone();
        self.call(
            move || format!("outbox_published {what:?} {verify_after:?}"),
            move |tables| {
                tables.outbox_published(&groups, verify_after);
                Ok(())
            },
        )
        .await
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let ids = ids.to_vec();
        let what = ids.clone();
        let claimed = self.call(
            move || format!("claim by {worker} under {claim} of {what:?}"),
            move |tables| tables.claim(worker, claim, &ids),
        );
        let mut claimed = claimed.await?;
        claimed.iter_mut().for_each(|job| self.line.mark(job));
        Ok(claimed)
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        let (finishes, closed) = (finishes.to_vec(), closed.to_vec());
        let told = (finishes.clone(), closed.clone());
        self.call(
            move || format!("finish by {worker}: {:?} closing {:?}", told.0, told.1),
            move |tables| Ok(tables.finish(worker, &finishes, &closed)),
        )
        .await
    }

    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError> {
        let (id, worker) = (worker.id, worker.clone());
        self.call(
            move || format!("register {id}"),
            move |tables| {
                tables.register(&worker);
                Ok(())
            },
        )
        .await
    }

    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        self.call(move || format!("heartbeat of {worker}"), move |tables| tables.heartbeat(worker)).await
    }

    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.call(
            move || format!("deregister {worker}"),
            move |tables| {
                tables.deregister(worker);
                Ok(())
            },
        )
        .await
    }

    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError> {
        self.call(|| "rescue".into(), move |tables| Ok(tables.rescue(crash_limit))).await
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError> {
        self.call(|| "kinds".into(), |tables| Ok(tables.kinds())).await
    }

    async fn lead(&self, name: &str, holder: WorkerId, ttl: Duration) -> Result<bool, StoreError> {
        let name = name.to_owned();
        self.call(move || format!("lead by {holder}"), move |tables| Ok(tables.lead(&name, holder, ttl)))
            .await
    }

    async fn promote_due(&self, limit: usize) -> Result<usize, StoreError> {
        self.call(|| "promote_due".into(), move |tables| Ok(tables.promote_due(limit))).await
    }

    /// Nothing that is simulated leaves a follow-up.
    async fn follow_up(&self, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn notes(&self) -> &dyn JobNotes {
        &Absent
    }

    fn operations(&self) -> &dyn Operations {
        self
    }

    fn keys(&self) -> &dyn Keys {
        &Absent
    }

    fn quotas(&self) -> &dyn Quotas {
        &Absent
    }

    fn timetable(&self) -> &dyn Timetable {
        self
    }

    fn workflows(&self) -> &dyn Workflows {
        &Absent
    }

    fn webhooks(&self) -> &dyn Webhooks {
        &Absent
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[async_trait]
impl<L: Line> Operations for SimStore<L> {
    /// None is paused.
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        Err(not_simulated("counts of jobs"))
    }

    async fn workers(&self, _: Option<WorkerId>, _: usize) -> Result<Vec<WorkerRecord>, StoreError> {
        Err(not_simulated("the list of workers"))
    }

    async fn pause_queue(&self, _: &QueueName, _: bool) -> Result<(), StoreError> {
        Err(not_simulated("pausing queues"))
    }

    async fn find(&self, _: &JobFilter, _: Option<JobId>, _: usize) -> Result<Found, StoreError> {
        Err(not_simulated("lists of jobs"))
    }

    async fn standing(&self, ids: &[JobId]) -> Result<Vec<Standing>, StoreError> {
        Ok(self.get(ids).await?.iter().map(Standing::from).collect())
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.call(|| "revision".into(), |tables| Ok(tables.revision())).await
    }

    async fn edition(&self) -> Result<Option<Edition>, StoreError> {
        Ok(None)
    }

    async fn system(&self) -> Result<SystemId, StoreError> {
        Ok(SystemId::new("simulated".into()))
    }

    async fn among(&self, _: &JobFilter, _: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        Err(not_simulated("filters"))
    }

    async fn payloads(&self, ids: &[JobId]) -> Result<Vec<(JobId, Box<RawValue>)>, StoreError> {
        let ids = ids.to_vec();
        self.call(|| "payloads".into(), move |tables| Ok(tables.payloads(&ids))).await
    }

    async fn dead(&self, _: &DeadFilter, _: Option<DeadCursor>, _: usize) -> Result<DeadPage, StoreError> {
        Err(not_simulated("the list of dead jobs"))
    }

    async fn cancel_many(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError> {
        let (ids, from) = (ids.to_vec(), from.to_vec());
        self.call(|| "cancel_many".into(), move |tables| Ok(tables.cancel_many(&ids, &from))).await
    }

    async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError> {
        let (ids, from) = (ids.to_vec(), from.to_vec());
        self.call(|| "retry".into(), move |tables| Ok(tables.retry(&ids, &from))).await
    }

    async fn delete(&self, _: &[JobId], _: &[State]) -> Result<Vec<JobId>, StoreError> {
        Err(not_simulated("removing jobs"))
    }

    async fn drain_queue(&self, _: &QueueName) -> Result<(), StoreError> {
        Err(not_simulated("draining queues"))
    }

    async fn limit_queue(&self, _: &QueueName, _: Limit, _: Option<u32>) -> Result<(), StoreError> {
        Err(not_simulated("limits"))
    }

    async fn limits(&self) -> Result<Vec<LimitRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn set_limit(&self, _: &LimitName, _: Limit) -> Result<(), StoreError> {
        Err(not_simulated("limits"))
    }

    async fn remove_limit(&self, _: &LimitName) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// No job waits for a rate.
    async fn next_start(&self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }
}

#[async_trait]
impl<L: Line> Timetable for SimStore<L> {
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn put_schedule(&self, _: &ScheduleDefinition, _: Option<bool>) -> Result<(), StoreError> {
        Err(not_simulated("schedules"))
    }

    async fn delete_schedule(&self, _: &ScheduleName) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn enable_schedule(&self, _: &ScheduleName, _: bool) -> Result<bool, StoreError> {
        Ok(false)
    }

    /// There are none.
    async fn fire_schedules(&self, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn expire(&self, limit: usize) -> Result<usize, StoreError> {
        self.call(|| "expire".into(), move |tables| Ok(tables.expire(limit))).await
    }
}

fn ids_of(jobs: &[NewJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}
