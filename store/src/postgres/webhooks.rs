use std::{collections::HashSet, time::Duration};

use async_trait::async_trait;
use sqlx::{Error, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{
    DELIVERIES_KEPT, DeliveryAttempt, DeliveryRecord, JobId, MOST_WEBHOOKS, NewWebhook, StoreError,
    StoredSecret, UnknownState, WebhookEvent, WebhookFilter, WebhookId, WebhookRecord, Webhooks,
};

use super::{PostgresStore, claim::number, finish::seconds, gates::gating, range, unexpected};
use crate::{
    webhooks::{DRAINING, Ended, Listener, NewDelivery, deliveries, job, refused, with_standing},
    workflow::tenant,
};

const SELECT: &str = "
SELECT id, tenant, url, events, kinds, queues, enabled, created_at, secret,
       CASE WHEN old_until > {now} THEN old_secret END, CASE WHEN old_until > {now} THEN old_until END
FROM {schema}.webhooks";

/// A repeat finds the secret there, and leaves everything as it is.
const ROTATE: &str = "
UPDATE {schema}.webhooks
SET secret = $2,
    old_secret = CASE WHEN secret = $2 THEN old_secret ELSE secret END,
    old_until = CASE WHEN secret = $2 THEN old_until ELSE {now} + make_interval(secs => $3) END
WHERE id = $1";

/// Plan: primary keys of the partitions in range.
pub(super) const ENDED: &str = "
SELECT id, kind, queue, state, finished_at, gating FROM {schema}.jobs
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state IN ({succeeded}, {cancelled}, {dead})";

/// An end that has been noted twice is told once.
const LOG: &str = "
INSERT INTO {schema}.webhook_deliveries (id, webhook_id, event, job_id, at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::timestamptz[])
ON CONFLICT DO NOTHING RETURNING id";

const DELIVERIES: &str = "
SELECT id, webhook_id, event, job_id, at, attempt, status, error, attempted_at FROM {schema}.webhook_deliveries";

/// Deliveries that have been in the log for long enough: their ids are ordered by time.
const FORGET: &str = "
DELETE FROM {schema}.webhook_deliveries WHERE id = ANY(ARRAY(
    SELECT id FROM {schema}.webhook_deliveries
    WHERE id < (lpad(to_hex((extract(epoch FROM {now} - make_interval(secs => $1)) * 1000)::int8), 12, '0')
                || repeat('0', 20))::uuid
    ORDER BY id LIMIT 10000
))";

#[async_trait]
impl Webhooks for PostgresStore {
    async fn create_webhook(&self, webhook: &NewWebhook) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.transaction().await?;
            let insert = self.rare(
                "INSERT INTO {schema}.webhooks (id, tenant, url, events, kinds, queues, enabled, secret)
                 SELECT $1, $2, $3, $4, $5, $6, $7, $8
                 WHERE (SELECT count(*) FROM {schema}.webhooks WHERE tenant IS NOT DISTINCT FROM $2) < $9
                 ON CONFLICT (id) DO NOTHING",
            );
            let [events, kinds, queues] = columns(&webhook.filter);
            insert
                .bind(webhook.id.as_uuid())
                .bind(webhook.tenant.as_ref().map(|tenant| tenant.as_str().to_owned()))
                .bind(webhook.url.replace('\0', "\u{fffd}"))
                .bind(events)
                .bind(kinds)
                .bind(queues)
                .bind(webhook.enabled)
                .bind(webhook.secret.expose().to_owned())
                .bind(i64::try_from(MOST_WEBHOOKS).unwrap_or(i64::MAX))
                .execute(&mut *session)
                .await?;
            let there = self.select_webhook(&mut session, webhook.id).await?.is_some();
            session.commit().await?;
            Ok(there)
        })
        .await
    }

    async fn all_webhooks(&self) -> Result<Vec<WebhookRecord>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let select = self.rare(&format!("{SELECT} ORDER BY created_at, id"));
            let rows = select.fetch_all(&mut *session).await?;
            session.commit().await?;
            rows.iter().map(record).collect()
        })
        .await
    }

    async fn webhook(&self, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let found = self.select_webhook(&mut session, id).await?;
            session.commit().await?;
            Ok(found)
        })
        .await
    }

    async fn change_webhook(
        &self,
        id: WebhookId,
        url: &str,
        filter: &WebhookFilter,
    ) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let [events, kinds, queues] = columns(filter);
            let changed = self
                .rare("UPDATE {schema}.webhooks SET url = $2, events = $3, kinds = $4, queues = $5 WHERE id = $1")
                .bind(id.as_uuid())
                .bind(url.replace('\0', "\u{fffd}"))
                .bind(events)
                .bind(kinds)
                .bind(queues)
                .execute(&mut *session)
                .await?;
            session.commit().await?;
            Ok(changed.rows_affected() > 0)
        })
        .await
    }

    async fn enable_webhook(&self, id: WebhookId, enabled: bool) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let enable = self.rare("UPDATE {schema}.webhooks SET enabled = $2 WHERE id = $1");
            let done = enable.bind(id.as_uuid()).bind(enabled).execute(&mut *session).await?;
            session.commit().await?;
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
            let mut session = self.statement().await?;
            let rotate = self.rare(ROTATE).bind(id.as_uuid()).bind(secret.expose().to_owned());
            let rotated = rotate.bind(seconds(grace)).execute(&mut *session).await?;
            session.commit().await?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn delete_webhook(&self, id: WebhookId) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            let delete = self.rare("DELETE FROM {schema}.webhooks WHERE id = $1").bind(id.as_uuid());
            let deleted = delete.execute(&mut *session).await?;
            session.commit().await?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn test_webhook(&self, id: WebhookId, delivery: JobId) -> Result<bool, StoreError> {
        self.within(async {
            let mut session = self.transaction().await?;
            let Some(webhook) = self.select_webhook(&mut session, id).await? else { return Ok(false) };
            let at = self.rare("SELECT {now}").fetch_one(&mut *session).await?.try_get(0)?;
            let event = WebhookEvent::Test;
            let test =
                NewDelivery { id: delivery, webhook: id, tenant: webhook.tenant, event, job: None, at };
            self.make_deliveries(&mut session, &[test]).await?;
            session.commit().await?;
            Ok(true)
        })
        .await
    }

    async fn delivery(&self, id: JobId) -> Result<Option<DeliveryRecord>, StoreError> {
        self.within(async {
            let select = self.rare(&format!("{DELIVERIES} WHERE id = $1")).bind(id.as_uuid());
            let mut session = self.statement().await?;
            let row = select.fetch_optional(&mut *session).await?;
            session.commit().await?;
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
            let select = format!(
                "{DELIVERIES} WHERE webhook_id = $1
                 AND id < coalesce($2, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid) ORDER BY id DESC LIMIT $3"
            );
            let select = self.rare(&select).bind(id.as_uuid()).bind(before.map(JobId::as_uuid));
            let mut session = self.statement().await?;
            let select = select.bind(i64::try_from(limit).unwrap_or(i64::MAX));
            let rows = select.fetch_all(&mut *session).await?;
            session.commit().await?;
            let mut found: Vec<DeliveryRecord> = rows.iter().map(delivery).collect::<Result<_, _>>()?;
            let ids: Vec<JobId> = found.iter().map(|delivery| delivery.id).collect();
            with_standing(&mut found, self.select_standing(&ids).await?);
            Ok(found)
        })
        .await
    }

    async fn note_delivery(&self, id: JobId, attempt: &DeliveryAttempt) -> Result<(), StoreError> {
        self.within(async {
            let mut session = self.statement().await?;
            self.rare(
                "UPDATE {schema}.webhook_deliveries
                 SET attempt = $2, status = $3, error = $4, attempted_at = {now} WHERE id = $1",
            )
            .bind(id.as_uuid())
            .bind(i32::try_from(attempt.attempt).unwrap_or(i32::MAX))
            .bind(attempt.status.map(i32::from))
            .bind(attempt.error.as_ref().map(|error| error.replace('\0', "\u{fffd}")))
            .execute(&mut *session)
            .await?;
            session.commit().await
        })
        .await
    }
}

