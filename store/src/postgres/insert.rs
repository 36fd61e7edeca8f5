use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{Gating, Idempotency, InsertOutcome, Inserted, NewJob, OutboxId, State, Timestamp};

use super::{PostgresStore, finish::seconds, range, unexpected};
use crate::quotas::Decided;

/// How long the process that accepted a group has to publish it, before a relay does.
const GRACE: Duration = Duration::from_secs(5);

/// Accepts a group in one statement: jobs, times of those not due yet, and one outbox row for those queued. A job whose
/// id exists is skipped, so the statement may be repeated. Extras are for groups with jobs that have what only some have.
/// What a webhook wants to hear of is followed; where there is none, nothing is looked at for each job.
/// Answers with the time, the outbox row, the jobs that have to wait, the queues that take no jobs, and with extras whether
/// any of the tenants given has a quota: then nothing was inserted.
pub(super) const INSERT: &str = "
WITH input AS (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::int2[], $5::text[], $6::int4[], $7::int8[],
                         $8::timestamptz[], $9::text[], $10::text[]{+,
                         $12::timestamptz[], $13::timestamptz[], $14::int2[], $15::boolean[], $16::boolean[],
                         $17::text[], $18::boolean[]+})
        AS i (id, kind, queue, priority, payload, max_attempts, timeout_ms, run_at, labels, trace{+,
              expires_at, deadline, version, gated, followed, gating, held+})
), said AS MATERIALIZED (
    SELECT ARRAY(SELECT name FROM {schema}.queues WHERE limited) AS limited,
           ARRAY(SELECT name FROM {schema}.queues WHERE draining) AS draining,
           EXISTS (SELECT FROM {schema}.webhooks WHERE enabled) AS heard{+,
           ARRAY(SELECT tenant FROM {schema}.quotas WHERE tenant = ANY($19::text[])) AS quotas+}
), admissible AS (
    SELECT i.*, {+gated IS TRUE OR +}queue = ANY((SELECT limited FROM said)::text[]) AS waits,
           CASE WHEN (SELECT heard FROM said) THEN EXISTS (
               SELECT FROM {schema}.webhooks w WHERE w.enabled AND i.kind <> 'windlass.webhook'
               AND (w.tenant IS NULL{+ OR w.tenant = i.gating::json ->> 'tenant'+})
               AND (w.kinds = '{}' OR i.kind = ANY(w.kinds)) AND (w.queues = '{}' OR i.queue = ANY(w.queues))
           ) ELSE false END AS heard
    FROM input i WHERE queue <> ALL((SELECT draining FROM said)::text[]){+ AND (SELECT quotas = '{}' FROM said)+}
), created AS (
    INSERT INTO {schema}.jobs AS j
        (id, kind, queue, priority, payload, max_attempts, timeout_ms, labels, trace, created_at, state, run_at,
         gated, followed{+, expires_at, deadline, version, gating, held+})
    SELECT id, kind, queue, priority, payload, max_attempts, timeout_ms, labels::jsonb, trace, {now},
           CASE WHEN run_at > {now} THEN {scheduled} WHEN waits{+ OR held+} THEN {waiting} ELSE {queued} END,
           CASE WHEN run_at > {now} THEN run_at END,
           waits, {+followed IS TRUE OR +}waits OR heard{+, expires_at, deadline, coalesce(version, 1), gating, held IS TRUE+}
    FROM admissible
    ON CONFLICT (id) DO NOTHING
    RETURNING j.id, j.state, j.run_at{+, j.expires_at, j.deadline, j.held+}
), waiting AS (
    INSERT INTO {schema}.due (job_id, run_at)
    SELECT id, run_at FROM created WHERE state = {scheduled}
){+, timed AS (
    INSERT INTO {schema}.timers (job_id, deadline, at)
    SELECT id, t.deadline, t.at
    FROM created c CROSS JOIN LATERAL (VALUES (false, c.expires_at), (true, c.deadline)) AS t (deadline, at)
    WHERE t.at IS NOT NULL
)+}, ledger AS (
    INSERT INTO {schema}.outbox (job_ids, created_at, due_at)
    SELECT array_agg(id), {now}, {now} + make_interval(secs => $11)
    FROM created WHERE state = {queued} HAVING count(*) > 0
    RETURNING id
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM created WHERE state = {waiting}{+ AND NOT held+}
)
SELECT {now}, (SELECT id FROM ledger), (SELECT array_agg(id) FROM created WHERE state = {waiting}),
       (SELECT draining FROM said){+, (SELECT quotas <> '{}' FROM said)+}";

