use std::collections::HashMap;

use async_trait::async_trait;
use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{
    Added, InsertOutcome, JobId, JobName, NewJob, NewWorkflow, State, StoreError, WorkflowId, WorkflowJob,
    WorkflowLimits, WorkflowOutcome, WorkflowRecord, Workflows,
};

use super::{
    Commit, SqliteStore, cancel,
    followup::note_followups,
    ids,
    insert::{Said, insert_outbox, insert_rows, take_key},
    quotas::{count_again, take_places},
    read,
    standing::note_revision,
    statement, timestamp, unexpected,
};
use crate::workflow::{Resolved, named, reason, tally, tenant};

statement!(
    RELEASE,
    "UPDATE jobs SET state = iif(state IN ({from:admit}) AND NOT gated, {to:admit}, state), held = 0
     WHERE id IN (SELECT value FROM json_each(?)) AND state IN ({scheduled}, {waiting}) AND held
     RETURNING id, state"
);
statement!(
    // A fence of its own, for the error record.
    CALL_OFF,
    "UPDATE jobs SET state = {to:cancel}, held = 0, attempt = attempt + 1, uncounted = uncounted + 1,
         run_at = NULL, finished_at = ?2
     WHERE id IN (SELECT value ->> 0 FROM json_each(?1)) AND state IN ({scheduled}, {waiting}) AND held
     RETURNING id, followed"
);
statement!(
    CALL_OFF_ERRORS,
    "INSERT INTO job_errors (job_id, fence, attempt, at, worker, message)
     SELECT j.id, j.attempt, j.attempt - j.uncounted, ?2, '', i.value ->> 1
     FROM json_each(?1) i CROSS JOIN jobs j ON j.id = i.value ->> 0"
);
statement!(
    REOPEN,
    "UPDATE dependencies SET resolved = 0
     WHERE parent_id IN (SELECT j.id FROM jobs j
                         WHERE j.id IN (SELECT value FROM json_each(?)) AND j.state <> {succeeded})
       AND resolved"
);
statement!(
    RECOUNT,
    "UPDATE workflow_jobs SET open_parents =
         (SELECT count(*) FROM dependencies d WHERE d.child_id = workflow_jobs.job_id AND NOT d.resolved)
     WHERE job_id IN (SELECT value FROM json_each(?))"
);
statement!(
    RETRY_ALL,
    "UPDATE jobs
     SET state = iif(w.open_parents > 0 OR gated, {to:hold}, {to:retry}),
         held = w.open_parents > 0,
         uncounted = attempt, crashes = 0, cancel_requested = 0, worker_id = NULL,
         run_at = NULL, started_at = NULL, finished_at = NULL, result = NULL
     FROM workflow_jobs w
     WHERE id IN (SELECT value FROM json_each(?)) AND w.job_id = jobs.id AND state IN ({cancelled}, {dead})
     RETURNING id, state, held"
);

