use std::collections::{HashMap, HashSet};

use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{Gating, Idempotency, InsertOutcome, Inserted, LimitKey, NewJob, OutboxId, State};

use crate::{quotas::Decided, template::with_extras, webhooks::Listener};

use super::{
    Commit, SqliteStore, followup::note_followups, ids, micros, quotas::take_places, read, statement,
    timers::INSERT_TIMERS, timestamp, unexpected, unique::resolve_unique, webhooks::listener,
};

/// How long the process that accepted a group has to publish it, before a relay does.
const GRACE_MICROS: i64 = 5_000_000;

/// Extras are for groups with jobs that have what only some have.
const INSERT_JOBS: &str = "
INSERT INTO jobs (id, kind, queue, priority, payload, max_attempts, timeout_ms, labels, trace, created_at, state, run_at{+,
                  expires_at, deadline, version, gated, held, followed, gating+})
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
       value ->> 8, ?2,
       CASE WHEN value ->> 9 > ?2 THEN {scheduled}{+
            WHEN value ->> '$[10][3]' OR value ->> '$[10][4]' THEN {waiting}+} ELSE {queued} END,
       iif(value ->> 9 > ?2, value ->> 9, NULL){+,
       value ->> '$[10][0]', value ->> '$[10][1]', value ->> '$[10][2]', value ->> '$[10][3]', value ->> '$[10][4]',
       value ->> '$[10][5]', value ->> '$[10][6]'+}
FROM json_each(?1) WHERE true
ON CONFLICT (id) DO NOTHING
RETURNING id, state, held";

statement!(INSERT, &with_extras(INSERT_JOBS, true));
statement!(INSERT_PLAIN, &with_extras(INSERT_JOBS, false));
statement!(
    INSERT_DUE,
    "INSERT INTO due (job_id, run_at)
     SELECT id, run_at FROM jobs WHERE id IN (SELECT value FROM json_each(?))
     ON CONFLICT (job_id) DO UPDATE SET run_at = excluded.run_at"
);
statement!(
    TAKE_KEY,
    "INSERT INTO idempotency_keys AS k (key, fingerprint, job_id, expires_at) VALUES (?1, ?2, ?3, ?4)
     ON CONFLICT (key) DO UPDATE
         SET fingerprint = excluded.fingerprint, job_id = excluded.job_id, expires_at = excluded.expires_at
         WHERE k.expires_at <= ?5"
);
statement!(SELECT_KEY, "SELECT fingerprint, job_id FROM idempotency_keys WHERE key = ?");

impl SqliteStore {
    pub(super) async fn insert_group(&self, jobs: &[NewJob]) -> Result<Inserted, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let inserted = try_insert(&mut transaction, jobs, self.now(), GRACE_MICROS, true).await?;
        transaction.commit().await?;
        Ok(inserted)
    }
}

/// As for what others enqueue, but for quotas: jobs that the store itself makes.
pub(super) async fn insert_jobs(
    connection: &mut SqliteConnection,
    jobs: &[NewJob],
    now: i64,
    grace: i64,
) -> Result<Inserted, Error> {
    try_insert(connection, jobs, now, grace, false).await
}

/// Accepts a group in this transaction.
async fn try_insert(
    connection: &mut SqliteConnection,
    jobs: &[NewJob],
    now: i64,
    grace: i64,
    quotas: bool,
) -> Result<Inserted, Error> {
    let at = timestamp(now)?;
    let mut answers = Vec::with_capacity(jobs.len());
    // Who has each key; of several jobs with one key in this group, the first.
    let mut holders: HashMap<&str, (Vec<u8>, String)> = HashMap::new();
    let said = Said::read(connection, jobs).await?;
    for job in jobs {
        answers.push(match said.refusal(job) {
            Some(refusal) if !accepted_before(connection, job, now).await? => Some(refusal),
            _ => taken(connection, &mut holders, job, now).await?,
        });
    }
    let adapted = resolve_unique(connection, jobs, &mut answers, now).await?;
    let jobs = adapted.as_deref().unwrap_or(jobs);
    let new: Vec<&NewJob> =
        jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(job, _)| job).collect();
    let places = if quotas { take_places(connection, &new).await? } else { Decided::default() };
    let new: Vec<&NewJob> = new.into_iter().filter(|job| !places.over.contains(&job.id)).collect();
    let outbox = insert_rows(connection, &new, &said, &places, now, grace).await?;
    for (job, answer) in jobs.iter().zip(&mut answers) {
        if answer.is_none() && places.over.contains(&job.id) {
            *answer = Some(InsertOutcome::OverQuota);
            return_key(connection, job).await?;
        }
    }
    let outcomes = jobs.iter().zip(answers).map(|(job, answer)| {
        answer.unwrap_or_else(|| {
            InsertOutcome::Created(match job.first_state(at) {
                State::Queued if said.limited.contains(job.queue.as_str()) => State::Waiting,
                state => state,
            })
        })
    });
    Ok(Inserted { at, outcomes: outcomes.collect(), outbox })
}

