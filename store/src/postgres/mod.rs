//! The Postgres store. Each file holds the statements of one group of operations, with the plan they must keep.

mod cancel;
mod claim;
mod connections;
mod dead;
mod error;
mod find;
mod finish;
mod followup;
mod gates;
mod insert;
mod keys;
mod leader;
mod maintain;
mod migrate;
mod notes;
mod outbox;
mod overview;
#[cfg(test)]
mod plans;
mod queues;
mod quotas;
mod read;
mod replicas;
mod retention;
mod schedules;
mod session;
mod standing;
#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
mod support;
mod timers;
mod unique;
mod webhooks;
mod worker;
mod workflow_add;
mod workflows;

use std::{any::Any, fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::{
    Postgres, Row, SqlStr,
    postgres::{PgArguments, PgConnection, PgRow},
    query::Query,
    raw_sql,
};
use uuid::Uuid;
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, DeadCursor, DeadFilter, DeadPage, Edition, Finish, Found,
    HeartbeatReply, Inserted, JobFilter, JobId, JobNotes, JobRecord, Keys, KindInfo, Limit, LimitName,
    LimitRecord, LogCursor, LogRecord, NewJob, NewWorker, Note, Operations, OutboxGroup, OutboxId, Priority,
    QueueName, QueueRecord, Quotas, Rescued, Standing, State, Store, StoreError, SystemId, Tally, Timetable,
    Webhooks, WorkerId, WorkerRecord, Workflows,
};

pub use self::session::PostgresTransaction;
use self::{
    connections::Connections,
    error::{classify, unexpected},
    replicas::Replicas,
};
use crate::{
    Retention, StoreOptions, VirtualClock,
    template::{fill, with_extras},
};

/// How long the search for what may go may take.
const RETENTION_DEADLINE: Duration = Duration::from_secs(600);

/// How long a migration may take, which may have to wait for another process that migrates.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(600);

/// Keeps jobs in Postgres 14 or newer, in a schema of its own.
///
/// No statement relies on session state, so it works behind a pooler in transaction mode. One without support for
/// prepared statements (PgBouncer before 1.21) needs `?statement-cache-capacity=0` in the URL.
#[derive(Clone)]
pub struct PostgresStore {
    connections: Connections,
    schema: String,
    deadline: Duration,
    clock: Option<VirtualClock>,
    retention: Retention,
    sql: Arc<Statements>,
    replicas: Option<Arc<Replicas>>,
}

/// The statements, filled in once.
struct Statements {
    begin: SqlStr,
    hurry: SqlStr,
    insert: SqlStr,
    insert_plain: SqlStr,
    insert_keys: SqlStr,
    select_keys: SqlStr,
    claim: SqlStr,
    claimed_before: SqlStr,
    finish: SqlStr,
    finish_plain: SqlStr,
    get: SqlStr,
    payloads: SqlStr,
    cancel: SqlStr,
    outbox_take: SqlStr,
    outbox_published: SqlStr,
    promote_due: SqlStr,
    heartbeat: SqlStr,
    rescue: SqlStr,
}

impl Statements {
    fn new(deadline: Duration, fill: impl Fn(&str) -> SqlStr) -> Self {
        let hurry = PostgresStore::hurry(deadline);
        Self {
            begin: fill(&format!("BEGIN; {hurry}")),
            hurry: fill(&hurry),
            insert: fill(&with_extras(insert::INSERT, true)),
            insert_plain: fill(&with_extras(insert::INSERT, false)),
            insert_keys: fill(insert::INSERT_KEYS),
            select_keys: fill(insert::SELECT_KEYS),
            claim: fill(claim::CLAIM),
            claimed_before: fill(claim::CLAIMED_BEFORE),
            finish: fill(finish::FINISH),
            finish_plain: fill(finish::FINISH_PLAIN),
            get: fill(read::GET),
            payloads: fill(read::PAYLOADS),
            cancel: fill(read::CANCEL),
            outbox_take: fill(outbox::TAKE),
            outbox_published: fill(outbox::PUBLISHED),
            promote_due: fill(outbox::PROMOTE_DUE),
            heartbeat: fill(worker::HEARTBEAT),
            rescue: fill(worker::RESCUE),
        }
    }
}