impl SqliteStore {
    pub(super) async fn insert_graph(&self, workflow: &NewWorkflow) -> Result<WorkflowOutcome, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let now = self.now();
        let id = workflow.id.to_string();
        if let Some(idempotency) = &workflow.idempotency {
            let (fingerprint, holder) = take_key(&mut transaction, idempotency, &id, now).await?;
            if holder != id {
                return Ok(match fingerprint == idempotency.fingerprint {
                    true => WorkflowOutcome::Existing(holder.parse().map_err(|_| unexpected("no id"))?),
                    false => WorkflowOutcome::KeyReused,
                });
            }
        }
        let before = sqlx::query("SELECT created_at FROM workflows WHERE id = ?").bind(&id);
        if let Some(row) = before.fetch_optional(&mut *transaction).await? {
            return Ok(WorkflowOutcome::Created { at: timestamp(row.try_get(0)?)?, outbox: None });
        }
        sqlx::query("INSERT INTO workflows (id, name, created_at, tenant) VALUES (?, ?, ?, ?)")
            .bind(&id)
            .bind(workflow.name.as_str())
            .bind(now)
            .bind(workflow.tenant().map(|tenant| tenant.as_str()))
            .execute(&mut *transaction)
            .await?;
        let jobs: Vec<&NewJob> = workflow.jobs().iter().collect();
        let said = Said::read(&mut transaction, &jobs).await?;
        let refusal = jobs.iter().enumerate().find_map(|(at, job)| Some((at, said.refusal(job)?)));
        if let Some((at, why)) = refusal {
            return Ok(WorkflowOutcome::Refused { at, why });
        }
        let places = take_places(&mut transaction, &jobs).await?;
        if let Some(at) = jobs.iter().position(|job| places.over.contains(&job.id)) {
            return Ok(WorkflowOutcome::Refused { at, why: InsertOutcome::OverQuota });
        }
        let outbox = insert_rows(&mut transaction, &jobs, &said, &places, now, 0).await?;
        let counts = workflow.parent_counts();
        let rows = jobs.iter().zip(workflow.names()).zip(&counts);
        let rows: Vec<_> = rows.map(|((job, name), parents)| (job.id, name, parents)).collect();
        sqlx::query(
            "INSERT INTO workflow_jobs (job_id, workflow_id, name, open_parents)
             SELECT value ->> 0, ?1, value ->> 1, value ->> 2 FROM json_each(?2)",
        )
        .bind(&id)
        .bind(serde_json::to_string(&rows).map_err(unexpected)?)
        .execute(&mut *transaction)
        .await?;
        let edges: Vec<_> =
            workflow.edges().map(|(parent, child, needs)| (parent, child, needs.code())).collect();
        sqlx::query(
            "INSERT INTO dependencies (parent_id, child_id, needs)
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(serde_json::to_string(&edges).map_err(unexpected)?)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(WorkflowOutcome::Created { at: timestamp(now)?, outbox })
    }

    pub(super) async fn cancel_graph(&self, id: WorkflowId) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let Some(jobs) = graph_jobs(&mut transaction, id).await? else { return Ok(false) };
        cancel::call_off(&mut transaction, &jobs, &State::UNFINISHED, self.now()).await?;
        transaction.commit().await?;
        Ok(true)
    }

    pub(super) async fn retry_graph(&self, id: WorkflowId) -> Result<Option<usize>, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let Some(jobs) = graph_jobs(&mut transaction, id).await? else { return Ok(None) };
        // Parents that have not succeeded count as open again. Those that have and are not counted yet have a follow-up.
        for statement in [&*REOPEN, &*RECOUNT] {
            sqlx::query(statement.clone()).bind(&jobs).execute(&mut *transaction).await?;
        }
        let again = sqlx::query(RETRY_ALL.clone()).bind(&jobs).fetch_all(&mut *transaction).await?;
        let (mut queued, mut gated) = (Vec::new(), Vec::new());
        for row in &again {
            match read::state(row.try_get(1)?)? {
                State::Queued => queued.push(row.try_get(0)?),
                _ if !row.try_get::<bool, _>(2)? => gated.push(row.try_get(0)?),
                _ => {}
            }
        }
        note_followups(&mut transaction, gated).await?;
        let unburied: Vec<String> = again.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        sqlx::query("DELETE FROM dead WHERE job_id IN (SELECT value FROM json_each(?))")
            .bind(ids(&unburied))
            .execute(&mut *transaction)
            .await?;
        count_again(&mut transaction, &unburied).await?;
        let now = self.now();
        insert_outbox(&mut transaction, queued, now, now).await?;
        note_revision(&mut transaction, again.len()).await?;
        transaction.commit().await?;
        Ok(Some(again.len()))
    }

    pub(super) async fn select_graph(&self, id: WorkflowId) -> Result<Option<WorkflowRecord>, Error> {
        // One snapshot for both statements.
        let mut transaction = self.readers.begin().await?;
        let workflow =
            sqlx::query("SELECT name, created_at, tenant FROM workflows WHERE id = ?").bind(id.to_string());
        let Some(row) = workflow.fetch_optional(&mut *transaction).await? else { return Ok(None) };
        let rows = sqlx::query(
            "SELECT j.state, count(*) FROM workflow_jobs w CROSS JOIN jobs j ON j.id = w.job_id
             WHERE w.workflow_id = ? GROUP BY j.state ORDER BY j.state",
        )
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
        let counts = rows.iter().map(|row| Ok((read::state(row.try_get(0)?)?, row.try_get(1)?)));
        Ok(Some(WorkflowRecord {
            id,
            name: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
            tenant: tenant(row.try_get(2)?)?,
            created_at: timestamp(row.try_get(1)?)?,
            counts: counts.collect::<Result<_, Error>>()?,
        }))
    }

    pub(super) async fn select_graph_jobs(
        &self,
        id: WorkflowId,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<WorkflowJob>, Error> {
        let rows = sqlx::query(
            "SELECT job_id, name FROM workflow_jobs WHERE workflow_id = ? AND job_id > ? ORDER BY job_id LIMIT ?",
        )
        .bind(id.to_string())
        .bind(after.map(|after| after.to_string()).unwrap_or_default())
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        self.with_names(&rows).await
    }

    pub(super) async fn select_parents(
        &self,
        job: JobId,
        name: Option<&JobName>,
    ) -> Result<Vec<WorkflowJob>, Error> {
        let rows = sqlx::query(
            "SELECT w.job_id, w.name FROM dependencies d CROSS JOIN workflow_jobs w ON w.job_id = d.parent_id
             WHERE d.child_id = ?1 AND (?2 IS NULL OR w.name = ?2) ORDER BY w.job_id",
        )
        .bind(job.to_string())
        .bind(name.map(|name| name.as_str().to_owned()))
        .fetch_all(&self.readers)
        .await?;
        self.with_names(&rows).await
    }

    /// The jobs of these rows of ids and names.
    async fn with_names(&self, rows: &[SqliteRow]) -> Result<Vec<WorkflowJob>, Error> {
        let names = rows.iter().map(|row| {
            let name = row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?;
            Ok((read::id(row.try_get(0)?)?, name))
        });
        let names = names.collect::<Result<Vec<(JobId, JobName)>, Error>>()?;
        let ids: Vec<JobId> = names.iter().map(|(id, _)| *id).collect();
        Ok(named(names, self.select_jobs(&ids).await?))
    }
}

