use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::{Error, Row};
use uuid::Uuid;
use windlass_core::{JobId, LogCursor, LogRecord, NewProgress, Note, UnknownLevel};

use super::{PostgresStore, claim::number, finish::seconds, range, unexpected};

/// Plan: as for a finish, joined with what was said. A late word of an older attempt is dropped.
pub(super) const PROGRESS: &str = "
INSERT INTO {schema}.job_progress (job_id, fence, at, value, message)
SELECT i.id, i.fence, {now} - make_interval(secs => i.age), i.value, i.message
FROM ROWS FROM (
    unnest($1::uuid[], $2::int4[], $3::float8[], $4::float8[], $5::text[]), generate_series(1, cardinality($1::uuid[]))
) AS i (id, fence, age, value, message, place)
JOIN {schema}.jobs j ON j.id = ANY($1::uuid[]) AND j.id >= $6 AND j.id <= $7 AND j.id = i.id AND j.attempt = i.fence
ORDER BY i.id
ON CONFLICT (job_id) DO UPDATE
    SET fence = excluded.fence, at = excluded.at, value = excluded.value, message = excluded.message";

/// Plan: as for the progress.
pub(super) const LINES: &str = "
INSERT INTO {schema}.job_logs (job_id, fence, number, attempt, at, level, message, fields)
SELECT i.id, i.fence, i.number, i.attempt, {now} - make_interval(secs => i.age), i.level, i.message, i.fields
FROM ROWS FROM (
    unnest($1::uuid[], $2::int4[], $3::int4[], $4::int4[], $5::float8[], $6::int2[], $7::text[], $8::text[]),
    generate_series(1, cardinality($1::uuid[]))
) AS i (id, fence, number, attempt, age, level, message, fields, place)
JOIN {schema}.jobs j ON j.id = ANY($1::uuid[]) AND j.id >= $9 AND j.id <= $10 AND j.id = i.id AND j.attempt = i.fence
ON CONFLICT DO NOTHING";

/// The lock keeps the lease from being lost before this is committed.
pub(super) const CHECKPOINT: &str = "
WITH held AS MATERIALIZED (
    SELECT id FROM {schema}.jobs WHERE id = $1 AND attempt = $2 AND state = {running} FOR SHARE
)
INSERT INTO {schema}.job_checkpoints (job_id, fence, at, value)
SELECT id, $2, {now}, $3 FROM held
ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, at = excluded.at, value = excluded.value";

impl PostgresStore {
    pub(super) async fn keep_notes(&self, notes: &[Note]) -> Result<(), Error> {
        let progress: HashMap<Uuid, (u32, &NewProgress)> = notes
            .iter()
            .filter_map(|note| Some((note.id.as_uuid(), (note.fence, note.progress.as_ref()?))))
            .collect();
        let mut lines: Vec<_> =
            notes.iter().flat_map(|note| note.lines.iter().map(move |line| (note, line))).collect();
        // In one order, so that groups do not wait for each other in a circle.
        lines.sort_by_key(|(note, line)| (note.id, note.fence, line.number));
        let mut session = self.transaction().await?;
        let ids: Vec<Uuid> = progress.keys().copied().collect();
        if let Some((least, greatest)) = range(&ids) {
            let each = || progress.values();
            self.rare(PROGRESS)
                .bind(ids)
                .bind(each().map(|(fence, _)| int(*fence)).collect::<Vec<_>>())
                .bind(each().map(|(_, progress)| seconds(progress.age)).collect::<Vec<_>>())
                .bind(each().map(|(_, progress)| progress.value).collect::<Vec<_>>())
                .bind(each().map(|(_, progress)| text(&progress.message)).collect::<Vec<_>>())
                .bind(least)
                .bind(greatest)
                .execute(&mut *session)
                .await?;
        }
        let ids: Vec<Uuid> = lines.iter().map(|(note, _)| note.id.as_uuid()).collect();
        if let Some((least, greatest)) = range(&ids) {
            let each = || lines.iter();
            self.rare(LINES)
                .bind(ids)
                .bind(each().map(|(note, _)| int(note.fence)).collect::<Vec<_>>())
                .bind(each().map(|(_, line)| int(line.number)).collect::<Vec<_>>())
                .bind(each().map(|(note, _)| int(note.attempt)).collect::<Vec<_>>())
                .bind(each().map(|(_, line)| seconds(line.age)).collect::<Vec<_>>())
                .bind(each().map(|(_, line)| line.level.code()).collect::<Vec<_>>())
                .bind(each().map(|(_, line)| text(&line.message)).collect::<Vec<_>>())
                .bind(
                    each()
                        .map(|(_, line)| line.fields.as_ref().map(|fields| fields.get().to_owned()))
                        .collect::<Vec<_>>(),
                )
                .bind(least)
                .bind(greatest)
                .execute(&mut *session)
                .await?;
        }
        session.commit().await
    }

    pub(super) async fn select_logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, Error> {
        let mut session = self.statement().await?;
        let rows = self
            .rare(
                "SELECT fence, number, attempt, at, level, message, fields FROM {schema}.job_logs
                 WHERE job_id = $1 AND (fence, number) > ($2, $3) ORDER BY fence, number LIMIT $4",
            )
            .bind(id.as_uuid())
            .bind(after.map_or(-1, |cursor| int(cursor.fence)))
            .bind(after.map_or(-1, |cursor| int(cursor.number)))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *session)
            .await?;
        session.commit().await?;
        rows.iter()
            .map(|row| {
                let fields: Option<String> = row.try_get(6)?;
                Ok(LogRecord {
                    cursor: LogCursor { fence: number(row.try_get(0)?)?, number: number(row.try_get(1)?)? },
                    attempt: number(row.try_get(2)?)?,
                    at: row.try_get(3)?,
                    level: row.try_get::<i16, _>(4)?.try_into().map_err(unexpected::<UnknownLevel>)?,
                    message: row.try_get(5)?,
                    fields: fields.map(RawValue::from_string).transpose().map_err(unexpected)?,
                })
            })
            .collect()
    }

    pub(super) async fn keep_checkpoint(
        &self,
        id: JobId,
        fence: u32,
        value: &RawValue,
    ) -> Result<bool, Error> {
        let mut session = self.statement().await?;
        let keep = self.rare(CHECKPOINT).bind(id.as_uuid()).bind(int(fence)).bind(value.get().to_owned());
        let kept = keep.execute(&mut *session).await?;
        session.commit().await?;
        Ok(kept.rows_affected() == 1)
    }

    pub(super) async fn select_checkpoint(&self, id: JobId) -> Result<Option<Box<RawValue>>, Error> {
        let mut session = self.statement().await?;
        let select = self.rare("SELECT value FROM {schema}.job_checkpoints WHERE job_id = $1");
        let row = select.bind(id.as_uuid()).fetch_optional(&mut *session).await?;
        session.commit().await?;
        row.map(|row| RawValue::from_string(row.try_get(0)?).map_err(unexpected)).transpose()
    }
}

fn int(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Postgres' text has no NUL.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