/// Whether the job was accepted before: by an earlier call whose answer was lost, or under its idempotency key. What has
/// been accepted is not refused any more, though a queue or limit has changed since.
async fn accepted_before(connection: &mut SqliteConnection, job: &NewJob, now: i64) -> Result<bool, Error> {
    sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1)
             OR EXISTS (SELECT 1 FROM idempotency_keys WHERE key = ?2 AND expires_at > ?3)",
    )
    .bind(job.id.to_string())
    .bind(job.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()))
    .bind(now)
    .fetch_one(connection)
    .await?
    .try_get(0)
}

/// What has been said of queues, limits and webhooks.
#[derive(Default)]
pub(super) struct Said {
    limited: HashSet<String>,
    draining: HashSet<String>,
    limits: HashSet<String>,
    listeners: Vec<Listener>,
}

impl Said {
    pub(super) async fn read<J: std::borrow::Borrow<NewJob>>(
        connection: &mut SqliteConnection,
        jobs: &[J],
    ) -> Result<Self, Error> {
        let mut said = Self::default();
        // In one, since mostly there is none of either.
        let queues = sqlx::query(
            "SELECT name, limited, draining, NULL, NULL FROM queues WHERE limited OR draining
             UNION ALL
             SELECT id, tenant, events, kinds, queues FROM webhooks WHERE enabled",
        );
        for row in queues.fetch_all(&mut *connection).await? {
            if row.try_get::<Option<&str>, _>(3)?.is_some() {
                said.listeners.push(listener(&row)?);
                continue;
            }
            for (column, queues) in [(1, &mut said.limited), (2, &mut said.draining)] {
                if row.try_get(column)? {
                    queues.insert(row.try_get(0)?);
                }
            }
        }
        if jobs.iter().any(|job| !job.borrow().gating.limits.is_empty()) {
            for row in sqlx::query("SELECT name FROM limits").fetch_all(connection).await? {
                said.limits.insert(row.try_get(0)?);
            }
        }
        Ok(said)
    }

    /// Whether a webhook wants to hear of the job's end.
    fn hears_of(&self, job: &NewJob) -> bool {
        let (kind, queue, tenant) = (job.kind.as_str(), job.queue.as_str(), job.gating.tenant.as_ref());
        self.listeners.iter().any(|listener| listener.hears_of(kind, queue, tenant))
    }

    pub(super) fn refusal(&self, job: &NewJob) -> Option<InsertOutcome> {
        if self.draining.contains(job.queue.as_str()) {
            return Some(InsertOutcome::QueueDraining);
        }
        let unknown = |limit: &LimitKey| !self.limits.contains(limit.name());
        job.gating.limits.iter().position(unknown).map(InsertOutcome::UnknownLimit)
    }
}

/// Takes the job's key if it has one and it is free. `Some`: another job has it.
async fn taken<'a>(
    connection: &mut SqliteConnection,
    holders: &mut HashMap<&'a str, (Vec<u8>, String)>,
    job: &'a NewJob,
    now: i64,
) -> Result<Option<InsertOutcome>, Error> {
    let Some(idempotency) = &job.idempotency else { return Ok(None) };
    if !holders.contains_key(idempotency.key.as_str()) {
        let holder = take_key(connection, idempotency, &job.id.to_string(), now).await?;
        holders.insert(&idempotency.key, holder);
    }
    let Some((fingerprint, holder)) = holders.get(idempotency.key.as_str()) else { return Ok(None) };
    Ok(if *holder == job.id.to_string() {
        None
    } else if *fingerprint == idempotency.fingerprint {
        Some(InsertOutcome::Existing(holder.parse().map_err(|e: windlass_core::InvalidId| unexpected(e))?))
    } else {
        Some(InsertOutcome::KeyReused)
    })
}