/// Lets children know of those of these jobs that are over, and lets go those that have nothing to wait for. Whether
/// that leaves more follow-ups: those of children that were called off.
pub(super) async fn resolve(
    connection: &mut SqliteConnection,
    noted: &[String],
    now: i64,
) -> Result<bool, Error> {
    let rows = sqlx::query(
        "SELECT j.id, j.state FROM json_each(?) i CROSS JOIN workflow_jobs w ON w.job_id = i.value
         CROSS JOIN jobs j ON j.id = w.job_id",
    )
    .bind(ids(noted))
    .fetch_all(&mut *connection)
    .await?;
    let (mut ended, mut held) = (HashMap::new(), Vec::new());
    for row in &rows {
        let id = read::id(row.try_get(0)?)?;
        match read::state(row.try_get(1)?)? {
            // Its own pause: a job that an operator has retried by itself may come here after all its parents.
            State::Waiting => held.push(id),
            state if state.is_terminal() => drop(ended.insert(id, state)),
            _ => {}
        }
    }
    let (mut free, off) = count_ends(connection, &ended).await?;
    let rows = sqlx::query(
        "SELECT job_id FROM workflow_jobs
         WHERE job_id IN (SELECT value FROM json_each(?)) AND open_parents = 0",
    )
    .bind(ids(held))
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        free.push(row.try_get(0)?);
    }
    let gated = release(connection, free, now).await?;
    Ok(call_off(connection, off, now).await? || gated)
}

