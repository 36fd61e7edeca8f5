use std::time::Duration;

use sqlx::{Error, PgConnection, Row, postgres::PgRow};
use uuid::Uuid;
use windlass_core::{ClaimId, Finish, JobId, Outcome, WorkerId};

use super::{PostgresStore, range};

/// Records a group of outcomes in one statement, each only under its fence. Plan: as for a claim, joined with the
/// outcomes by a hash. A prepared statement's plan expects ten elements of any array, few enough for comparing each job
/// with each outcome: a quarter of a million comparisons for a full group. The series beside them is expected to have a
/// thousand.
pub(super) const FINISH: &str = "
WITH input AS (
    SELECT * FROM ROWS FROM (
        unnest($2::uuid[], $3::int4[], $4::int2[], $5::int4[], $6::float8[], $7::text[], $8::text[], $12::float8[]),
        generate_series(1, cardinality($2::uuid[]))
    ) AS i (id, fence, target, uncounted, after, result, error, keep, place)
), done AS (
    UPDATE {schema}.jobs j
    SET state = CASE WHEN j.cancel_requested AND i.target NOT IN ({succeeded}, {dead}) THEN {to:abort} ELSE i.target END,
        uncounted = j.uncounted + i.uncounted,
        run_at = CASE WHEN NOT j.cancel_requested THEN {now} + make_interval(secs => i.after) END,
        finished_at = CASE WHEN j.cancel_requested OR i.target IN ({succeeded}, {cancelled}, {dead}) THEN {now} END,
        result = i.result
    FROM input i
    WHERE j.id = ANY($2::uuid[]) AND j.id >= $9 AND j.id <= $10
    AND j.id = i.id AND j.attempt = i.fence AND j.state = {running}
    RETURNING j.id, j.state, j.attempt, j.uncounted, j.run_at, j.cancel_requested, j.followed, i.error, i.result, i.keep
), failed AS (
    INSERT INTO {schema}.job_errors (job_id, fence, attempt, at, worker, message)
    SELECT id, attempt, attempt - uncounted, {now},
           coalesce((SELECT label FROM {schema}.workers WHERE id = $1), $1::text), error
    FROM done WHERE error IS NOT NULL
), waiting AS (
    INSERT INTO {schema}.due (job_id, run_at)
    SELECT id, run_at FROM done WHERE state IN ({scheduled}, {retrying})
    ON CONFLICT (job_id) DO UPDATE SET run_at = excluded.run_at
), released AS (
    INSERT INTO {schema}.outbox (job_ids, due_at)
    SELECT array_agg(id), {now} FROM done WHERE state = {queued} HAVING count(*) > 0
), settled AS (
    DELETE FROM {schema}.cancellations WHERE job_id IN (SELECT id FROM done WHERE cancel_requested)
), buried AS (
    INSERT INTO {schema}.dead (job_id, at) SELECT id, {now} FROM done WHERE state = {dead}
), expiring AS (
    INSERT INTO {schema}.expiring_results (job_id, expires_at)
    SELECT id, {now} + make_interval(secs => keep) FROM done WHERE keep IS NOT NULL AND result IS NOT NULL
    ON CONFLICT (job_id) DO UPDATE SET expires_at = excluded.expires_at
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM done WHERE followed AND state <> {queued}
), closed AS (
    DELETE FROM {schema}.claims WHERE id = ANY($11)
)
SELECT id FROM done";

/// The same where all have succeeded without a result, under the same fence, as is usual: for two thirds of the time.
pub(super) const FINISH_PLAIN: &str = "
WITH done AS (
    UPDATE {schema}.jobs j SET state = {succeeded}, run_at = NULL, finished_at = {now}, result = NULL
    WHERE j.id = ANY($1::uuid[]) AND j.id >= $2 AND j.id <= $3 AND j.attempt = $4 AND j.state = {running}
    RETURNING j.id, j.cancel_requested, j.followed
), settled AS (
    DELETE FROM {schema}.cancellations WHERE job_id IN (SELECT id FROM done WHERE cancel_requested)
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM done WHERE followed
), closed AS (
    DELETE FROM {schema}.claims WHERE id = ANY($5)
)
SELECT id FROM done";

impl PostgresStore {
    pub(super) async fn finish_on(
        &self,
        connection: &mut PgConnection,
        worker: WorkerId,
        finishes: &[Finish],
        closed: &[ClaimId],
    ) -> Result<Vec<JobId>, Error> {
        // In the order in which claims lock rows.
        let mut finishes: Vec<&Finish> = finishes.iter().collect();
        finishes.sort_unstable_by_key(|finish| finish.id);
        let ids: Vec<Uuid> = finishes.iter().map(|finish| finish.id.as_uuid()).collect();
        // With nothing to finish, any range does.
        let (least, greatest) = range(&ids).unwrap_or_default();
        let fences: Vec<i32> = finishes.iter().map(|f| i32::try_from(f.fence).unwrap_or(i32::MAX)).collect();
        let closed: Vec<Uuid> = closed.iter().map(|claim| claim.as_uuid()).collect();
        let plain = |(finish, fence): (&&Finish, &i32)| {
            matches!(finish.outcome, Outcome::Succeeded { result: None, .. }) && *fence == fences[0]
        };
        if !finishes.is_empty() && finishes.iter().zip(&fences).all(plain) {
            let query = self.query(&self.sql.finish_plain).bind(&ids).bind(least).bind(greatest);
            return recorded(&query.bind(fences[0]).bind(closed).fetch_all(connection).await?);
        }
        let outcomes = || finishes.iter().map(|finish| &finish.outcome);
        let target = |outcome: &Outcome| outcome.event().target().map(|state| state.code());
        let rows = self
            .query(&self.sql.finish)
            .bind(worker.as_uuid())
            .bind(&ids)
            .bind(&fences)
            .bind(outcomes().map(target).collect::<Vec<_>>())
            .bind(outcomes().map(|outcome| i32::from(!outcome.counts())).collect::<Vec<_>>())
            .bind(outcomes().map(after).collect::<Vec<_>>())
            .bind(outcomes().map(result).collect::<Vec<_>>())
            .bind(outcomes().map(error).collect::<Vec<_>>())
            .bind(least)
            .bind(greatest)
            .bind(closed)
            .bind(outcomes().map(keep).collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
        recorded(&rows)
    }
}

fn recorded(rows: &[PgRow]) -> Result<Vec<JobId>, Error> {
    rows.iter().map(|row| Ok(row.try_get::<Uuid, _>(0)?.into())).collect()
}

fn after(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Retry { after, .. } | Outcome::Snoozed { after } => Some(seconds(*after)),
        _ => None,
    }
}

/// Within what an interval holds: a thousand years are for ever.
pub(super) fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64().min(1000.0 * 365.0 * 86_400.0)
}

fn keep(outcome: &Outcome) -> Option<f64> {
    match outcome {
        Outcome::Succeeded { keep, .. } => keep.map(seconds),
        _ => None,
    }
}

fn result(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Succeeded { result, .. } => result.as_deref().map(|result| result.get()),
        _ => None,
    }
}

/// Postgres' text has no NUL; a handler's error may.
fn error(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error.replace('\0', "\u{fffd}")),
        _ => None,
    }
}