/// Idempotency keys that were taken for jobs which were then refused.
const RETURN_KEYS: &str = "DELETE FROM {schema}.idempotency_keys WHERE key = ANY($1) AND job_id = ANY($2)";

/// Takes idempotency keys, each of them once per statement; those past their time are free. Keys come sorted, so that
/// groups with the same keys cannot wait for each other in a circle.
pub(super) const INSERT_KEYS: &str = "
INSERT INTO {schema}.idempotency_keys AS k (key, fingerprint, job_id, expires_at)
SELECT key, fingerprint, job_id, {now} + make_interval(secs => ttl)
FROM unnest($1::bytea[], $2::bytea[], $3::uuid[], $4::float8[]) AS i (key, fingerprint, job_id, ttl)
ON CONFLICT (key) DO UPDATE
    SET fingerprint = excluded.fingerprint, job_id = excluded.job_id, expires_at = excluded.expires_at
    WHERE k.expires_at <= {now}";

/// Who has the keys now. A statement of its own, so that it sees what concurrent groups have committed.
pub(super) const SELECT_KEYS: &str =
    "SELECT key, fingerprint, job_id FROM {schema}.idempotency_keys WHERE key = ANY($1)";

/// The holder of an idempotency key: a job, or a workflow.
pub(super) struct Holder {
    pub(super) fingerprint: Vec<u8>,
    pub(super) id: Uuid,
}

/// What becomes of jobs whose tenants have quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotas {
    /// They take places, in a transaction.
    Heeded,
    /// They are as any other.
    Ignored,
    /// There are none, it seems. If there are, nothing is inserted.
    NotThere,
}

/// What cannot be: quotas make a group need a transaction, and it has one.
fn always() -> Error {
    unexpected("a group was not accepted in its transaction")
}

/// What the statement answers.
pub(super) struct Written {
    pub(super) at: Timestamp,
    pub(super) outbox: Option<OutboxId>,
    waiting: HashSet<Uuid>,
    draining: Vec<String>,
    /// Whether nothing was inserted, since places under quotas have to be taken before.
    pub(super) quotas: bool,
}

impl Written {
    /// Whether the job was left out, since its queue is being drained.
    pub(super) fn refuses(&self, job: &NewJob) -> bool {
        self.draining.iter().any(|queue| queue == job.queue.as_str())
    }
}

impl PostgresStore {
    pub(super) async fn insert_group(&self, jobs: &[NewJob]) -> Result<Inserted, Error> {
        let keyed = jobs.iter().any(|job| job.idempotency.is_some() || job.unique.is_some());
        if !keyed {
            let mut session = self.statement().await?;
            let inserted = self.try_insert(&mut session, jobs, GRACE, Quotas::NotThere).await?;
            session.commit().await?;
            if let Some(inserted) = inserted {
                return Ok(inserted);
            }
        }
        let mut session = self.transaction().await?;
        let inserted = self.accept_on(&mut session, jobs, GRACE).await?;
        session.commit().await?;
        Ok(inserted)
    }

    /// Accepts in this connection's transaction.
    pub(super) async fn accept_on(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
        grace: Duration,
    ) -> Result<Inserted, Error> {
        self.try_insert(connection, jobs, grace, Quotas::Heeded).await?.ok_or_else(always)
    }

    /// As for what others enqueue, but for quotas: jobs that the store itself makes.
    pub(super) async fn insert_on(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
        grace: Duration,
    ) -> Result<Inserted, Error> {
        self.try_insert(connection, jobs, grace, Quotas::Ignored).await?.ok_or_else(always)
    }

