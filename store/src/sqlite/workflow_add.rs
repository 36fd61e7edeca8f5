use sqlx::{Error, Row};
use windlass_core::{Added, InsertOutcome, JobId, JobName, Needs, NewJob, WorkflowLimits};

use super::{
    Commit, SqliteStore, ids,
    insert::{Said, insert_rows},
    quotas::take_places,
    statement, unexpected,
};
use crate::workflow::{as_children, tenant};

statement!(RUNNING, "SELECT 1 FROM jobs WHERE id = ? AND state = {running} AND attempt = ?");

impl SqliteStore {
    pub(super) async fn extend_graph(
        &self,
        parent: JobId,
        fence: u32,
        jobs: &[(JobName, NewJob)],
        limits: WorkflowLimits,
    ) -> Result<Added, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let parent = parent.to_string();
        let row = sqlx::query(
            "SELECT workflow_id, (SELECT count(*) FROM workflow_jobs a WHERE a.workflow_id = w.workflow_id),
                 (SELECT tenant FROM workflows WHERE id = w.workflow_id)
             FROM workflow_jobs w WHERE job_id = ?",
        )
        .bind(&parent)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = row else { return Ok(Added::NoWorkflow) };
        let (workflow, size): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let tenant = tenant(row.try_get(2)?)?;
        let running = sqlx::query(RUNNING.clone()).bind(&parent).bind(fence);
        if running.fetch_optional(&mut *transaction).await?.is_none() {
            return Ok(Added::LeaseLost);
        }
        let names: Vec<&JobName> = jobs.iter().map(|(name, _)| name).collect();
        let known = sqlx::query(
            "SELECT name, added_by IS ?3 FROM workflow_jobs
             WHERE workflow_id = ?1 AND name IN (SELECT value FROM json_each(?2))",
        )
        .bind(&workflow)
        .bind(serde_json::to_string(&names).map_err(unexpected)?)
        .bind(&parent)
        .fetch_all(&mut *transaction)
        .await?;
        let mut kept: Vec<JobName> = Vec::new();
        for row in &known {
            let name: JobName = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
            if !row.try_get::<bool, _>(1)? {
                return Ok(Added::NameTaken(name));
            }
            kept.push(name);
        }
        let waiting = sqlx::query(
            "SELECT d.child_id, d.needs FROM dependencies d CROSS JOIN workflow_jobs w ON w.job_id = d.child_id
             WHERE d.parent_id = ?1 AND w.added_by IS NOT ?1",
        )
        .bind(&parent)
        .fetch_all(&mut *transaction)
        .await?;
        let new = as_children(jobs, &kept, !waiting.is_empty(), tenant.as_ref());
        let size = usize::try_from(size).map_err(unexpected)?;
        if size + new.len() > limits.jobs || new.len() * (waiting.len() + 1) > limits.edges {
            return Ok(Added::TooMany);
        }
        let all: Vec<&NewJob> = new.iter().map(|(_, job)| job).collect();
        let now = self.now();
        let said = Said::read(&mut transaction, &all).await?;
        let refusal = new.iter().find_map(|(name, job)| Some((name, said.refusal(job)?)));
        if let Some((name, why)) = refusal {
            return Ok(Added::Refused { name: name.clone(), why });
        }
        let places = take_places(&mut transaction, &all).await?;
        if let Some((name, _)) = new.iter().find(|(_, job)| places.over.contains(&job.id)) {
            return Ok(Added::Refused { name: name.clone(), why: InsertOutcome::OverQuota });
        }
        insert_rows(&mut transaction, &all, &said, &places, now, 0).await?;
        let rows: Vec<_> = new.iter().map(|(name, job)| (job.id, name)).collect();
        sqlx::query(
            "INSERT INTO workflow_jobs (job_id, workflow_id, name, open_parents, added_by)
             SELECT value ->> 0, ?1, value ->> 1, 1, ?3 FROM json_each(?2)",
        )
        .bind(&workflow)
        .bind(serde_json::to_string(&rows).map_err(unexpected)?)
        .bind(&parent)
        .execute(&mut *transaction)
        .await?;
        let mut edges = Vec::new();
        let mut children = Vec::new();
        for row in &waiting {
            let (child, needs): (String, i16) = (row.try_get(0)?, row.try_get(1)?);
            edges.extend(new.iter().map(|(_, job)| (job.id.to_string(), child.clone(), needs)));
            children.push(child);
        }
        edges
            .extend(new.iter().map(|(_, job)| (parent.clone(), job.id.to_string(), Needs::Succeeded.code())));
        sqlx::query(
            "INSERT INTO dependencies (parent_id, child_id, needs)
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
        )
        .bind(serde_json::to_string(&edges).map_err(unexpected)?)
        .execute(&mut *transaction)
        .await?;
        sqlx::query(
            "UPDATE workflow_jobs SET open_parents = open_parents + ?2
             WHERE job_id IN (SELECT value FROM json_each(?1))",
        )
        .bind(ids(children))
        .bind(i64::try_from(new.len()).map_err(unexpected)?)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("UPDATE jobs SET followed = 1 WHERE id = ?")
            .bind(&parent)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Added::Jobs(new.len()))
    }
}
