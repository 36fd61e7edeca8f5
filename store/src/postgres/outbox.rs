use std::{collections::BTreeMap, time::Duration};

use sqlx::{Error, Row};
use uuid::Uuid;
use windlass_core::{Lane, Message, OutboxGroup, OutboxId};

use super::{PostgresStore, claim::number, finish::seconds, unexpected};

/// Takes groups that are due, keeps them from other relays for a while, and shows those of their jobs that are still
/// queued; a group with none shows one row of nulls. Plan: nested loops into the primary key of one partition each.
pub(super) const TAKE: &str = "
WITH due AS (
    SELECT id FROM {schema}.outbox WHERE due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE {schema}.outbox o SET due_at = now() + interval '10 seconds'
    FROM due WHERE o.id = due.id
    RETURNING o.id, o.published, o.created_at, o.job_ids
)
SELECT t.id, t.published, extract(epoch FROM now() - t.created_at)::float8,
       q.id, q.attempt, q.queue, q.priority, q.kind, q.trace
FROM taken t LEFT JOIN LATERAL (
    SELECT j.id, j.attempt, j.queue, j.priority, j.kind, j.trace
    FROM unnest(t.job_ids) AS w (id) JOIN {schema}.jobs j ON j.id = w.id
    WHERE j.state = {queued}
) q ON true";

pub(super) const DROP: &str = "DELETE FROM {schema}.outbox WHERE id = ANY($1)";

/// The commit need not wait for the disk: lost, the group is merely published once more.
pub(super) const PUBLISHED: &str = "
WITH soft AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE {schema}.outbox SET published = true, due_at = now() + make_interval(secs => $2)
FROM soft WHERE id = ANY($1)";

/// Queues what is due. A stale time, of a job that is neither scheduled nor retrying, is dropped.
pub(super) const PROMOTE_DUE: &str = "
WITH ready AS (
    DELETE FROM {schema}.due WHERE job_id IN (
        SELECT job_id FROM {schema}.due WHERE run_at <= now() ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
    ) RETURNING job_id
), promoted AS (
    UPDATE {schema}.jobs j SET state = {to:due}, run_at = NULL
    FROM ready WHERE j.id = ready.job_id AND j.state IN ({from:due})
    RETURNING j.id
), ledger AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), now() FROM promoted HAVING count(*) > 0
)
SELECT count(*) FROM ready";

impl PostgresStore {
    pub(super) async fn take_groups(&self, limit: usize) -> Result<Vec<OutboxGroup>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.query(&self.sql.outbox_take).bind(limit).fetch_all(&self.pool).await?;
        let mut groups: BTreeMap<i64, OutboxGroup> = BTreeMap::new();
        for row in &rows {
            let id = row.try_get(0)?;
            let group = match groups.entry(id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(OutboxGroup {
                    id: OutboxId(id),
                    published: row.try_get(1)?,
                    age: Duration::try_from_secs_f64(row.try_get(2)?).unwrap_or_default(),
                    messages: Vec::new(),
                }),
            };
            let Some(job_id) = row.try_get::<Option<Uuid>, _>(3)? else { continue };
            let trace: Option<&str> = row.try_get(8)?;
            let priority = u8::try_from(row.try_get::<i16, _>(6)?).map_err(unexpected)?;
            group.messages.push(Message {
                job_id: job_id.into(),
                attempt: number(row.try_get(4)?)? + 1,
                lane: Lane {
                    queue: row.try_get::<&str, _>(5)?.parse().map_err(unexpected)?,
                    priority: priority.try_into().map_err(|e: windlass_core::InvalidPriority| unexpected(e))?,
                },
                kind: row.try_get::<&str, _>(7)?.parse().map_err(unexpected)?,
                trace: trace.and_then(|trace| trace.parse().ok()),
            });
        }
        let (live, over): (Vec<_>, Vec<_>) = groups.into_values().partition(|group| !group.messages.is_empty());
        if !over.is_empty() {
            let over: Vec<i64> = over.iter().map(|group| group.id.0).collect();
            self.query(&self.sql.outbox_drop).bind(over).execute(&self.pool).await?;
        }
        Ok(live)
    }

    pub(super) async fn mark_published(
        &self,
        groups: &[OutboxId],
        verify_after: Duration,
    ) -> Result<(), Error> {
        let ids: Vec<i64> = groups.iter().map(|group| group.0).collect();
        let query = self.query(&self.sql.outbox_published).bind(ids).bind(seconds(verify_after));
        query.execute(&self.pool).await.map(drop)
    }

    pub(super) async fn promote(&self, limit: usize) -> Result<usize, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let row = self.query(&self.sql.promote_due).bind(limit).fetch_one(&self.pool).await?;
        usize::try_from(row.try_get::<i64, _>(0)?).map_err(unexpected)
    }
}
