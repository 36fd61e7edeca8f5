//! Quotas of tenants. Their rows are locked after all else that an operation locks, in the order of the tenants: so nobody
//! who holds one waits for anything but the next.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{JobId, NewJob, Quota, Quotas, StoreError, Tenant};

use super::{PostgresStore, insert::Written, range, unexpected};
use crate::quotas::{Decided, decide};

/// Those of these tenants that have a quota, and how many places each has left. Locked until the end of the transaction.
const LOCK: &str = "
SELECT tenant, max_unfinished - used FROM {schema}.quotas WHERE tenant = ANY($1) ORDER BY tenant FOR UPDATE";

/// Places that are there already stay as they are, and are not counted twice.
const TAKE: &str = "
WITH taken AS (
    INSERT INTO {schema}.quota_places (job_id, tenant) SELECT * FROM unnest($1::uuid[], $2::text[])
    ON CONFLICT (job_id) DO NOTHING
    RETURNING tenant
)
UPDATE {schema}.quotas q SET used = q.used + t.number
FROM (SELECT tenant, count(*) AS number FROM taken GROUP BY tenant) t WHERE q.tenant = t.tenant";

const FREE: &str = "
WITH freed AS (DELETE FROM {schema}.quota_places WHERE job_id = ANY($1) RETURNING tenant)
UPDATE {schema}.quotas q SET used = q.used - f.number
FROM (SELECT tenant, count(*) AS number FROM freed GROUP BY tenant) f WHERE q.tenant = f.tenant";

/// Those of these jobs that are over and still hold a place. A retry waits until it has been given back, or is waited
/// for. Plan: primary keys.
const OVER: &str = "
SELECT id FROM {schema}.jobs
WHERE id = ANY(ARRAY(SELECT job_id FROM {schema}.quota_places WHERE job_id = ANY($1))) AND id >= $2 AND id <= $3
AND state IN ({succeeded}, {cancelled}, {dead}) ORDER BY id FOR SHARE";

/// Unfinished jobs of tenants with a quota, whose ends are to be followed up.
const OF_TENANTS: &str = "
UPDATE {schema}.jobs j SET followed = true
FROM {schema}.quotas q
WHERE j.id = ANY($1) AND j.id >= $2 AND j.id <= $3 AND j.gating IS NOT NULL AND q.tenant = j.gating::jsonb ->> 'tenant'
AND j.state NOT IN ({succeeded}, {cancelled}, {dead}) AND j.kind <> 'windlass.webhook'
RETURNING j.id, q.tenant";

impl PostgresStore {
    /// Inserts jobs, but for those whose tenants have a quota and no place left. In a transaction.
    pub(super) async fn insert_counted(
        &self,
        connection: &mut PgConnection,
        jobs: &[&NewJob],
        grace: Duration,
    ) -> Result<(Written, Decided), Error> {
        let written = self.insert_rows(connection, jobs.iter().copied(), grace, None).await?;
        if !written.quotas {
            return Ok((written, Decided::default()));
        }
        let places = self.take_places(connection, jobs).await?;
        let with_places = jobs.iter().copied().filter(|job| !places.over.contains(&job.id));
        let written = self.insert_rows(connection, with_places, grace, Some(&places)).await?;
        Ok((written, places))
    }

    /// Decides which of these jobs, not yet inserted, get a place, and gives it to them.
    async fn take_places(&self, connection: &mut PgConnection, jobs: &[&NewJob]) -> Result<Decided, Error> {
        let tenants = jobs.iter().filter_map(|job| job.gating.tenant.as_ref());
        let left = self.lock_quotas(connection, tenants.map(|tenant| tenant.as_str().to_owned())).await?;
        // Only now: the same jobs may have been accepted by whoever had the lock.
        let before = self.accepted_before(connection, jobs).await?;
        let before = before.into_iter().map(JobId::from).collect();
        let decided = decide(jobs.iter().copied(), left, &before);
        let mut counted: Vec<(Uuid, String)> = Vec::with_capacity(decided.counted.len());
        for job in jobs {
            if let (true, Some(tenant)) = (decided.counted.contains(&job.id), &job.gating.tenant) {
                counted.push((job.id.as_uuid(), tenant.as_str().to_owned()));
            }
        }
        self.take(connection, counted).await?;
        Ok(decided)
    }

