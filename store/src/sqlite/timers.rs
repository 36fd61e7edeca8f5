use sqlx::{Error, Row};

use super::{
    Commit, SqliteStore,
    followup::{bury, note_followups},
    ids, statement,
};
use crate::timers::{LATE, UNSTARTED};

/// When the timer of a job that is running is looked at again: the job may come back.
const LOOK_AGAIN_MICROS: i64 = 10_000_000;

statement!(
    // The fence goes up with the claims that do not count, so that the error record has one of its own.
    EXPIRE,
    "UPDATE jobs
     SET state = {to:expire}, finished_at = ?2, run_at = NULL, attempt = attempt + 1, uncounted = uncounted + 1
     WHERE id IN (SELECT value FROM json_each(?1)) AND state IN ({from:expire})
       AND (deadline <= ?2 OR (expires_at <= ?2 AND attempt = uncounted))
     RETURNING id, coalesce(deadline <= ?2, 0), followed"
);
statement!(
    NOTE,
    "INSERT INTO job_errors (job_id, fence, attempt, at, worker, message)
     SELECT id, attempt, attempt - uncounted, ?2, '', ?3 FROM jobs WHERE id = ?1"
);
statement!(
    KEEP,
    "UPDATE timers SET at = ?3
     WHERE job_id IN (SELECT value FROM json_each(?1)) AND at <= ?2 AND EXISTS (
         SELECT 1 FROM jobs j WHERE j.id = timers.job_id AND j.state NOT IN ({succeeded}, {cancelled}, {dead})
           AND (timers.deadline OR j.state = {running} OR j.attempt = j.uncounted))"
);
statement!(
    INSERT_TIMERS,
    "INSERT INTO timers (job_id, deadline, at)
     SELECT id, 0, expires_at FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND expires_at IS NOT NULL
     UNION ALL
     SELECT id, 1, deadline FROM jobs WHERE id IN (SELECT value FROM json_each(?1)) AND deadline IS NOT NULL"
);

impl SqliteStore {
    pub(super) async fn expire_jobs(&self, limit: usize) -> Result<usize, Error> {
        let now = self.now();
        // Mostly there is nothing, and then the writer need not be troubled.
        let due = sqlx::query("SELECT 1 FROM timers WHERE at <= ? LIMIT 1").bind(now);
        if due.fetch_optional(&self.readers).await?.is_none() {
            return Ok(0);
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let rows = sqlx::query("SELECT job_id FROM timers WHERE at <= ? ORDER BY at LIMIT ?")
            .bind(now)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *transaction)
            .await?;
        let jobs: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let jobs = ids(jobs);
        let over = sqlx::query(EXPIRE.clone()).bind(&jobs).bind(now).fetch_all(&mut *transaction).await?;
        let (mut dead, mut followed) = (Vec::new(), Vec::new());
        for row in &over {
            let id: String = row.try_get(0)?;
            let message = if row.try_get(1)? { LATE } else { UNSTARTED };
            sqlx::query(NOTE.clone()).bind(&id).bind(now).bind(message).execute(&mut *transaction).await?;
            if row.try_get(2)? {
                followed.push(id.clone());
            }
            dead.push(id);
        }
        sqlx::query("DELETE FROM due WHERE job_id IN (SELECT value FROM json_each(?))")
            .bind(ids(&dead))
            .execute(&mut *transaction)
            .await?;
        bury(&mut transaction, dead, now).await?;
        note_followups(&mut transaction, followed).await?;
        sqlx::query(KEEP.clone())
            .bind(&jobs)
            .bind(now)
            .bind(now + LOOK_AGAIN_MICROS)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM timers WHERE job_id IN (SELECT value FROM json_each(?)) AND at <= ?")
            .bind(&jobs)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(rows.len())
    }
}