    /// A group with keys of any sort needs a transaction around it. `None`: so do its quotas, and nothing was inserted.
    async fn try_insert(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
        grace: Duration,
        quotas: Quotas,
    ) -> Result<Option<Inserted>, Error> {
        let mut answers = self.refused(connection, jobs).await?;
        let sound = jobs.iter().zip(&answers).filter(|(_, refusal)| refusal.is_none()).map(|(job, _)| job);
        let keyed = sound.filter_map(|job| Some((job.idempotency.as_deref()?, job.id.as_uuid())));
        let holders = self.take_keys(connection, keyed.collect()).await?;
        let held_by_another = |job: &NewJob| -> Option<InsertOutcome> {
            let idempotency = job.idempotency.as_ref()?;
            let holder = holders.get(idempotency.key.as_bytes())?;
            if holder.id == job.id.as_uuid() {
                None
            } else if holder.fingerprint == idempotency.fingerprint {
                Some(InsertOutcome::Existing(holder.id.into()))
            } else {
                Some(InsertOutcome::KeyReused)
            }
        };
        for (job, answer) in jobs.iter().zip(&mut answers) {
            *answer = answer.or_else(|| held_by_another(job));
        }
        let adapted = self.resolve_unique(connection, jobs, &mut answers).await?;
        let jobs = adapted.as_deref().unwrap_or(jobs);
        let new = || jobs.iter().zip(&answers).filter(|(_, answer)| answer.is_none()).map(|(job, _)| job);
        let mut places = Decided::default();
        let written = match quotas {
            Quotas::NotThere => self.insert_rows(connection, new(), grace, None).await?,
            Quotas::Ignored => self.insert_rows(connection, new(), grace, Some(&places)).await?,
            Quotas::Heeded => {
                let (written, decided) =
                    self.insert_counted(connection, &new().collect::<Vec<_>>(), grace).await?;
                places = decided;
                written
            }
        };
        if written.quotas {
            return Ok(None);
        }
        let drained: Vec<&NewJob> = new().filter(|job| written.refuses(job)).collect();
        let before = self.accepted_before(connection, &drained).await?;
        let mut returned = Vec::new();
        let outcomes = jobs.iter().zip(&answers).map(|(job, answer)| match answer {
            Some(answer) => *answer,
            None if places.over.contains(&job.id) => {
                returned.push(job);
                InsertOutcome::OverQuota
            }
            None if written.refuses(job) && !before.contains(&job.id.as_uuid()) => {
                returned.push(job);
                InsertOutcome::QueueDraining
            }
            None if written.waiting.contains(&job.id.as_uuid()) => InsertOutcome::Created(State::Waiting),
            None => InsertOutcome::Created(job.first_state(written.at)),
        });
        let outcomes = outcomes.collect();
        if returned.iter().any(|job| job.idempotency.is_some()) {
            let keys = returned.iter().filter_map(|job| job.idempotency.as_ref());
            self.rare(RETURN_KEYS)
                .bind(keys.map(|idempotency| idempotency.key.as_bytes().to_vec()).collect::<Vec<_>>())
                .bind(returned.iter().map(|job| job.id.as_uuid()).collect::<Vec<_>>())
                .execute(&mut *connection)
                .await?;
        }
        let vacant = returned.iter().filter(|job| places.counted.contains(&job.id));
        self.free_places(connection, vacant.map(|job| job.id.as_uuid()).collect()).await?;
        Ok(Some(Inserted { at: written.at, outcomes, outbox: written.outbox }))
    }

