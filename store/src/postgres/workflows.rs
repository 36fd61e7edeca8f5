use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use sqlx::{Error, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{
    Added, InsertOutcome, JobId, JobName, NewJob, NewWorkflow, State, StoreError, UnknownState, WorkflowId,
    WorkflowJob, WorkflowLimits, WorkflowOutcome, WorkflowRecord, Workflows,
};

use super::{PostgresStore, range, unexpected};
use crate::workflow::{Resolved, named, reason, tally, tenant};

/// Lets go the children that have a null for a reason, and calls off the others. Only those that still wait for parents:
/// what has been let go before is left alone, so a repeat does nothing. One update in the order of the ids, so that it
/// cannot cross with another. A child called off gets a fence of its own for the error record.
///
/// Plan: as for a finish.
pub(super) const SETTLE: &str = "
WITH input AS (
    SELECT * FROM ROWS FROM (unnest($1::uuid[], $2::text[]), generate_series(1, cardinality($1::uuid[])))
        AS i (id, reason, place)
), changed AS (
    UPDATE {schema}.jobs j
    SET state = CASE WHEN i.reason IS NOT NULL THEN {to:cancel} WHEN j.state IN ({from:admit}) AND NOT j.gated THEN {to:admit} ELSE j.state END,
        held = false,
        attempt = j.attempt + CASE WHEN i.reason IS NULL THEN 0 ELSE 1 END,
        uncounted = j.uncounted + CASE WHEN i.reason IS NULL THEN 0 ELSE 1 END,
        run_at = CASE WHEN i.reason IS NULL THEN j.run_at END,
        finished_at = CASE WHEN i.reason IS NOT NULL THEN {now} END
    FROM input i
    WHERE j.id = ANY($1::uuid[]) AND j.id >= $3 AND j.id <= $4
    AND j.id = i.id AND j.state IN ({scheduled}, {waiting}) AND j.held
    RETURNING j.id, j.state, j.attempt, j.uncounted, j.followed, i.reason
), queued AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM changed WHERE state = {queued} HAVING count(*) > 0
), noted AS (
    INSERT INTO {schema}.job_errors (job_id, fence, attempt, worker, message)
    SELECT id, attempt, attempt - uncounted, '', reason FROM changed WHERE reason IS NOT NULL
), followed AS (
    INSERT INTO {schema}.followups (job_id)
    SELECT id FROM changed WHERE followed AND state IN ({cancelled}, {waiting}) ORDER BY id
)
SELECT count(*) FROM changed WHERE followed AND state IN ({cancelled}, {waiting})";

/// Parents that have not succeeded count as open again. Those that have and are not counted yet have a follow-up.
pub(super) const REOPEN: &str = "
UPDATE {schema}.dependencies d SET resolved = false
FROM {schema}.jobs p
WHERE d.parent_id = ANY($1::uuid[]) AND p.id = ANY($1::uuid[]) AND p.id >= $2 AND p.id <= $3
AND p.id = d.parent_id AND p.state <> {succeeded} AND d.resolved";

const RECOUNT: &str = "
UPDATE {schema}.workflow_jobs w SET open_parents = o.open
FROM (SELECT child_id, count(*) FILTER (WHERE NOT resolved)::int4 AS open
      FROM {schema}.dependencies WHERE child_id = ANY($1::uuid[]) GROUP BY child_id) o
WHERE w.job_id = ANY($1::uuid[]) AND w.job_id = o.child_id AND w.open_parents <> o.open";

pub(super) const RETRY_ALL: &str = "
WITH again AS (
    UPDATE {schema}.jobs j
    SET state = CASE WHEN w.open_parents > 0 OR j.gated THEN {to:hold} ELSE {to:retry} END,
        held = w.open_parents > 0,
        uncounted = j.attempt, crashes = 0, cancel_requested = false, worker_id = NULL,
        run_at = NULL, started_at = NULL, finished_at = NULL, result = NULL
    FROM {schema}.workflow_jobs w
    WHERE j.id = ANY($1::uuid[]) AND j.id >= $2 AND j.id <= $3 AND w.job_id = ANY($1::uuid[]) AND w.job_id = j.id
    AND j.state IN ({cancelled}, {dead})
    RETURNING j.id, j.state, j.held
), unburied AS (
    DELETE FROM {schema}.dead WHERE job_id IN (SELECT id FROM again)
), queued AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM again WHERE state = {queued} HAVING count(*) > 0
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM again WHERE state = {waiting} AND NOT held ORDER BY id
)
SELECT count(*) FROM again";

