//! The SQLite store: the Postgres store's model for one machine, in one file.

mod attempt;
mod cancel;
mod dead;
mod error;
mod find;
mod followup;
mod gates;
mod insert;
mod keys;
mod leader;
mod maintain;
mod notes;
mod outbox;
mod overview;
mod queues;
mod quotas;
mod read;
mod retention;
mod schedules;
mod standing;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests;
mod timers;
mod unique;
mod webhooks;
mod worker;
mod workflow_add;
mod workflows;

use std::{any::Any, fmt, future::Future, path::Path, time::Duration};

use async_trait::async_trait;
use serde_json::value::RawValue;
use sqlx::{
    ConnectOptions, Connection, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use windlass_core::{
    CancelOutcome, ClaimId, ClaimedJob, DeadCursor, DeadFilter, DeadPage, Edition, Finish, Found,
    HeartbeatReply, Inserted, JobFilter, JobId, JobNotes, JobRecord, Keys, KindInfo, Limit, LimitName,
    LimitRecord, LogCursor, LogRecord, NewJob, NewWorker, Note, Operations, OutboxGroup, OutboxId, QueueName,
    QueueRecord, Quotas, Rescued, Source, Standing, State, Store, StoreError, SystemId, Tally, Timestamp,
    Timetable, Webhooks, WorkerId, WorkerRecord, Workflows,
};

use self::error::{classify, is_locked};
use crate::{Retention, StoreOptions, VirtualClock};

/// A statement, filled in once.
macro_rules! statement {
    ($name:ident, $template:expr) => {
        pub(super) static $name: std::sync::LazyLock<sqlx::SqlStr> =
            std::sync::LazyLock::new(|| crate::template::fill($template, "", ""));
    };
}
pub(crate) use statement;

/// Connections for reading beside the writer.
const READERS: u32 = 4;

/// How many rows a connection is ahead of whoever reads them. Such waiting costs more than the rows.
const ROWS: usize = 1000;

/// Keeps jobs in a SQLite file, for one machine: development, tests, small installations.
///
/// SQLite has one writer at a time, so all writes go through one connection, in the groups that callers form.
#[derive(Clone)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    deadline: Duration,
    clock: Option<VirtualClock>,
    retention: Retention,
    file: std::path::PathBuf,
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy)]
enum Commit {
    /// The disk: it survives the loss of power.
    Durable,
    /// The operating system: it survives the death of the process, and a later durable commit makes it durable too.
    /// For what may be forgotten together with every process of the machine: claims, heartbeats, publishing marks.
    Soft,
}

impl SqliteStore {
    /// Opens the file that `url` (`sqlite:path/to/file.db`) names, making it and its folder where needed.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a URL that names no file, or a file or folder that cannot be made or is not ours.
    pub async fn open(url: &str, options: &StoreOptions) -> Result<Self, StoreError> {
        let config = |problem: String, remedy: &str| StoreError::Config { problem, remedy: remedy.into() };
        let connect: SqliteConnectOptions = url.parse().map_err(|error| {
            config(format!("store_url is not a valid SQLite URL ({error})"), "write sqlite:path/to/file.db")
        })?;
        let file = connect.get_filename().to_owned();
        if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
            return Err(config(
                "store_url names no file, and a store in memory would lose its jobs".into(),
                "write sqlite:path/to/file.db",
            ));
        }
        if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder).map_err(|error| {
                config(
                    format!("store_url: the folder {} cannot be made ({error})", folder.display()),
                    "name a folder that this user may write to",
                )
            })?;
        }
        let connect = connect
            .create_if_missing(true)
            .synchronous(SqliteSynchronous::Full)
            // Less than the deadline, so that nobody waits for the lock any more when the caller has given up.
            .busy_timeout(options.deadline / 2)
            .foreign_keys(true)
            .row_buffer_size(ROWS);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(options.deadline)
                .connect_lazy_with(connect.clone())
        };
        let store = Self {
            writer: pool(1),
            readers: pool(READERS),
            deadline: options.deadline,
            clock: options.clock.clone(),
            retention: options.retention.clone(),
            file,
        };
        store.within(use_wal(&connect)).await?;
        Ok(store)
    }

    /// The store's clock, in microseconds since 1970.
    fn now(&self) -> i64 {
        self.clock.as_ref().map_or_else(chrono::Utc::now, VirtualClock::now).timestamp_micros()
    }

    /// Begins a transaction that takes the write lock at once, so that it never has to give up half-way.
    async fn write(&self, commit: Commit) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        // In one go, so that no other task comes between the setting and the transaction it is for.
        self.writer
            .begin_with(match commit {
                Commit::Durable => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
                Commit::Soft => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            })
            .await
    }

    /// Runs an operation under the deadline.
    async fn within<T>(
        &self,
        operation: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.deadline, operation).await {
            Ok(answer) => answer.map_err(|error| classify(error, &self.file)),
            Err(_) => Err(StoreError::Timeout(self.deadline)),
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Switches the file to WAL mode, in which it stays. That takes a lock for which SQLite does not wait: processes that
/// open a new file at once would fail.
async fn use_wal(connect: &SqliteConnectOptions) -> Result<(), sqlx::Error> {
    loop {
        let connection = connect.clone().journal_mode(SqliteJournalMode::Wal).connect().await;
        match connection {
            Ok(connection) => return connection.close().await,
            Err(error) if is_locked(&error) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => return Err(error),
        }
    }
}

fn unexpected(error: impl Into<Source>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

fn timestamp(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_timestamp_micros(micros).ok_or_else(|| unexpected("a time out of range"))
}

fn micros(duration: Duration) -> i64 {
    // A thousand years are for ever, and stay clear of overflow when added to now.
    const LONGEST: Duration = Duration::from_secs(1000 * 365 * 86_400);
    i64::try_from(duration.min(LONGEST).as_micros()).unwrap_or(i64::MAX / 2)
}

/// Ids as the JSON array that `json_each` reads.
fn ids<T: fmt::Display>(ids: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = ids.into_iter().map(|id| format!("\"{id}\"")).collect();
    format!("[{}]", quoted.join(","))
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.within(self.migrate_schema()).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.within(self.schema_version()).await.and_then(maintain::check)
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
        self.within(self.claim_group(worker, claim, ids)).await?.ok_or(StoreError::WorkerUnknown(worker))
    }

    async fn finish(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, StoreError> {
        self.within(self.finish_group(worker, finishes, closed)).await
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
        while self.within(self.remove_overdue()).await? {}
        Ok(())
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

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[async_trait]
impl JobNotes for SqliteStore {
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
impl Operations for SqliteStore {
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

    /// A file that has been put back from a copy looks like one that never was.
    async fn edition(&self) -> Result<Option<Edition>, StoreError> {
        Ok(None)
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
