use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde_json::value::RawValue;
use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{ClaimId, ClaimedJob, Finish, JobId, Kind, Outcome, QueueName, State, Tenant, WorkerId};

use super::{
    Commit, SqliteStore,
    followup::{bury, note_followups},
    ids,
    insert::{insert_due, insert_outbox},
    micros, read, statement, timestamp, unexpected,
};
/// In as few columns as can be, since each costs an allocation on its way out of SQLite.
const CLAIMED: &str =
    "payload, json_array(id, attempt, uncounted, max_attempts, kind, queue, priority, timeout_ms, created_at,
     json(labels), trace, version, deadline - ?3, followed, gating ->> 'tenant')";

statement!(
    CLAIM,
    &format!(
        "UPDATE jobs SET state = {{to:claim}}, attempt = attempt + 1, worker_id = ?2, started_at = ?3
         WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ({{from:claim}})
           AND (expires_at IS NULL OR expires_at > ?3 OR attempt > uncounted)
           AND (deadline IS NULL OR deadline > ?3)
           AND NOT EXISTS (SELECT 1 FROM queues q WHERE q.name = jobs.queue AND (q.paused OR q.limited AND NOT jobs.gated))
           AND (NOT gated OR EXISTS (SELECT 1 FROM gated g WHERE g.job_id = jobs.id AND g.admitted))
         RETURNING {CLAIMED}"
    )
);
statement!(
    // Jobs that were not claimed since they have not been through their gates are to be held. And jobs of a
    // fair queue that run are no longer on their way, which lets another tenant's jobs set out.
    NOTE_CLAIM,
    "INSERT INTO followups (job_id)
     SELECT j.id FROM json_each(?) i CROSS JOIN jobs j ON j.id = i.value LEFT JOIN queues q ON q.name = j.queue
     WHERE j.state = {running} AND j.followed AND q.fair_window IS NOT NULL
        OR j.state = {queued}
           AND iif(j.gated, NOT EXISTS (SELECT 1 FROM gated g WHERE g.job_id = j.id AND g.admitted), q.limited)"
);
statement!(
    // Jobs of paused queues that have lost their message: they are published again when the queue is resumed.
    NOTE_PAUSED,
    "INSERT INTO outbox (created_at, due_at, job_ids)
     SELECT ?2, ?2 + 60000000, json_group_array(j.id)
     FROM json_each(?1) i CROSS JOIN jobs j ON j.id = i.value JOIN queues q ON q.name = j.queue
     WHERE q.paused AND j.state = {queued} HAVING count(*) > 0"
);
statement!(
    CLAIMED_BEFORE,
    &format!(
        "SELECT {CLAIMED} FROM jobs
         WHERE id IN (SELECT value FROM json_each((SELECT job_ids FROM claims WHERE id = ?1 AND worker_id = ?2)))
           AND state = {{running}} AND worker_id = ?2"
    )
);
statement!(
    // The list has no index that could be searched, so it comes first and each job is found by its key.
    FINISH,
    "WITH input AS MATERIALIZED (
         SELECT value ->> 0 AS id, value ->> 1 AS fence, value ->> 2 AS target, value ->> 3 AS uncounted,
                value ->> 4 AS run_at, value ->> 5 AS result
         FROM json_each(?1)
     )
     UPDATE jobs
     SET state = iif(cancel_requested AND i.target NOT IN ({succeeded}, {dead}), {to:abort}, i.target),
         uncounted = jobs.uncounted + i.uncounted,
         run_at = iif(cancel_requested, NULL, i.run_at),
         finished_at = iif(cancel_requested OR i.target IN ({succeeded}, {cancelled}, {dead}), ?2, NULL),
         result = i.result
     FROM input i
     WHERE jobs.id = i.id AND jobs.attempt = i.fence AND jobs.state = {running}
     RETURNING json_array(id, state, cancel_requested, followed, result IS NOT NULL)"
);
statement!(
    INSERT_ERRORS,
    "INSERT INTO job_errors (job_id, fence, attempt, at, worker, message)
     SELECT j.id, j.attempt, j.attempt - j.uncounted, ?2, coalesce((SELECT label FROM workers WHERE id = ?3), ?3),
            i.value ->> 1
     FROM json_each(?1) i CROSS JOIN jobs j ON j.id = i.value ->> 0"
);

