use sqlx::{Error, PgConnection, Row};
use uuid::Uuid;
use windlass_core::{JobId, State};

use super::{PostgresStore, range};

/// As the cancellation of one job. Times are taken as far as nobody else is at them; what is left of them is dropped when
/// it is due.
pub(super) const CANCEL_ALL: &str = "
WITH called AS (
    UPDATE {schema}.jobs
    SET state = CASE WHEN state = {running} THEN {running} ELSE {to:cancel} END,
        cancel_requested = true,
        finished_at = CASE WHEN state <> {running} THEN {now} END,
        run_at = NULL
    WHERE id = ANY($1::uuid[]) AND id >= $2 AND id <= $3 AND state IN ({from:cancel}, {running}) AND state = ANY($4)
    RETURNING id, state, worker_id, followed
), asked AS (
    INSERT INTO {schema}.cancellations (job_id, worker_id)
    SELECT id, worker_id FROM called WHERE state = {running}
    ON CONFLICT (job_id) DO UPDATE SET worker_id = excluded.worker_id
), followed AS (
    INSERT INTO {schema}.followups (job_id) SELECT id FROM called WHERE followed AND state <> {running}
), forgotten AS (
    DELETE FROM {schema}.due WHERE job_id = ANY(ARRAY(
        SELECT job_id FROM {schema}.due
        WHERE job_id = ANY(ARRAY(SELECT id FROM called WHERE state <> {running})) FOR UPDATE SKIP LOCKED
    ))
)
SELECT id FROM called";

impl PostgresStore {
    pub(super) async fn cancel_jobs(&self, ids: &[JobId], from: &[State]) -> Result<Vec<JobId>, Error> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let mut session = self.transaction().await?;
        let called = self.call_off(&mut session, &ids, from).await?;
        session.commit().await?;
        Ok(called.into_iter().map(Into::into).collect())
    }

    /// Calls off those of `ids` that are in one of the states.
    pub(super) async fn call_off(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
        from: &[State],
    ) -> Result<Vec<Uuid>, Error> {
        let Some((least, greatest)) = range(ids) else { return Ok(Vec::new()) };
        // In the order in which claims lock rows.
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        let from: Vec<i16> = from.iter().map(|state| state.code()).collect();
        let cancel = self.rare(CANCEL_ALL).bind(ids).bind(least).bind(greatest).bind(from);
        cancel.fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
    }
}