impl PostgresStore {
    async fn select_webhook(
        &self,
        connection: &mut PgConnection,
        id: WebhookId,
    ) -> Result<Option<WebhookRecord>, Error> {
        let select = self.rare(&format!("{SELECT} WHERE id = $1")).bind(id.as_uuid());
        select.fetch_optional(connection).await?.as_ref().map(record).transpose()
    }

    /// Makes deliveries of those of these jobs that are over. One that an operator has retried meanwhile tells its next end.
    pub(super) async fn tell_webhooks(
        &self,
        connection: &mut PgConnection,
        jobs: &[Uuid],
    ) -> Result<(), Error> {
        let Some((least, greatest)) = range(jobs) else { return Ok(()) };
        let select =
            self.rare("SELECT id, tenant, events, kinds, queues FROM {schema}.webhooks WHERE enabled");
        let listeners = select.fetch_all(&mut *connection).await?;
        let listeners: Vec<Listener> = listeners.iter().map(listener).collect::<Result<_, _>>()?;
        if listeners.is_empty() {
            return Ok(());
        }
        let select = self.rare(ENDED).bind(jobs.to_vec()).bind(least).bind(greatest);
        let ended = select.fetch_all(&mut *connection).await?;
        let ended: Vec<Ended> = ended.iter().map(end).collect::<Result<_, _>>()?;
        self.make_deliveries(connection, &deliveries(&listeners, &ended)).await
    }