/// Counts each of these ends once for each child, and answers the children that may go now, and those to be called off,
/// with the reason.
async fn count_ends(
    connection: &mut SqliteConnection,
    ended: &HashMap<JobId, State>,
) -> Result<(Vec<String>, Vec<(String, String)>), Error> {
    let rows = sqlx::query(
        "UPDATE dependencies SET resolved = 1
         WHERE parent_id IN (SELECT value FROM json_each(?)) AND NOT resolved
         RETURNING parent_id, child_id, needs",
    )
    .bind(ids(ended.keys()))
    .fetch_all(&mut *connection)
    .await?;
    let edges = rows.iter().map(|row| {
        let (parent, child) = (read::id(row.try_get(0)?)?, read::id(row.try_get(1)?)?);
        Ok(Resolved { parent, child, needs: row.try_get(2)? })
    });
    let children = tally(&edges.collect::<Result<Vec<_>, Error>>()?, ended);
    let (mut free, mut off) = (Vec::new(), Vec::new());
    for (child, tally) in &children {
        let child = child.to_string();
        let left = sqlx::query(
            "UPDATE workflow_jobs SET open_parents = open_parents - ? WHERE job_id = ? RETURNING open_parents",
        )
        .bind(tally.count)
        .bind(&child)
        .fetch_one(&mut *connection)
        .await?;
        if let Some((parent, state)) = tally.failed.and_then(|parent| Some((parent, ended.get(&parent)?))) {
            let name =
                sqlx::query("SELECT name FROM workflow_jobs WHERE job_id = ?").bind(parent.to_string());
            let name = name.fetch_one(&mut *connection).await?;
            off.push((child, reason(name.try_get(0)?, parent, *state)));
        } else if left.try_get::<i64, _>(0)? == 0 {
            free.push(child);
        }
    }
    Ok((free, off))
}

/// Releases children from their parents: the only place that does. What has been let go before is left alone. Whether any
/// of them has come to its gates.
async fn release(connection: &mut SqliteConnection, jobs: Vec<String>, now: i64) -> Result<bool, Error> {
    let rows = sqlx::query(RELEASE.clone()).bind(ids(jobs)).fetch_all(&mut *connection).await?;
    let (mut queued, mut gated) = (Vec::new(), Vec::new());
    for row in &rows {
        match read::state(row.try_get(1)?)? {
            State::Queued => queued.push(row.try_get(0)?),
            State::Waiting => gated.push(row.try_get(0)?),
            _ => {}
        }
    }
    insert_outbox(connection, queued, now, now).await?;
    let more = !gated.is_empty();
    note_followups(connection, gated).await?;
    Ok(more)
}

/// Calls off children that still wait, for these reasons. Whether any of them has children of its own.
async fn call_off(
    connection: &mut SqliteConnection,
    mut jobs: Vec<(String, String)>,
    now: i64,
) -> Result<bool, Error> {
    let all = serde_json::to_string(&jobs).map_err(unexpected)?;
    let rows = sqlx::query(CALL_OFF.clone()).bind(all).bind(now).fetch_all(&mut *connection).await?;
    let mut followed = HashMap::new();
    for row in &rows {
        followed.insert(row.try_get::<String, _>(0)?, row.try_get::<bool, _>(1)?);
    }
    jobs.retain(|(id, _)| followed.contains_key(id));
    sqlx::query(CALL_OFF_ERRORS.clone())
        .bind(serde_json::to_string(&jobs).map_err(unexpected)?)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    forget_times(connection, &ids(followed.keys())).await?;
    let followed: Vec<String> =
        followed.into_iter().filter(|(_, followed)| *followed).map(|(id, _)| id).collect();
    let more = !followed.is_empty();
    note_followups(connection, followed).await?;
    Ok(more)
}

async fn forget_times(connection: &mut SqliteConnection, jobs: &str) -> Result<(), Error> {
    let forget = sqlx::query("DELETE FROM due WHERE job_id IN (SELECT value FROM json_each(?))");
    forget.bind(jobs).execute(connection).await.map(drop)
}

/// The jobs of a workflow, as a JSON array. `None`: there is no such workflow.
async fn graph_jobs(connection: &mut SqliteConnection, id: WorkflowId) -> Result<Option<String>, Error> {
    let row = sqlx::query(
        "SELECT (SELECT json_group_array(job_id) FROM workflow_jobs WHERE workflow_id = w.id)
         FROM workflows w WHERE w.id = ?",
    )
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.try_get(0)).transpose()
}

#[async_trait]
impl Workflows for SqliteStore {
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
