use sqlx::{Error, Row};
use uuid::Uuid;

use super::{PostgresStore, range};
use crate::timers::{LATE, UNSTARTED};

/// Makes those of these jobs dead whose time is over. The fence goes up with the claims that do not count, so that the
/// error record has one of its own. Times of jobs are taken as far as nobody else is at them; what is left of them is
/// dropped when it is due.
pub(super) const EXPIRE: &str = "
WITH over AS (
    UPDATE {schema}.jobs j
    SET state = {to:expire}, finished_at = {now}, run_at = NULL, attempt = j.attempt + 1, uncounted = j.uncounted + 1
    WHERE j.id = ANY($1::uuid[]) AND j.id >= $2 AND j.id <= $3 AND j.state IN ({from:expire})
    AND (j.deadline <= {now} OR (j.expires_at <= {now} AND j.attempt = j.uncounted))
    RETURNING j.id, j.attempt, j.uncounted, j.followed, coalesce(j.deadline <= {now}, false) AS late
), noted AS (
    INSERT INTO {schema}.job_errors (job_id, fence, attempt, at, worker, message)
    SELECT id, attempt, attempt - uncounted, {now}, '', CASE WHEN late THEN $4 ELSE $5 END FROM over
), buried AS (
    INSERT INTO {schema}.dead (job_id, at) SELECT id, {now} FROM over
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM over WHERE followed
)
DELETE FROM {schema}.due WHERE job_id = ANY(ARRAY(
    SELECT job_id FROM {schema}.due WHERE job_id = ANY(ARRAY(SELECT id FROM over)) FOR UPDATE SKIP LOCKED
))";

/// A timer whose job is running, or was a moment ago, is looked at again: the job may come back. Only those that this sweep
/// holds: the job's other timer may be in another's hands.
pub(super) const KEEP: &str = "
UPDATE {schema}.timers t SET at = {now} + interval '10 seconds' FROM {schema}.jobs j
WHERE t.job_id = ANY($1) AND (t.job_id, t.deadline) IN (SELECT * FROM unnest($4::uuid[], $5::boolean[])) AND t.at <= {now}
AND j.id = ANY($1) AND j.id >= $2 AND j.id <= $3 AND j.id = t.job_id AND j.state NOT IN ({succeeded}, {cancelled}, {dead})
AND (t.deadline OR j.state = {running} OR j.attempt = j.uncounted)";

const FORGET: &str = "
DELETE FROM {schema}.timers
WHERE job_id = ANY($1) AND (job_id, deadline) IN (SELECT * FROM unnest($1::uuid[], $2::boolean[])) AND at <= {now}";

impl PostgresStore {
    pub(super) async fn expire_jobs(&self, limit: usize) -> Result<usize, Error> {
        let mut session = self.transaction().await?;
        let rows = self
            .rare(
                "SELECT job_id, deadline FROM {schema}.timers WHERE at <= {now} ORDER BY at LIMIT $1 FOR UPDATE SKIP LOCKED",
            )
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *session)
            .await?;
        let held: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let deadlines: Vec<bool> = rows.iter().map(|row| row.try_get(1)).collect::<Result<_, _>>()?;
        let mut ids = held.clone();
        // In the order in which claims lock rows.
        ids.sort_unstable();
        ids.dedup();
        if let Some((least, greatest)) = range(&ids) {
            let expire =
                self.rare(EXPIRE).bind(ids.clone()).bind(least).bind(greatest).bind(LATE).bind(UNSTARTED);
            expire.execute(&mut *session).await?;
            let keep = self.rare(KEEP).bind(ids.clone()).bind(least).bind(greatest);
            keep.bind(held.clone()).bind(deadlines.clone()).execute(&mut *session).await?;
            self.rare(FORGET).bind(held).bind(deadlines).execute(&mut *session).await?;
        }
        session.commit().await?;
        Ok(rows.len())
    }
}
