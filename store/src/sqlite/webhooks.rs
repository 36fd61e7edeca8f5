use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use sqlx::{Error, Row, SqliteConnection, sqlite::SqliteRow};
use windlass_core::{
    DELIVERIES_KEPT, DeliveryAttempt, DeliveryRecord, InvalidId, JobId, MOST_WEBHOOKS, NewWebhook,
    StoreError, StoredSecret, UnknownEvent, WebhookEvent, WebhookFilter, WebhookId, WebhookRecord, Webhooks,
};

use super::{
    Commit, SqliteStore, gates::gating, ids, insert::insert_jobs, micros, read, statement, timestamp,
    unexpected,
};
use crate::{
    webhooks::{DRAINING, Ended, Listener, NewDelivery, deliveries, job, refused, with_standing},
    workflow::tenant,
};

const SELECT: &str = "
SELECT id, tenant, url, events, kinds, queues, enabled, created_at, secret,
       iif(old_until > ?1, old_secret, NULL), iif(old_until > ?1, old_until, NULL)
FROM webhooks";
statement!(ALL, &format!("{SELECT} ORDER BY created_at, id"));
statement!(ONE, &format!("{SELECT} WHERE id = ?2"));

const DELIVERIES: &str = "
SELECT id, webhook_id, event, job_id, at, attempt, status, error, attempted_at FROM webhook_deliveries";
statement!(DELIVERY, &format!("{DELIVERIES} WHERE id = ?"));
statement!(
    PAGE,
    &format!("{DELIVERIES} WHERE webhook_id = ?1 AND id < coalesce(?2, 'g') ORDER BY id DESC LIMIT ?3")
);

statement!(
    ENDED,
    "SELECT id, kind, queue, state, finished_at, gating FROM jobs
     WHERE id IN (SELECT value FROM json_each(?)) AND state IN ({succeeded}, {cancelled}, {dead})"
);

