use std::time::Duration;

use sqlx::{Error, Row, SqliteConnection};
use windlass_core::{Lane, Message, OutboxGroup, OutboxId, State};

use super::{
    Commit, SqliteStore, followup::note_followups, gates::gating, ids, insert::insert_outbox, micros, read,
    statement, unexpected,
};

/// How long a group that a relay has taken is left alone by others.
const TAKEN_MICROS: i64 = 10_000_000;

/// And one whose queues are paused.
const PAUSED_MICROS: i64 = 60_000_000;

statement!(
    STILL_QUEUED,
    "SELECT id, attempt, queue, priority, kind, trace, queue IN (SELECT name FROM queues WHERE paused), gating
     FROM jobs
     WHERE id IN (SELECT value FROM json_each(?)) AND state = {queued}"
);
statement!(
    PROMOTE,
    "UPDATE jobs
     SET state = iif(gated OR held OR queue IN (SELECT name FROM queues WHERE limited), {to:hold}, {to:due}),
         gated = gated OR queue IN (SELECT name FROM queues WHERE limited),
         followed = followed OR queue IN (SELECT name FROM queues WHERE limited),
         run_at = NULL
     WHERE id IN (SELECT value FROM json_each(?)) AND state IN ({from:due}) RETURNING id, state"
);

impl SqliteStore {
    pub(super) async fn take_groups(&self, limit: usize) -> Result<Vec<OutboxGroup>, Error> {
        let now = self.now();
        // Mostly there is nothing, and then the writer need not be troubled.
        let due = sqlx::query("SELECT 1 FROM outbox WHERE due_at <= ? LIMIT 1").bind(now);
        if due.fetch_optional(&self.readers).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut transaction = self.write(Commit::Soft).await?;
        let rows = sqlx::query(
            "SELECT id, published, created_at, job_ids FROM outbox WHERE due_at <= ? ORDER BY due_at LIMIT ?",
        )
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let mut groups = Vec::new();
        for row in &rows {
            let id: i64 = row.try_get(0)?;
            let (messages, paused) = messages(&mut transaction, row.try_get(3)?).await?;
            if messages.is_empty() && !paused {
                sqlx::query("DELETE FROM outbox WHERE id = ?").bind(id).execute(&mut *transaction).await?;
                continue;
            }
            sqlx::query("UPDATE outbox SET due_at = ? WHERE id = ?")
                .bind(now + if messages.is_empty() { PAUSED_MICROS } else { TAKEN_MICROS })
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            if messages.is_empty() {
                continue;
            }
            let age = (now - row.try_get::<i64, _>(2)?).max(0);
            groups.push(OutboxGroup {
                id: OutboxId(id),
                published: row.try_get(1)?,
                age: Duration::from_micros(age.unsigned_abs()),
                messages,
            });
        }
        transaction.commit().await?;
        Ok(groups)
    }

    pub(super) async fn mark_published(
        &self,
        groups: &[OutboxId],
        verify_after: Duration,
    ) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let groups: Vec<String> = groups.iter().map(|group| group.0.to_string()).collect();
        sqlx::query(
            "UPDATE outbox SET published = 1, due_at = ? WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(self.now() + micros(verify_after))
        .bind(format!("[{}]", groups.join(",")))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await
    }

    pub(super) async fn promote(&self, limit: usize) -> Result<usize, Error> {
        let now = self.now();
        // As in `take_groups`.
        let due = sqlx::query("SELECT 1 FROM due WHERE run_at <= ? LIMIT 1").bind(now);
        if due.fetch_optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let rows = sqlx::query(
            "DELETE FROM due WHERE job_id IN (SELECT job_id FROM due WHERE run_at <= ? ORDER BY run_at LIMIT ?)
             RETURNING job_id",
        )
        .bind(now)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        let ready: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let count = ready.len();
        let rows = sqlx::query(PROMOTE.clone()).bind(ids(ready)).fetch_all(&mut *transaction).await?;
        let (mut promoted, mut followed) = (Vec::new(), Vec::new());
        for row in &rows {
            let held = read::state(row.try_get(1)?)? == State::Waiting;
            if held { &mut followed } else { &mut promoted }.push(row.try_get(0)?);
        }
        insert_outbox(&mut transaction, promoted, now, now).await?;
        note_followups(&mut transaction, followed).await?;
        transaction.commit().await?;
        Ok(count)
    }
}

/// Messages for those of these jobs that are still queued; and whether there are more, of paused queues, whose messages
/// nobody would take.
async fn messages(connection: &mut SqliteConnection, job_ids: &str) -> Result<(Vec<Message>, bool), Error> {
    let rows = sqlx::query(STILL_QUEUED.clone()).bind(job_ids).fetch_all(connection).await?;
    let mut messages = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get(6)? {
            continue;
        }
        let trace: Option<&str> = row.try_get(5)?;
        messages.push(Message {
            job_id: read::id(row.try_get(0)?)?,
            attempt: row.try_get::<u32, _>(1)? + 1,
            lane: Lane {
                queue: row.try_get::<&str, _>(2)?.parse().map_err(unexpected)?,
                priority: read::priority(row.try_get(3)?)?,
            },
            kind: row.try_get::<&str, _>(4)?.parse().map_err(unexpected)?,
            trace: trace.and_then(|trace| trace.parse().ok()),
            ordering_key: gating(row, 7)?.ordering_key,
        });
    }
    let paused = messages.len() < rows.len();
    Ok((messages, paused))
}