impl PostgresStore {
    /// Opens the store at `url` without connecting yet.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a malformed URL or schema name.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let schema = options.schema.clone();
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let starts_well = schema.bytes().next().is_some_and(|b| !b.is_ascii_digit());
        if !starts_well || schema.len() > 48 || !schema.bytes().all(letter) {
            return Err(StoreError::Config {
                problem: "store_schema is not a valid schema name".into(),
                remedy: "use 1 to 48 lower-case letters, digits and '_', not starting with a digit".into(),
            });
        }
        let (connections, _) = Connections::open(url, "store_url", options)?;
        let now = now(options.clock.is_some());
        let sql = Statements::new(options.deadline, |template| fill(template, &schema, now)).into();
        let mut store = Self {
            connections,
            schema,
            deadline: options.deadline,
            clock: options.clock.clone(),
            retention: options.retention.clone(),
            sql,
            replicas: None,
        };
        let replica = |url: &String| {
            let (connections, name) = Connections::open(url, "store_replica_urls", options)?;
            // So that the primary can still be asked when it does not answer, and a virtual clock is not set through it.
            let deadline = options.deadline / 4;
            Ok((name, Self { connections, deadline, clock: None, ..store.clone() }))
        };
        let replicas = options.replicas.iter().map(replica).collect::<Result<_, StoreError>>()?;
        store.replicas = Replicas::start(store.connections.clone(), replicas, options.replica_max_lag);
        Ok(store)
    }

    /// Accepts jobs in the caller's transaction. Their outbox group is due as soon as that commits.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn insert_in(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
    ) -> Result<Inserted, StoreError> {
        self.within(self.accept_on(connection, jobs, Duration::ZERO)).await
    }

    /// Records an outcome in the caller's transaction. `false`: the lease is lost, and the transaction must not
    /// commit. Commit at once: the server ends the transaction if nothing comes for longer than an operation may
    /// take.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn finish_in(
        &self,
        connection: &mut PgConnection,
        worker: WorkerId,
        finish: &Finish,
    ) -> Result<bool, StoreError> {
        let recorded = async {
            // The job's row is locked from here on.
            raw_sql(self.sql.hurry.clone()).execute(&mut *connection).await?;
            self.finish_on(connection, worker, std::slice::from_ref(finish), &[]).await
        };
        Ok(!self.within(recorded).await?.is_empty())
    }

    /// Runs an operation under the deadline.
    async fn within<T>(
        &self,
        operation: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        within(self.deadline, operation).await
    }

    /// A hot statement.
    fn query(&self, sql: &SqlStr) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(sql.clone()).persistent(self.connections.persistent)
    }

    /// A statement rare enough to be filled in at each use.
    fn rare(&self, template: &str) -> Query<'static, Postgres, PgArguments> {
        self.query(&self.fill(template))
    }

    fn fill(&self, template: &str) -> SqlStr {
        fill(template, &self.schema, now(self.clock.is_some()))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pool, whose options hold the password.
        f.debug_struct("PostgresStore").field("schema", &self.schema).finish_non_exhaustive()
    }
}

async fn within<T>(
    deadline: Duration,
    operation: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, operation).await {
        Ok(answer) => answer.map_err(classify),
        Err(_) => Err(StoreError::Timeout(deadline)),
    }
}

/// What tells the time in a statement. The function is made by the migration, for tests only.
const fn now(virtual_clock: bool) -> &'static str {
    if virtual_clock { "{schema}.now()" } else { "now()" }
}