/// Takes a key for this id if it is free. Who has it in the end: the fingerprint and the id.
pub(super) async fn take_key(
    connection: &mut SqliteConnection,
    idempotency: &Idempotency,
    id: &str,
    now: i64,
) -> Result<(Vec<u8>, String), Error> {
    sqlx::query(TAKE_KEY.clone())
        .bind(&idempotency.key)
        .bind(idempotency.fingerprint.as_slice())
        .bind(id)
        .bind(now + micros(idempotency.ttl))
        .bind(now)
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query(SELECT_KEY.clone()).bind(&idempotency.key).fetch_one(connection).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Gives back the key of a job that was refused after all.
async fn return_key(connection: &mut SqliteConnection, job: &NewJob) -> Result<(), Error> {
    let Some(idempotency) = &job.idempotency else { return Ok(()) };
    sqlx::query("DELETE FROM idempotency_keys WHERE key = ? AND job_id = ?")
        .bind(&idempotency.key)
        .bind(job.id.to_string())
        .execute(connection)
        .await
        .map(drop)
}

/// Inserts jobs, with an outbox group that is due at `due_at`.
pub(super) async fn insert_rows(
    connection: &mut SqliteConnection,
    jobs: &[&NewJob],
    said: &Said,
    places: &Decided,
    now: i64,
    grace: i64,
) -> Result<Option<OutboxId>, Error> {
    let limited = |job: &NewJob| said.limited.contains(job.queue.as_str());
    let plain = jobs.iter().all(|job| job.is_plain() && !limited(job) && !said.hears_of(job));
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let rare = (!plain).then(|| {
                let gated = job.is_gated() || limited(job);
                // The end of a job that has a place is to be known.
                let counted = places.counted.contains(&job.id);
                let followed = gated || job.is_followed() || counted || said.hears_of(job);
                let gating = (job.gating != Gating::default()).then(|| serde_json::to_string(&job.gating));
                Ok((
                    job.expires_at.map(|at| at.timestamp_micros()),
                    job.deadline.map(|at| at.timestamp_micros()),
                    job.version,
                    u8::from(gated),
                    u8::from(job.has_parents),
                    u8::from(followed),
                    gating.transpose()?,
                ))
            });
            Ok((
                job.id,
                &job.kind,
                &job.queue,
                job.priority,
                job.payload.get(),
                job.max_attempts,
                job.timeout.map(|timeout| micros(timeout) / 1000),
                serde_json::to_string(&job.labels)?,
                job.trace.as_ref().map(|trace| trace.as_str()),
                job.run_at.map(|at| at.timestamp_micros()),
                rare.transpose()?,
            ))
        })
        .collect::<Result<_, serde_json::Error>>()
        .map_err(unexpected)?;
    let rows = serde_json::to_string(&rows).map_err(unexpected)?;
    let insert = if plain { INSERT_PLAIN.clone() } else { INSERT.clone() };
    let created = sqlx::query(insert).bind(rows).bind(now).fetch_all(&mut *connection).await?;
    let (mut queued, mut scheduled, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for row in &created {
        let id: String = row.try_get(0)?;
        match read::state(row.try_get(1)?)? {
            State::Queued => queued.push(id),
            State::Scheduled => scheduled.push(id),
            // Those that wait for parents come to their gates later.
            State::Waiting if !row.try_get::<bool, _>(2)? => waiting.push(id),
            _ => {}
        }
    }
    insert_due(connection, scheduled).await?;
    if jobs.iter().any(|job| job.expires_at.is_some() || job.deadline.is_some()) {
        let created = created.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        sqlx::query(INSERT_TIMERS.clone()).bind(ids(created)).execute(&mut *connection).await?;
    }
    note_followups(connection, waiting).await?;
    insert_outbox(connection, queued, now, now + grace).await
}

/// Notes when these jobs, which are scheduled or retrying, are due.
pub(super) async fn insert_due(connection: &mut SqliteConnection, jobs: Vec<String>) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT_DUE.clone()).bind(ids(jobs)).execute(connection).await.map(drop)
}

/// Adds an outbox group, unless it is empty.
pub(super) async fn insert_outbox(
    connection: &mut SqliteConnection,
    jobs: Vec<String>,
    now: i64,
    due_at: i64,
) -> Result<Option<OutboxId>, Error> {
    if jobs.is_empty() {
        return Ok(None);
    }
    let inserted = sqlx::query("INSERT INTO outbox (created_at, due_at, job_ids) VALUES (?, ?, ?)")
        .bind(now)
        .bind(due_at)
        .bind(ids(jobs))
        .execute(connection)
        .await?;
    Ok(Some(OutboxId(inserted.last_insert_rowid())))
}
