use std::time::Duration;

use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{Added, InsertOutcome, JobId, JobName, Needs, NewJob, WorkflowLimits};

use super::{PostgresStore, unexpected};
use crate::workflow::{as_children, tenant};

impl PostgresStore {
    pub(super) async fn extend_graph(
        &self,
        parent: JobId,
        fence: u32,
        jobs: &[(JobName, NewJob)],
        limits: WorkflowLimits,
    ) -> Result<Added, Error> {
        let mut session = self.transaction().await?;
        let added = self.extend_on(&mut session, parent.as_uuid(), fence, jobs, limits).await?;
        // Not committed, what has been written before a refusal is undone.
        if !matches!(added, Added::Refused { .. }) {
            session.commit().await?;
        }
        Ok(added)
    }

    async fn extend_on(
        &self,
        connection: &mut PgConnection,
        parent: Uuid,
        fence: u32,
        jobs: &[(JobName, NewJob)],
        limits: WorkflowLimits,
    ) -> Result<Added, Error> {
        let lock = self.rare(
            "SELECT id, tenant FROM {schema}.workflows
             WHERE id = (SELECT workflow_id FROM {schema}.workflow_jobs WHERE job_id = $1) FOR UPDATE",
        );
        let Some(row) = lock.bind(parent).fetch_optional(&mut *connection).await? else {
            return Ok(Added::NoWorkflow);
        };
        let workflow: Uuid = row.try_get(0)?;
        let tenant = tenant(row.try_get(1)?)?;
        // The parent's end waits for this row, so its children cannot be released meanwhile.
        let running = self
            .rare(
                "SELECT FROM {schema}.jobs WHERE id = $1 AND state = {running} AND attempt = $2 FOR NO KEY UPDATE",
            )
            .bind(parent)
            .bind(i32::try_from(fence).unwrap_or(i32::MAX))
            .fetch_optional(&mut *connection)
            .await?;
        if running.is_none() {
            return Ok(Added::LeaseLost);
        }
        let known = self
            .rare(
                "SELECT name, added_by IS NOT DISTINCT FROM $3 FROM {schema}.workflow_jobs
                 WHERE workflow_id = $1 AND name = ANY($2)",
            )
            .bind(workflow)
            .bind(jobs.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>())
            .bind(parent)
            .fetch_all(&mut *connection)
            .await?;
        let mut kept: Vec<JobName> = Vec::new();
        for row in &known {
            let name: JobName = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
            if !row.try_get::<bool, _>(1)? {
                return Ok(Added::NameTaken(name));
            }
            kept.push(name);
        }
        let waiting = self
            .rare(
                "SELECT d.child_id, d.needs FROM {schema}.dependencies d
                 JOIN {schema}.workflow_jobs w ON w.job_id = d.child_id
                 WHERE d.parent_id = $1 AND w.added_by IS DISTINCT FROM $1",
            )
            .bind(parent)
            .fetch_all(&mut *connection)
            .await?;
        let new = as_children(jobs, &kept, !waiting.is_empty(), tenant.as_ref());
        let sizes = self
            .rare("SELECT count(*) FROM {schema}.workflow_jobs WHERE workflow_id = $1")
            .bind(workflow)
            .fetch_one(&mut *connection)
            .await?;
        let size = usize::try_from(sizes.try_get::<i64, _>(0)?).map_err(unexpected)?;
        if size + new.len() > limits.jobs || new.len() * (waiting.len() + 1) > limits.edges {
            return Ok(Added::TooMany);
        }
        if new.is_empty() {
            return Ok(Added::Jobs(0));
        }
        let refused = |at: usize, why| Added::Refused { name: new[at].0.clone(), why };
        if let Some((at, why)) = self.unknown_limit(connection, new.iter().map(|(_, job)| job)).await? {
            return Ok(refused(at, why));
        }
        let all: Vec<&NewJob> = new.iter().map(|(_, job)| job).collect();
        let (written, places) = self.insert_counted(connection, &all, Duration::ZERO).await?;
        if let Some(at) = all.iter().position(|job| places.over.contains(&job.id)) {
            return Ok(refused(at, InsertOutcome::OverQuota));
        }
        if let Some(at) = new.iter().position(|(_, job)| written.refuses(job)) {
            return Ok(refused(at, InsertOutcome::QueueDraining));
        }
        let ids: Vec<Uuid> = new.iter().map(|(_, job)| job.id.as_uuid()).collect();
        let children: Vec<Uuid> = waiting.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let needs: Vec<i16> = waiting.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        self.rare(
            "INSERT INTO {schema}.workflow_jobs (job_id, workflow_id, name, open_parents, added_by)
             SELECT i.id, $1, i.name, 1, $4 FROM unnest($2::uuid[], $3::text[]) AS i (id, name)",
        )
        .bind(workflow)
        .bind(ids.clone())
        .bind(new.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>())
        .bind(parent)
        .execute(&mut *connection)
        .await?;
        self.rare(
            "INSERT INTO {schema}.dependencies (parent_id, child_id, needs)
             SELECT $1, i.id, $2 FROM unnest($3::uuid[]) AS i (id)
             UNION ALL
             SELECT i.id, w.id, w.needs FROM unnest($3::uuid[]) AS i (id)
             CROSS JOIN unnest($4::uuid[], $5::int2[]) AS w (id, needs)",
        )
        .bind(parent)
        .bind(Needs::Succeeded.code())
        .bind(ids.clone())
        .bind(children.clone())
        .bind(needs)
        .execute(&mut *connection)
        .await?;
        self.rare(
            "UPDATE {schema}.workflow_jobs SET open_parents = open_parents + $2 WHERE job_id = ANY($1)",
        )
        .bind(children)
        .bind(i32::try_from(ids.len()).map_err(unexpected)?)
        .execute(&mut *connection)
        .await?;
        self.rare("UPDATE {schema}.jobs SET followed = true WHERE id = $1 AND NOT followed")
            .bind(parent)
            .execute(&mut *connection)
            .await?;
        Ok(Added::Jobs(ids.len()))
    }
}