fn priority(row: &PgRow, column: usize) -> Result<Priority, sqlx::Error> {
    let number = u8::try_from(row.try_get::<i16, _>(column)?).map_err(unexpected)?;
    Priority::try_from(number).map_err(unexpected)
}

/// The least and greatest of `ids`, which let a statement prune partitions. `None` for none.
fn range(ids: &[Uuid]) -> Option<(Uuid, Uuid)> {
    Some((*ids.iter().min()?, *ids.iter().max()?))
}

#[async_trait]
impl Store for PostgresStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        within(MIGRATION_DEADLINE, self.migrate_schema()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.within(self.schema_version()).await.and_then(migrate::check)
    }

    async fn insert(&self, jobs: &[NewJob]) -> Result<Inserted, StoreError> {
        self.within(self.insert_group(jobs)).await
    }

    async fn get(&self, ids: &[JobId]) -> Result<Vec<JobRecord>, StoreError> {
        self.within(self.select_jobs(ids)).await
    }

    async fn cancel(&self, id: JobId) -> Result<CancelOutcome, StoreError> {
        self.within(self.cancel_job(id)).await
    }

    async fn outbox_take(&self, limit: usize) -> Result<Vec<OutboxGroup>, StoreError> {
        self.within(self.take_groups(limit)).await
    }

    async fn outbox_published(&self, groups: &[OutboxId], verify_after: Duration) -> Result<(), StoreError> {
        self.within(self.mark_published(groups, verify_after)).await
    }

    async fn claim(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        ids: &[JobId],
    ) -> Result<Vec<ClaimedJob>, StoreError> {
        let claimed = tokio::time::timeout(self.deadline, self.claim_group(worker, claim, ids)).await;
        claimed.unwrap_or(Err(StoreError::Timeout(self.deadline)))
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let recorded = self.finish_on(&mut session, worker, finishes, closed).await?;
            session.commit().await?;
            Ok(recorded)
        })
        .await
    }

    async fn register(&self, worker: &NewWorker) -> Result<(), StoreError> {
        self.within(self.insert_worker(worker)).await
    }

    async fn heartbeat(&self, worker: WorkerId) -> Result<HeartbeatReply, StoreError> {
        self.within(self.beat(worker)).await?.ok_or(StoreError::WorkerUnknown(worker))
    }

    async fn deregister(&self, worker: WorkerId) -> Result<(), StoreError> {
        self.within(self.delete_worker(worker)).await
    }

    async fn rescue(&self, crash_limit: u32) -> Result<Rescued, StoreError> {
        self.within(self.rescue_jobs(crash_limit)).await
    }

    async fn kinds(&self) -> Result<Vec<KindInfo>, StoreError> {
        self.within(self.select_kinds()).await
    }

    async fn lead(&self, name: &str, holder: WorkerId, ttl: Duration) -> Result<bool, StoreError> {
        self.within(self.take_lease(name, holder, ttl)).await
    }

    async fn promote_due(&self, limit: usize) -> Result<usize, StoreError> {
        self.within(self.promote(limit)).await
    }

    async fn follow_up(&self, limit: usize) -> Result<usize, StoreError> {
        self.within(self.follow_up_jobs(limit)).await
    }

    async fn maintain(&self) -> Result<(), StoreError> {
        self.within(self.keep_house()).await?;
        while self.within(self.forget_results()).await? {}
        within(RETENTION_DEADLINE, self.retain()).await
    }

    fn notes(&self) -> &dyn JobNotes {
        self
    }

    fn operations(&self) -> &dyn Operations {
        self
    }

    fn keys(&self) -> &dyn Keys {
        self
    }

    fn quotas(&self) -> &dyn Quotas {
        self
    }

    fn timetable(&self) -> &dyn Timetable {
        self
    }

    fn workflows(&self) -> &dyn Workflows {
        self
    }

    fn webhooks(&self) -> &dyn Webhooks {
        self
    }

    fn replica(&self) -> Option<Arc<dyn Store>> {
        Some(self.replicas.as_ref()?.pick()?)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[async_trait]
impl JobNotes for PostgresStore {
    async fn note(&self, notes: &[Note]) -> Result<(), StoreError> {
        self.within(self.keep_notes(notes)).await
    }

    async fn logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, StoreError> {
        self.within(self.select_logs(id, after, limit)).await
    }

    async fn checkpoint(&self, id: JobId, fence: u32, value: &RawValue) -> Result<bool, StoreError> {
        self.within(self.keep_checkpoint(id, fence, value)).await
    }

    async fn last_checkpoint(&self, id: JobId) -> Result<Option<Box<RawValue>>, StoreError> {
        self.within(self.select_checkpoint(id)).await
    }
}

#[async_trait]
impl Operations for PostgresStore {
    async fn queues(&self) -> Result<Vec<QueueRecord>, StoreError> {
        self.within(self.select_queues()).await
    }

    async fn tally(&self) -> Result<Tally, StoreError> {
        self.within(self.count_jobs()).await
    }

    async fn workers(&self, before: Option<WorkerId>, limit: usize) -> Result<Vec<WorkerRecord>, StoreError> {
        self.within(self.select_workers(before, limit)).await
    }

    async fn pause_queue(&self, queue: &QueueName, paused: bool) -> Result<(), StoreError> {
        self.within(self.set_paused(queue, paused)).await
    }

    async fn find(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Found, StoreError> {
        self.within(self.find_jobs(filter, before, limit)).await
    }

    async fn standing(&self, ids: &[JobId]) -> Result<Vec<Standing>, StoreError> {
        self.within(self.select_standing(ids)).await
    }

    async fn revision(&self) -> Result<u64, StoreError> {
        self.within(self.select_revision()).await
    }

    async fn edition(&self) -> Result<Option<Edition>, StoreError> {
        self.within(self.select_edition()).await.map(Some)
    }

    async fn system(&self) -> Result<SystemId, StoreError> {
        self.within(self.select_system()).await
    }

    async fn among(&self, filter: &JobFilter, ids: &[JobId]) -> Result<Vec<JobId>, StoreError> {
        self.within(self.fitting_jobs(filter, ids)).await
    }

    async fn payloads(&self, ids: &[JobId]) -> Result<Vec<(JobId, Box<RawValue>)>, StoreError> {
        self.within(self.select_payloads(ids)).await
    }

    async fn dead(
        &self,
        filter: &DeadFilter,
        after: Option<DeadCursor>,
        limit: usize,
    ) -> Result<DeadPage, StoreError> {
        self.within(self.select_dead(filter, after, limit)).await
    }

    async fn cancel_many(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError> {
        self.within(self.cancel_jobs(ids, from)).await
    }

    async fn retry(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError> {
        self.within(self.retry_jobs(ids, from)).await
    }

    async fn delete(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, StoreError> {
        self.within(self.delete_jobs(ids, from)).await
    }

    async fn drain_queue(&self, queue: &QueueName) -> Result<(), StoreError> {
        self.within(self.set_draining(queue)).await
    }

    async fn limit_queue(
        &self,
        queue: &QueueName,
        limit: Limit,
        window: Option<u32>,
    ) -> Result<(), StoreError> {
        self.within(self.set_queue_limit(queue, limit, window)).await
    }

    async fn limits(&self) -> Result<Vec<LimitRecord>, StoreError> {
        self.within(self.select_limits()).await
    }

    async fn set_limit(&self, name: &LimitName, limit: Limit) -> Result<(), StoreError> {
        self.within(self.upsert_limit(name, limit)).await
    }

    async fn remove_limit(&self, name: &LimitName) -> Result<bool, StoreError> {
        self.within(self.delete_limit(name)).await
    }

    async fn next_start(&self) -> Result<Option<Duration>, StoreError> {
        self.within(self.select_next_start()).await
    }
}