    /// The first of these jobs that names a limit which nobody has defined.
    pub(super) async fn unknown_limit<'a>(
        &self,
        connection: &mut PgConnection,
        jobs: impl Iterator<Item = &'a NewJob>,
    ) -> Result<Option<(usize, InsertOutcome)>, Error> {
        let jobs: Vec<NewJob> = jobs.cloned().collect();
        let refused = self.refused(connection, &jobs).await?;
        Ok(refused.into_iter().enumerate().find_map(|(at, why)| Some((at, why?))))
    }

    /// Who names a limit that nobody has defined. Asked before anything is written.
    async fn refused(
        &self,
        connection: &mut PgConnection,
        jobs: &[NewJob],
    ) -> Result<Vec<Option<InsertOutcome>>, Error> {
        let limits = |job: &NewJob| job.gating.limits.iter().map(|limit| limit.name().to_owned()).collect();
        let names: Vec<String> = jobs.iter().flat_map::<Vec<_>, _>(limits).collect();
        if names.is_empty() {
            return Ok(vec![None; jobs.len()]);
        }
        let query = self.rare("SELECT name FROM {schema}.limits WHERE name = ANY($1)").bind(names);
        let known = query.fetch_all(&mut *connection).await?;
        let known: Vec<String> = known.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let unknown = |job: &NewJob| {
            job.gating.limits.iter().position(|limit| !known.iter().any(|name| name == limit.name()))
        };
        let refused: Vec<&NewJob> = jobs.iter().filter(|job| unknown(job).is_some()).collect();
        let before = self.accepted_before(connection, &refused).await?;
        let refusal = |job: &NewJob| unknown(job).filter(|_| !before.contains(&job.id.as_uuid()));
        Ok(jobs.iter().map(|job| refusal(job).map(InsertOutcome::UnknownLimit)).collect())
    }

    /// Those of these jobs that were accepted before: by an earlier call whose answer was lost, or under their idempotency
    /// key. What has been accepted is not refused any more, though a queue or limit has changed since.
    pub(super) async fn accepted_before(
        &self,
        connection: &mut PgConnection,
        jobs: &[&NewJob],
    ) -> Result<HashSet<Uuid>, Error> {
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.as_uuid()).collect();
        let Some((least, greatest)) = range(&ids) else { return Ok(HashSet::new()) };
        let keyed = || jobs.iter().filter_map(|job| Some((job.idempotency.as_ref()?, job.id.as_uuid())));
        let rows = self
            .rare(
                "SELECT id FROM {schema}.jobs WHERE id = ANY($1) AND id >= $2 AND id <= $3
                 UNION ALL
                 SELECT i.id FROM unnest($4::bytea[], $5::uuid[]) AS i (key, id)
                 JOIN {schema}.idempotency_keys k ON k.key = i.key AND k.job_id <> i.id AND k.expires_at > {now}",
            )
            .bind(ids)
            .bind(least)
            .bind(greatest)
            .bind(keyed().map(|(idempotency, _)| idempotency.key.as_bytes().to_vec()).collect::<Vec<_>>())
            .bind(keyed().map(|(_, id)| id).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    /// Inserts jobs. Without a decision on places, none at all if one of their tenants has a quota.
    pub(super) async fn insert_rows<'a>(
        &self,
        connection: &mut PgConnection,
        jobs: impl Iterator<Item = &'a NewJob> + Clone,
        grace: Duration,
        places: Option<&Decided>,
    ) -> Result<Written, Error> {
        let labels = |job: &NewJob| match job.labels.is_empty() {
            true => Ok("{}".to_owned()),
            false => {
                // A NUL, which jsonb cannot hold, would fail the whole group.
                let text = |text: &String| text.replace('\0', "\u{fffd}");
                let labels = job.labels.iter().map(|(name, value)| (text(name), text(value)));
                serde_json::to_string(&labels.collect::<BTreeMap<_, _>>()).map_err(unexpected)
            }
        };
        let ids: Vec<Uuid> = jobs.clone().map(|job| job.id.as_uuid()).collect();
        let plain = jobs.clone().all(NewJob::is_plain);
        let mut insert = self
            .query(if plain { &self.sql.insert_plain } else { &self.sql.insert })
            .bind(ids)
            .bind(jobs.clone().map(|job| job.kind.as_str()).collect::<Vec<_>>())
            .bind(jobs.clone().map(|job| job.queue.as_str()).collect::<Vec<_>>())
            .bind(jobs.clone().map(|job| job.priority as i16).collect::<Vec<_>>())
            .bind(jobs.clone().map(|job| job.payload.get()).collect::<Vec<_>>())
            .bind(
                jobs.clone()
                    .map(|job| i32::try_from(job.max_attempts).unwrap_or(i32::MAX))
                    .collect::<Vec<_>>(),
            )
            .bind(jobs.clone().map(|job| job.timeout.map(millis)).collect::<Vec<_>>())
            .bind(jobs.clone().map(|job| job.run_at.map(within_calendar)).collect::<Vec<_>>())
            .bind(jobs.clone().map(labels).collect::<Result<Vec<_>, _>>()?)
            .bind(jobs.clone().map(|job| job.trace.as_ref().map(|t| t.as_str())).collect::<Vec<_>>())
            .bind(grace.as_secs_f64());
        if !plain {
            let gating = |job: &NewJob| match job.gating == Gating::default() {
                true => Ok(None),
                false => serde_json::to_string(&job.gating).map(Some).map_err(unexpected),
            };
            // The end of a job that has a place is to be known.
            let followed = |job: &NewJob| {
                job.is_followed() || places.is_some_and(|places| places.counted.contains(&job.id))
            };
            let tenants =
                jobs.clone().filter_map(|job| job.gating.tenant.as_ref()).filter(|_| places.is_none());
            insert = insert
                .bind(jobs.clone().map(|job| job.expires_at.map(within_calendar)).collect::<Vec<_>>())
                .bind(jobs.clone().map(|job| job.deadline.map(within_calendar)).collect::<Vec<_>>())
                .bind(
                    jobs.clone()
                        .map(|job| i16::try_from(job.version).unwrap_or(i16::MAX))
                        .collect::<Vec<_>>(),
                )
                .bind(jobs.clone().map(NewJob::is_gated).collect::<Vec<_>>())
                .bind(jobs.clone().map(followed).collect::<Vec<_>>())
                .bind(jobs.clone().map(gating).collect::<Result<Vec<_>, _>>()?)
                .bind(jobs.clone().map(|job| job.has_parents).collect::<Vec<_>>())
                .bind(tenants.map(|tenant| tenant.as_str().to_owned()).collect::<Vec<_>>());
        }
        let row = insert.fetch_one(connection).await?;
        Ok(Written {
            at: row.try_get(0)?,
            outbox: row.try_get::<Option<i64>, _>(1)?.map(OutboxId),
            waiting: row.try_get::<Option<Vec<Uuid>>, _>(2)?.unwrap_or_default().into_iter().collect(),
            draining: row.try_get(3)?,
            quotas: !plain && row.try_get(4)?,
        })
    }

    /// Takes these keys for these ids where they are free, and answers who holds each in the end.
    pub(super) async fn take_keys(
        &self,
        connection: &mut PgConnection,
        mut keyed: Vec<(&Idempotency, Uuid)>,
    ) -> Result<HashMap<Vec<u8>, Holder>, Error> {
        if keyed.is_empty() {
            return Ok(HashMap::new());
        }
        // Stable: of several jobs with one key in this group, the first has it.
        keyed.sort_by(|a, b| a.0.key.cmp(&b.0.key));
        keyed.dedup_by(|later, first| later.0.key == first.0.key);
        let keys: Vec<&[u8]> = keyed.iter().map(|(idempotency, _)| idempotency.key.as_bytes()).collect();
        self.query(&self.sql.insert_keys)
            .bind(keys.clone())
            .bind(keyed.iter().map(|(i, _)| i.fingerprint.as_slice()).collect::<Vec<_>>())
            .bind(keyed.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .bind(keyed.iter().map(|(i, _)| seconds(i.ttl)).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        let rows = self.query(&self.sql.select_keys).bind(keys).fetch_all(connection).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, Holder { fingerprint: row.try_get(1)?, id: row.try_get(2)? })))
            .collect()
    }
}

/// Postgres' calendar does not begin as early as ours; whatever is past means at once.
fn within_calendar(run_at: Timestamp) -> Timestamp {
    run_at.max(Timestamp::UNIX_EPOCH)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