    /// Gives back the places of jobs that have not been inserted after all.
    pub(super) async fn free_places(
        &self,
        connection: &mut PgConnection,
        jobs: Vec<Uuid>,
    ) -> Result<(), Error> {
        if jobs.is_empty() {
            return Ok(());
        }
        let tenants = self.rare("SELECT DISTINCT tenant FROM {schema}.quota_places WHERE job_id = ANY($1)");
        let tenants = tenants.bind(jobs.clone()).fetch_all(&mut *connection).await?;
        let tenants: Vec<String> = tenants.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        self.lock_quotas(connection, tenants).await?;
        self.rare(FREE).bind(jobs).execute(connection).await.map(drop)
    }

    /// Gives back the places of those of these jobs that are over.
    pub(super) async fn free_ended(
        &self,
        connection: &mut PgConnection,
        noted: &[Uuid],
    ) -> Result<(), Error> {
        let Some((least, greatest)) = range(noted) else { return Ok(()) };
        let over = self.rare(OVER).bind(noted.to_vec()).bind(least).bind(greatest);
        let over = over.fetch_all(&mut *connection).await?;
        let over = over.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        self.free_places(connection, over).await
    }

    /// Has jobs that have come to life again take a place, if their tenants have a quota, and follows them from now on.
    pub(super) async fn count_again(
        &self,
        connection: &mut PgConnection,
        mut jobs: Vec<Uuid>,
    ) -> Result<(), Error> {
        jobs.sort_unstable();
        let Some((least, greatest)) = range(&jobs) else { return Ok(()) };
        let counted = self.rare(OF_TENANTS).bind(jobs).bind(least).bind(greatest);
        let counted = counted.fetch_all(&mut *connection).await?;
        let counted: Vec<(Uuid, String)> =
            counted.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?;
        if counted.is_empty() {
            return Ok(());
        }
        self.lock_quotas(connection, counted.iter().map(|(_, tenant)| tenant.clone())).await?;
        self.take(connection, counted).await
    }

    async fn lock_quotas(
        &self,
        connection: &mut PgConnection,
        tenants: impl IntoIterator<Item = String>,
    ) -> Result<HashMap<String, i64>, Error> {
        let tenants: Vec<String> = tenants.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let rows = self.rare(LOCK).bind(tenants).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    async fn take(&self, connection: &mut PgConnection, counted: Vec<(Uuid, String)>) -> Result<(), Error> {
        if counted.is_empty() {
            return Ok(());
        }
        let (jobs, tenants): (Vec<_>, Vec<_>) = counted.into_iter().unzip();
        self.rare(TAKE).bind(jobs).bind(tenants).execute(connection).await.map(drop)
    }
}

#[async_trait]
impl Quotas for PostgresStore {
    async fn quota(&self, tenant: &Tenant) -> Result<Option<Quota>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let row = self
                .rare("SELECT max_unfinished, used FROM {schema}.quotas WHERE tenant = $1")
                .bind(tenant.as_str().to_owned())
                .fetch_optional(&mut *session)
                .await?;
            session.commit().await?;
            let Some(row) = row else { return Ok(None) };
            let max_unfinished = row.try_get::<i32, _>(0)?.try_into().map_err(unexpected)?;
            let unfinished = row.try_get::<i64, _>(1)?.try_into().map_err(unexpected)?;
            Ok(Some(Quota { max_unfinished, unfinished }))
        })
        .await
    }

    async fn set_quota(&self, tenant: &Tenant, max_unfinished: u32) -> Result<(), StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            self.rare(
                "INSERT INTO {schema}.quotas (tenant, max_unfinished) VALUES ($1, $2)
                 ON CONFLICT (tenant) DO UPDATE SET max_unfinished = excluded.max_unfinished",
            )
            .bind(tenant.as_str().to_owned())
            .bind(i32::try_from(max_unfinished).unwrap_or(i32::MAX))
            .execute(&mut *session)
            .await?;
            session.commit().await
        })
        .await
    }

    async fn remove_quota(&self, tenant: &Tenant) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.transaction().await?;
            let mut removed = 0;
            // First its row, for which those who take places wait.
            for statement in [
                "DELETE FROM {schema}.quotas WHERE tenant = $1",
                "DELETE FROM {schema}.quota_places WHERE tenant = $1",
            ] {
                let delete = self.rare(statement).bind(tenant.as_str().to_owned());
                removed += delete.execute(&mut *session).await?.rows_affected();
            }
            session.commit().await?;
            Ok(removed > 0)
        })
        .await
    }
}