impl SqliteStore {
    /// `None`: the worker is unknown.
    pub(super) async fn claim_group(
        &self,
        worker: WorkerId,
        claim: ClaimId,
        wanted: &[JobId],
    ) -> Result<Option<Vec<ClaimedJob>>, Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let known = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM workers WHERE id = ?1), EXISTS (SELECT 1 FROM claims WHERE id = ?2)",
        )
        .bind(worker.to_string())
        .bind(claim.to_string())
        .fetch_one(&mut *transaction)
        .await?;
        if !known.try_get::<bool, _>(0)? {
            return Ok(None);
        }
        if known.try_get(1)? {
            let before = sqlx::query(CLAIMED_BEFORE.clone())
                .bind(claim.to_string())
                .bind(worker.to_string())
                .bind(self.now())
                .fetch_all(&mut *transaction)
                .await?;
            return before.iter().map(claimed_job).collect::<Result<_, _>>().map(Some);
        }
        let rows = sqlx::query(CLAIM.clone())
            .bind(ids(wanted))
            .bind(worker.to_string())
            .bind(self.now())
            .fetch_all(&mut *transaction)
            .await?;
        let jobs: Vec<ClaimedJob> = rows.iter().map(claimed_job).collect::<Result<_, _>>()?;
        if jobs.len() < wanted.len() || jobs.iter().any(|job| job.followed) {
            sqlx::query(NOTE_CLAIM.clone()).bind(ids(wanted)).execute(&mut *transaction).await?;
        }
        if jobs.len() < wanted.len() {
            sqlx::query(NOTE_PAUSED.clone())
                .bind(ids(wanted))
                .bind(self.now())
                .execute(&mut *transaction)
                .await?;
        }
        if !jobs.is_empty() {
            sqlx::query("INSERT INTO claims (id, worker_id, job_ids) VALUES (?, ?, ?)")
                .bind(claim.to_string())
                .bind(worker.to_string())
                .bind(ids(jobs.iter().map(|job| job.id)))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok(Some(jobs))
    }

    pub(super) async fn finish_group(
        &self,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let now = self.now();
        let done = record(&mut transaction, finishes, now).await?;
        let messages: HashMap<String, String> = finishes
            .iter()
            .filter_map(|finish| Some((finish.id.to_string(), error(&finish.outcome)?)))
            .collect();
        let failed = done.recorded.iter().filter_map(|id| Some((id, messages.get(id)?)));
        insert_errors(&mut transaction, worker, &failed.collect::<Vec<_>>(), now).await?;
        insert_due(&mut transaction, done.waiting).await?;
        insert_outbox(&mut transaction, done.released, now, now).await?;
        bury(&mut transaction, done.dead, now).await?;
        note_followups(&mut transaction, done.followed).await?;
        if !done.expiring.is_empty() {
            sqlx::query(
                "INSERT INTO expiring_results (job_id, expires_at)
                 SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true
                 ON CONFLICT (job_id) DO UPDATE SET expires_at = excluded.expires_at",
            )
            .bind(serde_json::to_string(&done.expiring).map_err(unexpected)?)
            .execute(&mut *transaction)
            .await?;
        }
        if !done.settled.is_empty() {
            sqlx::query("DELETE FROM cancellations WHERE job_id IN (SELECT value FROM json_each(?))")
                .bind(ids(done.settled))
                .execute(&mut *transaction)
                .await?;
        }
        if !closed.is_empty() {
            sqlx::query("DELETE FROM claims WHERE id IN (SELECT value FROM json_each(?))")
                .bind(ids(closed))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        done.recorded.iter().map(|id| read::id(id)).collect()
    }
}

/// The jobs whose outcomes were recorded, and what those leave to do.
#[derive(Default)]
struct Done {
    recorded: Vec<String>,
    released: Vec<String>,
    waiting: Vec<String>,
    dead: Vec<String>,
    followed: Vec<String>,
    /// Those whose result is not kept as long as they are, and until when.
    expiring: Vec<(String, i64)>,
    /// Those that someone wanted cancelled.
    settled: Vec<String>,
}

