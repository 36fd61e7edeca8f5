use std::collections::HashMap;

use serde_json::value::RawValue;
use sqlx::{Error, Row, sqlite::SqliteRow};
use windlass_core::{JobId, LogCursor, LogRecord, NewProgress, Note, UnknownLevel};

use super::{Commit, SqliteStore, micros, statement, timestamp, unexpected};

statement!(
    PROGRESS,
    "INSERT INTO job_progress (job_id, fence, at, value, message)
     SELECT i.value ->> 0, i.value ->> 1, i.value ->> 2, i.value ->> 3, i.value ->> 4
     FROM json_each(?) i CROSS JOIN jobs j ON j.id = i.value ->> 0 AND j.attempt = i.value ->> 1
     WHERE true
     ON CONFLICT (job_id) DO UPDATE
         SET fence = excluded.fence, at = excluded.at, value = excluded.value, message = excluded.message"
);
statement!(
    LINES,
    "INSERT INTO job_logs (job_id, fence, number, attempt, at, level, message, fields)
     SELECT i.value ->> 0, i.value ->> 1, i.value ->> 2, i.value ->> 3, i.value ->> 4, i.value ->> 5, i.value ->> 6,
            i.value ->> 7
     FROM json_each(?) i CROSS JOIN jobs j ON j.id = i.value ->> 0 AND j.attempt = i.value ->> 1
     WHERE true
     ON CONFLICT DO NOTHING"
);
statement!(
    CHECKPOINT,
    "INSERT INTO job_checkpoints (job_id, fence, at, value)
     SELECT id, attempt, ?3, ?4 FROM jobs WHERE id = ?1 AND attempt = ?2 AND state = {running}
     ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, at = excluded.at, value = excluded.value"
);

impl SqliteStore {
    pub(super) async fn keep_notes(&self, notes: &[Note]) -> Result<(), Error> {
        let now = self.now();
        let progress: HashMap<JobId, (u32, &NewProgress)> =
            notes.iter().filter_map(|note| Some((note.id, (note.fence, note.progress.as_ref()?)))).collect();
        let progress: Vec<_> = progress
            .into_iter()
            .map(|(id, (fence, said))| (id, fence, now - micros(said.age), said.value, text(&said.message)))
            .collect();
        let lines: Vec<_> = notes
            .iter()
            .flat_map(|note| note.lines.iter().map(move |line| (note, line)))
            .map(|(note, line)| {
                let fields = line.fields.as_ref().map(|fields| fields.get());
                let at = now - micros(line.age);
                let message = text(&line.message);
                (note.id, note.fence, line.number, note.attempt, at, line.level.code(), message, fields)
            })
            .collect();
        let mut transaction = self.write(Commit::Soft).await?;
        if !progress.is_empty() {
            let progress = serde_json::to_string(&progress).map_err(unexpected)?;
            sqlx::query(PROGRESS.clone()).bind(progress).execute(&mut *transaction).await?;
        }
        if !lines.is_empty() {
            let lines = serde_json::to_string(&lines).map_err(unexpected)?;
            sqlx::query(LINES.clone()).bind(lines).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn select_logs(
        &self,
        id: JobId,
        after: Option<LogCursor>,
        limit: usize,
    ) -> Result<Vec<LogRecord>, Error> {
        let rows = sqlx::query(
            "SELECT fence, number, attempt, at, level, message, fields FROM job_logs
             WHERE job_id = ?1 AND (fence, number) > (?2, ?3) ORDER BY fence, number LIMIT ?4",
        )
        .bind(id.to_string())
        .bind(after.map_or(-1, |cursor| i64::from(cursor.fence)))
        .bind(after.map_or(-1, |cursor| i64::from(cursor.number)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(line).collect()
    }

    pub(super) async fn keep_checkpoint(
        &self,
        id: JobId,
        fence: u32,
        value: &RawValue,
    ) -> Result<bool, Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let kept = sqlx::query(CHECKPOINT.clone())
            .bind(id.to_string())
            .bind(fence)
            .bind(self.now())
            .bind(value.get())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(kept.rows_affected() == 1)
    }

    pub(super) async fn select_checkpoint(&self, id: JobId) -> Result<Option<Box<RawValue>>, Error> {
        let select = sqlx::query("SELECT value FROM job_checkpoints WHERE job_id = ?").bind(id.to_string());
        let row = select.fetch_optional(&self.readers).await?;
        row.map(|row| RawValue::from_string(row.try_get(0)?).map_err(unexpected)).transpose()
    }
}

fn line(row: &SqliteRow) -> Result<LogRecord, Error> {
    let fields: Option<String> = row.try_get(6)?;
    Ok(LogRecord {
        cursor: LogCursor { fence: row.try_get(0)?, number: row.try_get(1)? },
        attempt: row.try_get(2)?,
        at: timestamp(row.try_get(3)?)?,
        level: row.try_get::<i16, _>(4)?.try_into().map_err(|error: UnknownLevel| unexpected(error))?,
        message: row.try_get(5)?,
        fields: fields.map(RawValue::from_string).transpose().map_err(unexpected)?,
    })
}

/// A NUL would end the text on its way through JSON.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