    /// Makes these deliveries, but for those that have been made.
    async fn make_deliveries(&self, connection: &mut PgConnection, new: &[NewDelivery]) -> Result<(), Error> {
        if new.is_empty() {
            return Ok(());
        }
        let rows = self
            .rare(LOG)
            .bind(new.iter().map(|delivery| delivery.id.as_uuid()).collect::<Vec<_>>())
            .bind(new.iter().map(|delivery| delivery.webhook.as_uuid()).collect::<Vec<_>>())
            .bind(new.iter().map(|delivery| delivery.event.as_str()).collect::<Vec<_>>())
            .bind(new.iter().map(|delivery| delivery.job.map(JobId::as_uuid)).collect::<Vec<_>>())
            .bind(new.iter().map(|delivery| delivery.at).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
        let made: HashSet<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let made = new.iter().filter(|delivery| made.contains(&delivery.id.as_uuid()));
        let jobs = made.map(job).collect::<Result<Vec<_>, _>>()?;
        if jobs.is_empty() {
            return Ok(());
        }
        let inserted = self.insert_on(&mut *connection, &jobs, Duration::ZERO).await?;
        let refused = refused(&jobs, &inserted.outcomes);
        if !refused.is_empty() {
            self.rare("UPDATE {schema}.webhook_deliveries SET error = $2, attempt = 0 WHERE id = ANY($1)")
                .bind(refused.into_iter().map(JobId::as_uuid).collect::<Vec<_>>())
                .bind(DRAINING)
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    /// Removes a part of what has been in the log for long enough.
    pub(super) async fn forget_deliveries(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.rare(FORGET).bind(seconds(DELIVERIES_KEPT)).execute(connection).await.map(drop)
    }
}

fn columns(filter: &WebhookFilter) -> [Vec<String>; 3] {
    [
        filter.events.iter().map(ToString::to_string).collect(),
        filter.kinds.iter().map(ToString::to_string).collect(),
        filter.queues.iter().map(ToString::to_string).collect(),
    ]
}

/// What a webhook hears of, in three columns from this one on.
fn filter(row: &PgRow, first: usize) -> Result<WebhookFilter, Error> {
    fn parsed<T: std::str::FromStr>(texts: Vec<String>) -> Result<Vec<T>, Error>
    where
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        texts.iter().map(|text| text.parse().map_err(unexpected::<T::Err>)).collect()
    }
    Ok(WebhookFilter {
        events: parsed(row.try_get(first)?)?,
        kinds: parsed(row.try_get(first + 1)?)?,
        queues: parsed(row.try_get(first + 2)?)?,
    })
}

fn listener(row: &PgRow) -> Result<Listener, Error> {
    Ok(Listener {
        id: row.try_get::<Uuid, _>(0)?.into(),
        tenant: tenant(row.try_get(1)?)?,
        filter: filter(row, 2)?,
    })
}

fn record(row: &PgRow) -> Result<WebhookRecord, Error> {
    let secrets: [Option<String>; 2] = [row.try_get(8)?, row.try_get(9)?];
    Ok(WebhookRecord {
        id: row.try_get::<Uuid, _>(0)?.into(),
        tenant: tenant(row.try_get(1)?)?,
        url: row.try_get(2)?,
        filter: filter(row, 3)?,
        enabled: row.try_get(6)?,
        created_at: row.try_get(7)?,
        secrets: secrets.into_iter().flatten().map(StoredSecret::new).collect(),
        old_until: row.try_get(10)?,
    })
}

fn end(row: &PgRow) -> Result<Ended, Error> {
    Ok(Ended {
        id: row.try_get::<Uuid, _>(0)?.into(),
        kind: row.try_get(1)?,
        queue: row.try_get(2)?,
        state: row.try_get::<i16, _>(3)?.try_into().map_err(unexpected::<UnknownState>)?,
        at: row.try_get(4)?,
        tenant: gating(row, 5)?.tenant,
    })
}

fn delivery(row: &PgRow) -> Result<DeliveryRecord, Error> {
    let last = match row.try_get::<Option<i32>, _>(5)? {
        Some(attempt) => Some(DeliveryAttempt {
            attempt: number(attempt)?,
            status: row.try_get::<Option<i32>, _>(6)?.map(u16::try_from).transpose().map_err(unexpected)?,
            error: row.try_get(7)?,
        }),
        None => None,
    };
    Ok(DeliveryRecord {
        id: row.try_get::<Uuid, _>(0)?.into(),
        webhook: row.try_get::<Uuid, _>(1)?.into(),
        event: row.try_get::<&str, _>(2)?.parse().map_err(unexpected::<windlass_core::UnknownEvent>)?,
        job: row.try_get::<Option<Uuid>, _>(3)?.map(Into::into),
        at: row.try_get(4)?,
        last,
        attempted_at: row.try_get(8)?,
        state: None,
        next_at: None,
    })
}
