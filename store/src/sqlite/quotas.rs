//! Quotas of tenants. All who write are one after the other, so nothing need be locked.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{NewJob, Quota, Quotas, StoreError, Tenant};

use super::{Commit, SqliteStore, ids, statement, unexpected};
use crate::quotas::{Decided, decide};

statement!(
    OVER,
    "SELECT p.job_id FROM json_each(?) i CROSS JOIN quota_places p ON p.job_id = i.value
     CROSS JOIN jobs j ON j.id = p.job_id
     WHERE j.state IN ({succeeded}, {cancelled}, {dead})"
);

/// Places that are there already stay as they are, and are not counted twice.
const TAKE: &str = "
INSERT INTO quota_places (job_id, tenant) SELECT value ->> 0, value ->> 1 FROM json_each(?) WHERE true
ON CONFLICT (job_id) DO NOTHING RETURNING tenant";

const FREE: &str =
    "DELETE FROM quota_places WHERE job_id IN (SELECT value FROM json_each(?)) RETURNING tenant";

statement!(
    // Unfinished jobs of tenants with a quota, whose ends are to be followed up.
    OF_TENANTS,
    "UPDATE jobs SET followed = 1
     WHERE id IN (SELECT value FROM json_each(?)) AND gating ->> 'tenant' IN (SELECT tenant FROM quotas)
       AND state NOT IN ({succeeded}, {cancelled}, {dead})
     RETURNING id, gating ->> 'tenant'"
);

/// How many places each of the tenants of these jobs has left, where it has a quota.
pub(super) async fn places_left<J: std::borrow::Borrow<NewJob>>(
    connection: &mut SqliteConnection,
    jobs: &[J],
) -> Result<HashMap<String, i64>, Error> {
    let tenants = jobs.iter().filter_map(|job| job.borrow().gating.tenant.as_ref());
    let tenants: HashSet<&str> = tenants.map(|tenant| tenant.as_str()).collect();
    if tenants.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT tenant, max_unfinished - used FROM quotas WHERE tenant IN (SELECT value FROM json_each(?))",
    )
    .bind(serde_json::to_string(&tenants).map_err(unexpected)?)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Decides which of these jobs, not yet inserted, get a place, and gives it to them.
pub(super) async fn take_places(
    connection: &mut SqliteConnection,
    jobs: &[&NewJob],
) -> Result<Decided, Error> {
    let left = places_left(connection, jobs).await?;
    if left.is_empty() {
        return Ok(Decided::default());
    }
    let before = sqlx::query("SELECT id FROM jobs WHERE id IN (SELECT value FROM json_each(?))")
        .bind(ids(jobs.iter().map(|job| job.id)))
        .fetch_all(&mut *connection)
        .await?;
    let before = before.iter().map(|row| super::read::id(row.try_get(0)?)).collect::<Result<_, _>>()?;
    let decided = decide(jobs.iter().copied(), left, &before);
    let counted = jobs.iter().filter(|job| decided.counted.contains(&job.id));
    let counted: Vec<_> = counted.map(|job| (job.id, &job.gating.tenant)).collect();
    take(connection, serde_json::to_string(&counted).map_err(unexpected)?).await?;
    Ok(decided)
}

/// Gives back the places of those of these jobs that are over.
pub(super) async fn free_ended(connection: &mut SqliteConnection, noted: &[String]) -> Result<(), Error> {
    let over = sqlx::query(OVER.clone()).bind(ids(noted)).fetch_all(&mut *connection).await?;
    if over.is_empty() {
        return Ok(());
    }
    let over: Vec<String> = over.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let freed = sqlx::query(FREE).bind(ids(over)).fetch_all(&mut *connection).await?;
    for row in freed {
        sqlx::query("UPDATE quotas SET used = used - 1 WHERE tenant = ?")
            .bind(row.try_get::<String, _>(0)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Has jobs that have come to life again take a place, if their tenants have a quota, and follows them from now on.
pub(super) async fn count_again(connection: &mut SqliteConnection, jobs: &[String]) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    let counted = sqlx::query(OF_TENANTS.clone()).bind(ids(jobs)).fetch_all(&mut *connection).await?;
    let counted: Vec<(String, String)> =
        counted.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_, Error>>()?;
    take(connection, serde_json::to_string(&counted).map_err(unexpected)?).await
}

/// `counted` is a list of jobs and their tenants.
async fn take(connection: &mut SqliteConnection, counted: String) -> Result<(), Error> {
    for row in sqlx::query(TAKE).bind(counted).fetch_all(&mut *connection).await? {
        sqlx::query("UPDATE quotas SET used = used + 1 WHERE tenant = ?")
            .bind(row.try_get::<String, _>(0)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl Quotas for SqliteStore {
    async fn quota(&self, tenant: &Tenant) -> Result<Option<Quota>, StoreError> {
        self.within(async {
            let row = sqlx::query("SELECT max_unfinished, used FROM quotas WHERE tenant = ?")
                .bind(tenant.as_str())
                .fetch_optional(&self.readers)
                .await?;
            let Some(row) = row else { return Ok(None) };
            let max_unfinished = row.try_get::<i64, _>(0)?.try_into().map_err(unexpected)?;
            let unfinished = row.try_get::<i64, _>(1)?.try_into().map_err(unexpected)?;
            Ok(Some(Quota { max_unfinished, unfinished }))
        })
        .await
    }

    async fn set_quota(&self, tenant: &Tenant, max_unfinished: u32) -> Result<(), StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            sqlx::query(
                "INSERT INTO quotas (tenant, max_unfinished) VALUES (?, ?)
                 ON CONFLICT (tenant) DO UPDATE SET max_unfinished = excluded.max_unfinished",
            )
            .bind(tenant.as_str())
            .bind(max_unfinished)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }

    async fn remove_quota(&self, tenant: &Tenant) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let mut removed = 0;
            for statement in
                ["DELETE FROM quotas WHERE tenant = ?", "DELETE FROM quota_places WHERE tenant = ?"]
            {
                let delete = sqlx::query(statement).bind(tenant.as_str());
                removed += delete.execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            Ok(removed > 0)
        })
        .await
    }
}