impl PostgresStore {
    pub(super) async fn insert_graph(&self, workflow: &NewWorkflow) -> Result<WorkflowOutcome, Error> {
        let mut session = self.transaction().await?;
        let id = workflow.id.as_uuid();
        if let Some(idempotency) = &workflow.idempotency {
            let holders = self.take_keys(&mut session, vec![(idempotency, id)]).await?;
            if let Some(holder) = holders.get(idempotency.key.as_bytes()).filter(|holder| holder.id != id) {
                session.commit().await?;
                return Ok(match holder.fingerprint == idempotency.fingerprint {
                    true => WorkflowOutcome::Existing(holder.id.into()),
                    false => WorkflowOutcome::KeyReused,
                });
            }
        }
        let made = self
            .rare("INSERT INTO {schema}.workflows (id, name, tenant) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING")
            .bind(id)
            .bind(workflow.name.as_str().to_owned())
            .bind(workflow.tenant().map(|tenant| tenant.as_str().to_owned()))
            .execute(&mut *session)
            .await?;
        if made.rows_affected() == 0 {
            let before = self.rare("SELECT created_at FROM {schema}.workflows WHERE id = $1").bind(id);
            let at = before.fetch_one(&mut *session).await?.try_get(0)?;
            session.commit().await?;
            return Ok(WorkflowOutcome::Created { at, outbox: None });
        }
        let jobs = workflow.jobs();
        // Not committed, what has been written before is undone.
        if let Some((at, why)) = self.unknown_limit(&mut session, jobs.iter()).await? {
            return Ok(WorkflowOutcome::Refused { at, why });
        }
        let all: Vec<&NewJob> = jobs.iter().collect();
        let (written, places) = self.insert_counted(&mut session, &all, Duration::ZERO).await?;
        if let Some(at) = jobs.iter().position(|job| places.over.contains(&job.id)) {
            return Ok(WorkflowOutcome::Refused { at, why: InsertOutcome::OverQuota });
        }
        if let Some(at) = jobs.iter().position(|job| written.refuses(job)) {
            return Ok(WorkflowOutcome::Refused { at, why: InsertOutcome::QueueDraining });
        }
        let (at, outbox) = (written.at, written.outbox);
        self.rare(
            "INSERT INTO {schema}.workflow_jobs (job_id, workflow_id, name, open_parents)
             SELECT i.id, $1, i.name, i.parents FROM unnest($2::uuid[], $3::text[], $4::int4[]) AS i (id, name, parents)",
        )
        .bind(id)
        .bind(jobs.iter().map(|job| job.id.as_uuid()).collect::<Vec<_>>())
        .bind(workflow.names().iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>())
        .bind(workflow.parent_counts().iter().map(|n| n.cast_signed()).collect::<Vec<_>>())
        .execute(&mut *session)
        .await?;
        self.rare(
            "INSERT INTO {schema}.dependencies (parent_id, child_id, needs)
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::int2[])",
        )
        .bind(workflow.edges().map(|(parent, ..)| parent.as_uuid()).collect::<Vec<_>>())
        .bind(workflow.edges().map(|(_, child, _)| child.as_uuid()).collect::<Vec<_>>())
        .bind(workflow.edges().map(|(.., needs)| needs.code()).collect::<Vec<_>>())
        .execute(&mut *session)
        .await?;
        session.commit().await?;
        Ok(WorkflowOutcome::Created { at, outbox })
    }

    /// Lets children know of those of these jobs that are over, and lets go those that have nothing to wait for. Whether
    /// that leaves more follow-ups: those of children that were called off.
    ///
    /// Whoever does this for a workflow locks it first, workflows in the order of their ids. So two can neither count an
    /// end twice nor wait for each other in a circle.
    pub(super) async fn resolve(&self, connection: &mut PgConnection, noted: &[Uuid]) -> Result<bool, Error> {
        let Some((least, greatest)) = range(noted) else { return Ok(false) };
        let locked = self
            .rare(
                "SELECT FROM {schema}.workflows
                 WHERE id = ANY(ARRAY(SELECT workflow_id FROM {schema}.workflow_jobs WHERE job_id = ANY($1)))
                 ORDER BY id FOR UPDATE",
            )
            .bind(noted.to_vec())
            .fetch_all(&mut *connection)
            .await?;
        if locked.is_empty() {
            return Ok(false);
        }
        let rows = self
            .rare("SELECT id, state FROM {schema}.jobs WHERE id = ANY($1::uuid[]) AND id >= $2 AND id <= $3")
            .bind(noted.to_vec())
            .bind(least)
            .bind(greatest)
            .fetch_all(&mut *connection)
            .await?;
        let (mut ended, mut held) = (HashMap::new(), Vec::new());
        for row in &rows {
            let id: Uuid = row.try_get(0)?;
            match state(row, 1)? {
                // Its own pause: a job that an operator has retried by itself may come here after all its parents.
                State::Waiting => held.push(id),
                state if state.is_terminal() => drop(ended.insert(JobId::from(id), state)),
                _ => {}
            }
        }
        let mut decided = self.count_ends(connection, &ended).await?;
        let free = self
            .rare("SELECT job_id FROM {schema}.workflow_jobs WHERE job_id = ANY($1) AND open_parents = 0")
            .bind(held)
            .fetch_all(&mut *connection)
            .await?;
        for row in &free {
            decided.push((row.try_get(0)?, None));
        }
        self.settle(connection, decided).await
    }

    /// Counts each of these ends once for each child, and answers the children that this decides on, with a reason for
    /// those to be called off.
    async fn count_ends(
        &self,
        connection: &mut PgConnection,
        ended: &HashMap<JobId, State>,
    ) -> Result<Vec<(Uuid, Option<String>)>, Error> {
        let rows = self
            .rare(
                "UPDATE {schema}.dependencies SET resolved = true WHERE parent_id = ANY($1) AND NOT resolved
                 RETURNING parent_id, child_id, needs",
            )
            .bind(ended.keys().map(|id| id.as_uuid()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let edges = rows.iter().map(|row| {
            let (parent, child): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Resolved { parent: parent.into(), child: child.into(), needs: row.try_get(2)? })
        });
        let children = tally(&edges.collect::<Result<Vec<_>, Error>>()?, ended);
        let lowered = self
            .rare(
                "UPDATE {schema}.workflow_jobs w SET open_parents = w.open_parents - i.ends
                 FROM unnest($1::uuid[], $2::int4[]) AS i (id, ends)
                 WHERE w.job_id = ANY($1::uuid[]) AND w.job_id = i.id
                 RETURNING w.job_id, w.open_parents",
            )
            .bind(children.keys().map(|id| id.as_uuid()).collect::<Vec<_>>())
            .bind(children.values().map(|tally| tally.count).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        let failed = children.values().filter_map(|tally| Some(tally.failed?.as_uuid())).collect::<Vec<_>>();
        let mut names: HashMap<JobId, String> = HashMap::new();
        if !failed.is_empty() {
            let select = self.rare("SELECT job_id, name FROM {schema}.workflow_jobs WHERE job_id = ANY($1)");
            for row in select.bind(failed).fetch_all(&mut *connection).await? {
                names.insert(row.try_get::<Uuid, _>(0)?.into(), row.try_get(1)?);
            }
        }
        let mut decided = Vec::new();
        for row in &lowered {
            let id: Uuid = row.try_get(0)?;
            let failed = children.get(&id.into()).and_then(|tally| tally.failed);
            if let Some(parent) = failed
                && let (Some(name), Some(state)) = (names.get(&parent), ended.get(&parent))
            {
                decided.push((id, Some(reason(name, parent, *state))));
            } else if row.try_get::<i32, _>(1)? == 0 {
                decided.push((id, None));
            }
        }
        Ok(decided)
    }

    /// Releases children from their parents, or calls them off for a reason: the only place that does. Whether any of
    /// those called off has children of its own.
    async fn settle(
        &self,
        connection: &mut PgConnection,
        mut decided: Vec<(Uuid, Option<String>)>,
    ) -> Result<bool, Error> {
        decided.sort_unstable_by_key(|(id, _)| *id);
        let (ids, reasons): (Vec<Uuid>, Vec<Option<String>>) = decided.into_iter().unzip();
        let Some((least, greatest)) = range(&ids) else { return Ok(false) };
        // Times before jobs, as promotion takes them.
        let called_off = ids.iter().zip(&reasons).filter(|(_, reason)| reason.is_some());
        let called_off: Vec<Uuid> = called_off.map(|(id, _)| *id).collect();
        if !called_off.is_empty() {
            let forget = self.rare("DELETE FROM {schema}.due WHERE job_id = ANY($1)").bind(called_off);
            forget.execute(&mut *connection).await?;
        }
        let settle = self.rare(SETTLE).bind(ids).bind(reasons).bind(least).bind(greatest);
        Ok(settle.fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
    }

    /// Locks the workflow and answers its jobs, in order. `None`: there is none.
    async fn lock_graph(
        &self,
        connection: &mut PgConnection,
        id: WorkflowId,
    ) -> Result<Option<Vec<Uuid>>, Error> {
        let lock = self.rare("SELECT FROM {schema}.workflows WHERE id = $1 FOR UPDATE").bind(id.as_uuid());
        if lock.fetch_optional(&mut *connection).await?.is_none() {
            return Ok(None);
        }
        self.graph_jobs(connection, id).await.map(Some)
    }

    async fn graph_jobs(&self, connection: &mut PgConnection, id: WorkflowId) -> Result<Vec<Uuid>, Error> {
        let select =
            self.rare("SELECT job_id FROM {schema}.workflow_jobs WHERE workflow_id = $1 ORDER BY job_id");
        let rows = select.bind(id.as_uuid()).fetch_all(connection).await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    }

    pub(super) async fn cancel_graph(&self, id: WorkflowId) -> Result<bool, Error> {
        let mut session = self.transaction().await?;
        let jobs = self.lock_graph(&mut session, id).await?;
        if let Some(ids) = &jobs {
            self.call_off(&mut session, ids, &State::UNFINISHED).await?;
        }
        session.commit().await?;
        Ok(jobs.is_some())
    }

    pub(super) async fn retry_graph(&self, id: WorkflowId) -> Result<Option<usize>, Error> {
        let mut session = self.transaction().await?;
        let jobs = self.lock_graph(&mut session, id).await?;
        let mut again = 0;
        if let Some((ids, (least, greatest))) = jobs.as_ref().and_then(|ids| Some((ids, range(ids)?))) {
            let reopen = self.rare(REOPEN).bind(ids.clone()).bind(least).bind(greatest);
            reopen.execute(&mut *session).await?;
            self.rare(RECOUNT).bind(ids.clone()).execute(&mut *session).await?;
            let retry = self.rare(RETRY_ALL).bind(ids.clone()).bind(least).bind(greatest);
            let number = retry.fetch_one(&mut *session).await?.try_get::<i64, _>(0)?;
            again = usize::try_from(number).map_err(unexpected)?;
            self.note_revision(&mut session, again).await?;
            self.count_again(&mut session, ids.clone()).await?;
        }
        session.commit().await?;
        Ok(jobs.map(|_| again))
    }

    pub(super) async fn select_graph(&self, id: WorkflowId) -> Result<Option<WorkflowRecord>, Error> {
        let mut session = self.transaction().await?;
        let select = self.rare("SELECT name, created_at, tenant FROM {schema}.workflows WHERE id = $1");
        let Some(row) = select.bind(id.as_uuid()).fetch_optional(&mut *session).await? else {
            session.commit().await?;
            return Ok(None);
        };
        let ids = self.graph_jobs(&mut session, id).await?;
        let (least, greatest) = range(&ids).unwrap_or_default();
        let rows = self
            .rare(
                "SELECT state, count(*) FROM {schema}.jobs
                 WHERE id = ANY($1::uuid[]) AND id >= $2 AND id <= $3 GROUP BY state ORDER BY state",
            )
            .bind(ids)
            .bind(least)
            .bind(greatest)
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        let counts = rows.iter().map(|row| Ok((state(row, 0)?, row.try_get::<i64, _>(1)?.unsigned_abs())));
        Ok(Some(WorkflowRecord {
            id,
            name: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
            tenant: tenant(row.try_get(2)?)?,
            created_at: row.try_get(1)?,
            counts: counts.collect::<Result<_, Error>>()?,
        }))
    }

    pub(super) async fn select_graph_jobs(
        &self,
        id: WorkflowId,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<WorkflowJob>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare(
                "SELECT job_id, name FROM {schema}.workflow_jobs
                 WHERE workflow_id = $1 AND ($2::uuid IS NULL OR job_id > $2) ORDER BY job_id LIMIT $3",
            )
            .bind(id.as_uuid())
            .bind(after.map(JobId::as_uuid))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        self.with_names(&rows).await
    }

    pub(super) async fn select_parents(
        &self,
        job: JobId,
        name: Option<&JobName>,
    ) -> Result<Vec<WorkflowJob>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare(
                "SELECT w.job_id, w.name FROM {schema}.dependencies d
                 JOIN {schema}.workflow_jobs w ON w.job_id = d.parent_id
                 WHERE d.child_id = $1 AND ($2::text IS NULL OR w.name = $2) ORDER BY w.job_id",
            )
            .bind(job.as_uuid())
            .bind(name.map(|name| name.as_str().to_owned()))
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        self.with_names(&rows).await
    }

    /// The jobs of these rows of ids and names.
    async fn with_names(&self, rows: &[PgRow]) -> Result<Vec<WorkflowJob>, Error> {
        let names = rows.iter().map(|row| {
            let name = row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?;
            Ok((JobId::from(row.try_get::<Uuid, _>(0)?), name))
        });
        let names = names.collect::<Result<Vec<(JobId, JobName)>, Error>>()?;
        let ids: Vec<JobId> = names.iter().map(|(id, _)| *id).collect();
        Ok(named(names, self.select_jobs(&ids).await?))
    }
}

fn state(row: &PgRow, column: usize) -> Result<State, Error> {
    row.try_get::<i16, _>(column)?.try_into().map_err(unexpected::<UnknownState>)
}

#[async_trait]
impl Workflows for PostgresStore {
    async fn insert_workflow(&self, workflow: &NewWorkflow) -> Result<WorkflowOutcome, StoreError> {
        self.within(self.insert_graph(workflow)).await
    }

    async fn workflow(&self, id: WorkflowId) -> Result<Option<WorkflowRecord>, StoreError> {
        self.within(self.select_graph(id)).await
    }

    async fn workflow_jobs(
        &self,
        id: WorkflowId,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<WorkflowJob>, StoreError> {
        self.within(self.select_graph_jobs(id, after, limit)).await
    }

    async fn cancel_workflow(&self, id: WorkflowId) -> Result<bool, StoreError> {
        self.within(self.cancel_graph(id)).await
    }

    async fn retry_workflow(&self, id: WorkflowId) -> Result<Option<usize>, StoreError> {
        self.within(self.retry_graph(id)).await
    }

    async fn add_to_workflow(
        &self,
        parent: JobId,
        fence: u32,
        jobs: &[(JobName, NewJob)],
        limits: WorkflowLimits,
    ) -> Result<Added, StoreError> {
        self.within(self.extend_graph(parent, fence, jobs, limits)).await
    }

    async fn parents(&self, job: JobId, name: Option<&JobName>) -> Result<Vec<WorkflowJob>, StoreError> {
        self.within(self.select_parents(job, name)).await
    }
}