#[async_trait]
impl Webhooks for SqliteStore {
    async fn create_webhook(&self, webhook: &NewWebhook) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let [events, kinds, queues] = columns(&webhook.filter)?;
            sqlx::query(
                "INSERT INTO webhooks (id, tenant, url, events, kinds, queues, enabled, secret, created_at)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9
                 WHERE (SELECT count(*) FROM webhooks WHERE tenant IS ?2) < ?10
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(webhook.id.to_string())
            .bind(webhook.tenant.as_ref().map(|tenant| tenant.as_str()))
            .bind(&webhook.url)
            .bind(events)
            .bind(kinds)
            .bind(queues)
            .bind(webhook.enabled)
            .bind(webhook.secret.expose())
            .bind(self.now())
            .bind(i64::try_from(MOST_WEBHOOKS).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
            let there = select_webhook(&mut transaction, webhook.id, self.now()).await?.is_some();
            transaction.commit().await?;
            Ok(there)
        })
        .await
    }

    async fn all_webhooks(&self) -> Result<Vec<WebhookRecord>, StoreError> {
        self.within(async {
            let select = sqlx::query(ALL.clone()).bind(self.now());
            select.fetch_all(&self.readers).await?.iter().map(record).collect()
        })
        .await
    }

    async fn webhook(&self, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        self.within(async { select_webhook(&mut *self.readers.acquire().await?, id, self.now()).await }).await
    }

    async fn change_webhook(
        &self,
        id: WebhookId,
        url: &str,
        filter: &WebhookFilter,
    ) -> Result<bool, StoreError> {
        self.within(async {
            let [events, kinds, queues] = columns(filter)?;
            let change = "UPDATE webhooks SET url = ?2, events = ?3, kinds = ?4, queues = ?5 WHERE id = ?1";
            let change = sqlx::query(change).bind(id.to_string()).bind(url);
            let mut transaction = self.write(Commit::Durable).await?;
            let changed = change.bind(events).bind(kinds).bind(queues).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(changed.rows_affected() > 0)
        })
        .await
    }

    async fn enable_webhook(&self, id: WebhookId, enabled: bool) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let enable = sqlx::query("UPDATE webhooks SET enabled = ?2 WHERE id = ?1");
            let done = enable.bind(id.to_string()).bind(enabled).execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(done.rows_affected() > 0)
        })
        .await
    }

    async fn rotate_webhook(
        &self,
        id: WebhookId,
        secret: &StoredSecret,
        grace: Duration,
    ) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            // A repeat finds the secret there, and leaves everything as it is.
            let rotated = sqlx::query(
                "UPDATE webhooks
                 SET secret = ?2, old_secret = iif(secret = ?2, old_secret, secret),
                     old_until = iif(secret = ?2, old_until, ?3)
                 WHERE id = ?1",
            )
            .bind(id.to_string())
            .bind(secret.expose())
            .bind(self.now() + micros(grace))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn delete_webhook(&self, id: WebhookId) -> Result<bool, StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Durable).await?;
            let delete = sqlx::query("DELETE FROM webhooks WHERE id = ?").bind(id.to_string());
            let deleted = delete.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn test_webhook(&self, id: WebhookId, delivery: JobId) -> Result<bool, StoreError> {
        self.within(async {
            let now = self.now();
            let mut transaction = self.write(Commit::Durable).await?;
            let Some(webhook) = select_webhook(&mut transaction, id, now).await? else { return Ok(false) };
            let (event, at) = (WebhookEvent::Test, timestamp(now)?);
            let test =
                NewDelivery { id: delivery, webhook: id, tenant: webhook.tenant, event, job: None, at };
            make_deliveries(&mut transaction, &[test], now).await?;
            transaction.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
        self.within(async {
            let select = sqlx::query(DELIVERY.clone()).bind(id.to_string());
            let row = select.fetch_optional(&self.readers).await?;
            let mut found: Vec<DeliveryRecord> = row.iter().map(delivery).collect::<Result<_, _>>()?;
            with_standing(&mut found, self.select_standing(&[id]).await?);
            Ok(found.pop())
        })
        .await
    }

    async fn deliveries(
        &self,
        id: WebhookId,
        before: Option<JobId>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        self.within(async {
            let select = sqlx::query(PAGE.clone()).bind(id.to_string());
            let select = select.bind(before.map(|id| id.to_string()));
            let select = select.bind(i64::try_from(limit).unwrap_or(i64::MAX));
            let rows = select.fetch_all(&self.readers).await?;
            let mut found: Vec<DeliveryRecord> = rows.iter().map(delivery).collect::<Result<_, _>>()?;
            let ids: Vec<JobId> = found.iter().map(|delivery| delivery.id).collect();
            with_standing(&mut found, self.select_standing(&ids).await?);
            Ok(found)
        })
        .await
    }

    async fn note_delivery(&self, id: JobId, attempt: &DeliveryAttempt) -> Result<(), StoreError> {
        self.within(async {
            let mut transaction = self.write(Commit::Soft).await?;
            sqlx::query(
                "UPDATE webhook_deliveries SET attempt = ?2, status = ?3, error = ?4, attempted_at = ?5
                 WHERE id = ?1",
            )
            .bind(id.to_string())
            .bind(attempt.attempt)
            .bind(attempt.status)
            .bind(attempt.error.as_deref())
            .bind(self.now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }
}

async fn select_webhook(
    connection: &mut SqliteConnection,
    id: WebhookId,
    now: i64,
) -> Result<Option<WebhookRecord>, Error> {
    let select = sqlx::query(ONE.clone()).bind(now).bind(id.to_string());
    select.fetch_optional(connection).await?.as_ref().map(record).transpose()
}

/// Makes deliveries of those of these jobs that are over. One that an operator has retried meanwhile tells its next end.
pub(super) async fn tell_webhooks(
    connection: &mut SqliteConnection,
    jobs: &[String],
    now: i64,
) -> Result<(), Error> {
    if jobs.is_empty() {
        return Ok(());
    }
    let select = sqlx::query("SELECT id, tenant, events, kinds, queues FROM webhooks WHERE enabled");
    let listeners = select.fetch_all(&mut *connection).await?;
    let listeners: Vec<Listener> = listeners.iter().map(listener).collect::<Result<_, _>>()?;
    if listeners.is_empty() {
        return Ok(());
    }
    let ended = sqlx::query(ENDED.clone()).bind(ids(jobs)).fetch_all(&mut *connection).await?;
    let ended: Vec<Ended> = ended.iter().map(end).collect::<Result<_, _>>()?;
    make_deliveries(connection, &deliveries(&listeners, &ended), now).await
}

/// Makes these deliveries, but for those that have been made: an end that has been noted twice is told once.
async fn make_deliveries(
    connection: &mut SqliteConnection,
    new: &[NewDelivery],
    now: i64,
) -> Result<(), Error> {
    if new.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        new.iter().map(|d| (d.id, d.webhook, d.event.as_str(), d.job, d.at.timestamp_micros())).collect();
    let made = sqlx::query(
        "INSERT INTO webhook_deliveries (id, webhook_id, event, job_id, at)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?) WHERE true
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(serde_json::to_string(&rows).map_err(unexpected)?)
    .fetch_all(&mut *connection)
    .await?;
    let made: HashSet<String> = made.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let made = new.iter().filter(|delivery| made.contains(&delivery.id.to_string()));
    let jobs = made.map(job).collect::<Result<Vec<_>, _>>()?;
    if jobs.is_empty() {
        return Ok(());
    }
    let inserted = insert_jobs(connection, &jobs, now, 0).await?;
    let refused = refused(&jobs, &inserted.outcomes);
    if !refused.is_empty() {
        sqlx::query(
            "UPDATE webhook_deliveries SET error = ?2, attempt = 0 WHERE id IN (SELECT value FROM json_each(?1))",
        )
        .bind(ids(refused))
        .bind(DRAINING)
        .execute(connection)
        .await?;
    }
    Ok(())
}

/// Removes a part of what has been in the log for long enough: ids are ordered by time.
pub(super) async fn forget_deliveries(connection: &mut SqliteConnection, now: i64) -> Result<(), Error> {
    let least = JobId::least_at(timestamp(now - micros(DELIVERIES_KEPT))?);
    sqlx::query(
        "DELETE FROM webhook_deliveries WHERE id IN
             (SELECT id FROM webhook_deliveries WHERE id < ? ORDER BY id LIMIT 10000)",
    )
    .bind(least.to_string())
    .execute(connection)
    .await
    .map(drop)
}

fn columns(filter: &WebhookFilter) -> Result<[String; 3], Error> {
    let texts = [
        serde_json::to_string(&filter.events),
        serde_json::to_string(&filter.kinds),
        serde_json::to_string(&filter.queues),
    ];
    let [events, kinds, queues] = texts.map(|text| text.map_err(unexpected));
    Ok([events?, kinds?, queues?])
}

fn list<T: DeserializeOwned>(row: &SqliteRow, column: usize) -> Result<Vec<T>, Error> {
    serde_json::from_str(row.try_get(column)?).map_err(unexpected)
}

/// What a webhook hears of, in three columns from this one on.
fn filter(row: &SqliteRow, first: usize) -> Result<WebhookFilter, Error> {
    Ok(WebhookFilter {
        events: list(row, first)?,
        kinds: list(row, first + 1)?,
        queues: list(row, first + 2)?,
    })
}

pub(super) fn listener(row: &SqliteRow) -> Result<Listener, Error> {
    Ok(Listener { id: webhook_id(row, 0)?, tenant: tenant(row.try_get(1)?)?, filter: filter(row, 2)? })
}

fn webhook_id(row: &SqliteRow, column: usize) -> Result<WebhookId, Error> {
    row.try_get::<&str, _>(column)?.parse().map_err(|error: InvalidId| unexpected(error))
}

fn record(row: &SqliteRow) -> Result<WebhookRecord, Error> {
    let secrets: [Option<String>; 2] = [row.try_get(8)?, row.try_get(9)?];
    Ok(WebhookRecord {
        id: webhook_id(row, 0)?,
        tenant: tenant(row.try_get(1)?)?,
        url: row.try_get(2)?,
        filter: filter(row, 3)?,
        enabled: row.try_get(6)?,
        created_at: timestamp(row.try_get(7)?)?,
        secrets: secrets.into_iter().flatten().map(StoredSecret::new).collect(),
        old_until: row.try_get::<Option<i64>, _>(10)?.map(timestamp).transpose()?,
    })
}

fn end(row: &SqliteRow) -> Result<Ended, Error> {
    Ok(Ended {
        id: read::id(row.try_get(0)?)?,
        kind: row.try_get(1)?,
        queue: row.try_get(2)?,
        state: read::state(row.try_get(3)?)?,
        at: timestamp(row.try_get(4)?)?,
        tenant: gating(row, 5)?.tenant,
    })
}

fn delivery(row: &SqliteRow) -> Result<DeliveryRecord, Error> {
    let last = match row.try_get::<Option<u32>, _>(5)? {
        Some(attempt) => Some(DeliveryAttempt { attempt, status: row.try_get(6)?, error: row.try_get(7)? }),
        None => None,
    };
    Ok(DeliveryRecord {
        id: read::id(row.try_get(0)?)?,
        webhook: webhook_id(row, 1)?,
        event: row.try_get::<&str, _>(2)?.parse().map_err(|error: UnknownEvent| unexpected(error))?,
        job: row.try_get::<Option<&str>, _>(3)?.map(read::id).transpose()?,
        at: timestamp(row.try_get(4)?)?,
        last,
        attempted_at: row.try_get::<Option<i64>, _>(8)?.map(timestamp).transpose()?,
        state: None,
        next_at: None,
    })
}
