use std::{collections::HashMap, time::Duration};

use sqlx::{Error, Row, raw_sql};
use uuid::Uuid;
use windlass_core::{JobId, State, Tally, UnknownState, WorkerId, WorkerRecord};

use super::{PostgresStore, find, range, unexpected};
use crate::find::LOOK;

/// Jobs by queue and state. Plan: as for a claim.
const COUNT: &str = "
SELECT queue, state, count(*) FROM {schema}.jobs
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state IN ({running}, {scheduled}, {retrying}, {dead})
GROUP BY queue, state";

const WORKERS: &str = "
SELECT id, label, started_at, CASE WHEN heartbeat_at > '-infinity' THEN heartbeat_at END,
       extract(epoch FROM lease)::float8, heartbeat_at > {now} - lease, kinds
FROM {schema}.workers WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2";

/// What these workers run. Plan: as for a claim.
const RUNNING: &str = "
SELECT id, worker_id FROM {schema}.jobs
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND state = {running} ORDER BY id";

impl PostgresStore {
    pub(super) async fn count_jobs(&self) -> Result<Tally, Error> {
        let mut session = self.transaction().await?;
        raw_sql(find::SNAPSHOT).execute(&mut *session).await?;
        let mut tally = Tally { complete: true, ..Tally::default() };
        let mut ids = Vec::new();
        for table in ["claims", "due", "dead"] {
            let rows = self.side_rows(&mut session, &[table], (Uuid::nil(), Uuid::max())).await?;
            tally.complete &= rows.len() < LOOK;
            ids.extend(rows);
        }
        let (least, greatest) = range(&ids).unwrap_or_default();
        let rows = self.rare(COUNT).bind(ids).bind(least).bind(greatest).fetch_all(&mut *session).await?;
        session.commit().await?;
        for row in rows {
            let queue = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
            let state: State = row.try_get::<i16, _>(1)?.try_into().map_err(unexpected::<UnknownState>)?;
            tally.counts.insert((queue, state), row.try_get::<i64, _>(2)?.unsigned_abs());
        }
        Ok(tally)
    }

    pub(super) async fn select_workers(
        &self,
        before: Option<WorkerId>,
        limit: usize,
    ) -> Result<Vec<WorkerRecord>, Error> {
        let mut session = self.transaction().await?;
        raw_sql(find::SNAPSHOT).execute(&mut *session).await?;
        let select = self.rare(WORKERS).bind(before.map(WorkerId::as_uuid));
        let rows = select.bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&mut *session).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let claimed = self
            .rare("SELECT DISTINCT unnest(job_ids) FROM {schema}.claims WHERE worker_id = ANY($1)")
            .bind(ids)
            .fetch_all(&mut *session)
            .await?;
        let claimed: Vec<Uuid> = claimed.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let (least, greatest) = range(&claimed).unwrap_or_default();
        let jobs = self.rare(RUNNING).bind(claimed).bind(least).bind(greatest);
        let jobs = jobs.fetch_all(&mut *session).await?;
        session.commit().await?;
        let mut running: HashMap<Uuid, Vec<JobId>> = HashMap::new();
        for row in jobs {
            running.entry(row.try_get(1)?).or_default().push(row.try_get::<Uuid, _>(0)?.into());
        }
        rows.iter()
            .map(|row| {
                let id: Uuid = row.try_get(0)?;
                Ok(WorkerRecord {
                    id: id.into(),
                    label: row.try_get(1)?,
                    started_at: row.try_get(2)?,
                    seen_at: row.try_get(3)?,
                    lease: Duration::try_from_secs_f64(row.try_get(4)?).map_err(unexpected)?,
                    alive: row.try_get(5)?,
                    kinds: crate::kinds::read(row.try_get(6)?).map_err(unexpected)?,
                    running: running.remove(&id).unwrap_or_default(),
                })
            })
            .collect()
    }
}