/// Records each outcome under its fence.
async fn record(connection: &mut SqliteConnection, finishes: &[Finish], now: i64) -> Result<Done, Error> {
    let mut done = Done::default();
    let input: Vec<_> = finishes
        .iter()
        .map(|Finish { id, fence, outcome }| {
            let (after, result) = match outcome {
                Outcome::Succeeded { result, .. } => (None, result.as_deref().map(|result| result.get())),
                Outcome::Retry { after, .. } | Outcome::Snoozed { after } => (Some(*after), None),
                Outcome::Dead { .. } | Outcome::Cancelled | Outcome::Released => (None, None),
            };
            let target = outcome.event().target().map(State::code);
            (id, fence, target, u8::from(!outcome.counts()), after.map(|after| now + micros(after)), result)
        })
        .collect();
    let input = serde_json::to_string(&input).map_err(unexpected)?;
    let keep: HashMap<String, i64> = finishes
        .iter()
        .filter_map(|finish| match finish.outcome {
            Outcome::Succeeded { keep, .. } => Some((finish.id.to_string(), now + micros(keep?))),
            _ => None,
        })
        .collect();
    let rows = sqlx::query(FINISH.clone()).bind(input).bind(now).fetch_all(connection).await?;
    for row in &rows {
        let (id, state, cancel_requested, followed, has_result): (String, i16, u8, u8, u8) =
            serde_json::from_str(row.try_get(0)?).map_err(unexpected)?;
        let state = read::state(state)?;
        match state {
            State::Queued => done.released.push(id.clone()),
            State::Scheduled | State::Retrying => done.waiting.push(id.clone()),
            State::Dead => done.dead.push(id.clone()),
            _ => {}
        }
        if state != State::Queued && followed != 0 {
            done.followed.push(id.clone());
        }
        if has_result != 0
            && let Some(until) = keep.get(&id)
        {
            done.expiring.push((id.clone(), *until));
        }
        if cancel_requested != 0 {
            done.settled.push(id.clone());
        }
        done.recorded.push(id);
    }
    Ok(done)
}

/// A NUL would end the text on its way through JSON.
fn error(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error.replace('\0', "\u{fffd}")),
        _ => None,
    }
}

/// Keeps what went wrong in the newest attempts of these jobs, under the label of their worker.
pub(super) async fn insert_errors(
    connection: &mut SqliteConnection,
    worker: WorkerId,
    failed: &[(&String, &String)],
    now: i64,
) -> Result<(), Error> {
    if failed.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_ERRORS.clone())
        .bind(serde_json::to_string(failed).map_err(unexpected)?)
        .bind(now)
        .bind(worker.to_string())
        .execute(connection)
        .await
        .map(drop)
}

/// What [`CLAIMED`] says beside the payload.
type Claimed = (
    JobId,
    u32,
    u32,
    u32,
    Kind,
    QueueName,
    u8,
    Option<i64>,
    i64,
    BTreeMap<String, String>,
    Option<String>,
    u16,
    Option<i64>,
    u8,
    Option<Tenant>,
);

fn claimed_job(row: &SqliteRow) -> Result<ClaimedJob, Error> {
    let claimed: Claimed = serde_json::from_str(row.try_get(1)?).map_err(unexpected)?;
    let (id, fence, uncounted, max_attempts, kind, queue, priority, timeout, created_at, ..) = claimed;
    let (.., labels, trace, version, time_left, followed, tenant) = claimed;
    Ok(ClaimedJob {
        id,
        fence,
        attempt: fence.saturating_sub(uncounted),
        max_attempts,
        kind,
        queue,
        priority: read::priority(priority)?,
        payload: RawValue::from_string(row.try_get(0)?).map_err(unexpected)?,
        timeout: timeout.map(|ms| Duration::from_millis(ms.max(0).unsigned_abs())),
        created_at: timestamp(created_at)?,
        labels,
        trace: trace.and_then(|trace| trace.parse().ok()),
        version,
        time_left: time_left.map(|left| Duration::from_micros(left.max(0).unsigned_abs())),
        followed: followed != 0,
        tenant,
    })
}
