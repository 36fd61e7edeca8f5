use std::time::Duration;

use sqlx::{Error, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{Lane, Message, OutboxGroup, OutboxId};

use super::{PostgresStore, claim::number, finish::seconds, gates::gating, priority, unexpected};

/// Takes groups that are due, shows those of their jobs that are still queued, keeps other relays from these groups
/// for a while, and drops the groups without any. Such a group is over for good: whatever queues a job again writes a
/// group of its own. Jobs of a paused queue keep their group, but are not shown: nobody would take their messages.
///
/// Plan: the array of ids into the primary keys of the partitions in range. An array, since the planner takes a limit
/// it does not know for a tenth of the table, and would read all jobs to join so many.
pub(super) const TAKE: &str = "
WITH ready AS MATERIALIZED (
    SELECT id, published, created_at, job_ids
    FROM {schema}.outbox WHERE due_at <= {now} ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), listed AS MATERIALIZED (
    SELECT r.id AS group_id, r.published, r.created_at, w.id
    FROM ready r CROSS JOIN LATERAL unnest(r.job_ids) AS w (id)
), wanted AS MATERIALIZED (
    SELECT ARRAY(SELECT DISTINCT id FROM listed ORDER BY id) AS ids
), live AS MATERIALIZED (
    SELECT id, attempt, queue, priority, kind, trace, gating FROM {schema}.jobs
    WHERE id = ANY((SELECT ids FROM wanted)::uuid[])
    AND id >= (SELECT ids[1] FROM wanted) AND id <= (SELECT ids[cardinality(ids)] FROM wanted)
    AND state = {queued}
), said AS MATERIALIZED (
    SELECT ARRAY(SELECT name FROM {schema}.queues WHERE paused) AS paused
), waiting AS MATERIALIZED (
    SELECT l.group_id, l.published, l.created_at, j.*, j.queue = ANY((SELECT paused FROM said)::text[]) AS paused
    FROM listed l JOIN live j ON j.id = l.id
), kept AS (
    UPDATE {schema}.outbox
    SET due_at = {now} + CASE
        WHEN id = ANY(ARRAY(SELECT group_id FROM waiting WHERE NOT paused)) THEN interval '10 seconds'
        ELSE interval '1 minute' END
    WHERE id = ANY(ARRAY(SELECT group_id FROM waiting))
), over AS (
    DELETE FROM {schema}.outbox WHERE id = ANY(ARRAY(SELECT id FROM ready EXCEPT SELECT group_id FROM waiting))
)
SELECT group_id, published, extract(epoch FROM {now} - created_at)::float8,
       id, attempt, queue, priority, kind, trace, gating
FROM waiting WHERE NOT paused ORDER BY group_id, id";

/// The commit need not wait for the disk: lost, the group is merely published once more.
pub(super) const PUBLISHED: &str = "
WITH soft AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE {schema}.outbox SET published = true, due_at = {now} + make_interval(secs => $2)
FROM soft WHERE id = ANY($1)";

/// Queues what is due, or lets it wait for other jobs. A stale time, of a job that is neither scheduled nor retrying, is dropped.
///
/// Plan: as for [`TAKE`].
pub(super) const PROMOTE_DUE: &str = "
WITH ready AS (
    DELETE FROM {schema}.due WHERE job_id = ANY(ARRAY(
        SELECT job_id FROM {schema}.due WHERE run_at <= {now} ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
    )) RETURNING job_id
), wanted AS MATERIALIZED (
    SELECT ARRAY(SELECT job_id FROM ready ORDER BY job_id) AS ids
), said AS MATERIALIZED (
    SELECT ARRAY(SELECT name FROM {schema}.queues WHERE limited) AS limited
), promoted AS (
    UPDATE {schema}.jobs
    SET state = CASE WHEN gated OR held OR queue = ANY((SELECT limited FROM said)::text[]) THEN {to:hold} ELSE {to:due} END,
        gated = gated OR queue = ANY((SELECT limited FROM said)::text[]),
        followed = followed OR queue = ANY((SELECT limited FROM said)::text[]),
        run_at = NULL
    WHERE id = ANY((SELECT ids FROM wanted)::uuid[])
    AND id >= (SELECT ids[1] FROM wanted) AND id <= (SELECT ids[cardinality(ids)] FROM wanted)
    AND state IN ({from:due})
    RETURNING id, state
), ledger AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM promoted WHERE state = {queued} HAVING count(*) > 0
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM promoted WHERE state = {waiting} ORDER BY id
)
SELECT count(*) FROM promoted";

impl PostgresStore {
    pub(super) async fn take_groups(&self, limit: usize) -> Result<Vec<OutboxGroup>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut session = self.statement().await?;
        let rows = self.query(&self.sql.outbox_take).bind(limit).fetch_all(&mut *session).await?;
        session.commit().await?;
        let mut groups: Vec<OutboxGroup> = Vec::new();
        for row in &rows {
            let id = OutboxId(row.try_get(0)?);
            let message = message(row)?;
            match groups.last_mut().filter(|group| group.id == id) {
                Some(group) => group.messages.push(message),
                None => groups.push(OutboxGroup {
                    id,
                    published: row.try_get(1)?,
                    age: Duration::try_from_secs_f64(row.try_get(2)?).unwrap_or_default(),
                    messages: vec![message],
                }),
            }
        }
        Ok(groups)
    }

    pub(super) async fn mark_published(
        &self,
        groups: &[OutboxId],
        verify_after: Duration,
    ) -> Result<(), Error> {
        let ids: Vec<i64> = groups.iter().map(|group| group.0).collect();
        let query = self.query(&self.sql.outbox_published).bind(ids).bind(seconds(verify_after));
        let mut session = self.statement().await?;
        query.execute(&mut *session).await?;
        session.commit().await
    }

    pub(super) async fn promote(&self, limit: usize) -> Result<usize, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut session = self.statement().await?;
        let row = self.query(&self.sql.promote_due).bind(limit).fetch_one(&mut *session).await?;
        session.commit().await?;
        usize::try_from(row.try_get::<i64, _>(0)?).map_err(unexpected)
    }
}

fn message(row: &PgRow) -> Result<Message, Error> {
    let trace: Option<&str> = row.try_get(8)?;
    Ok(Message {
        job_id: row.try_get::<Uuid, _>(3)?.into(),
        attempt: number(row.try_get(4)?)?.saturating_add(1),
        lane: Lane {
            queue: row.try_get::<&str, _>(5)?.parse().map_err(unexpected)?,
            priority: priority(row, 6)?,
        },
        kind: row.try_get::<&str, _>(7)?.parse().map_err(unexpected)?,
        trace: trace.and_then(|trace| trace.parse().ok()),
        ordering_key: gating(row, 9)?.ordering_key,
    })
}
