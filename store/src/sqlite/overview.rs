use std::{collections::HashMap, time::Duration};

use sqlx::{Error, Row};
use uuid::Uuid;
use windlass_core::{JobId, Tally, WorkerId, WorkerRecord};

use super::{SqliteStore, find, ids, read, statement, timestamp, unexpected};
use crate::find::LOOK;

statement!(
    COUNT,
    "SELECT queue, state, count(*) FROM jobs
     WHERE id IN (SELECT value FROM json_each(?)) AND state IN ({running}, {scheduled}, {retrying}, {dead})
     GROUP BY queue, state"
);
statement!(
    RUNNING,
    "SELECT id, worker_id FROM jobs
     WHERE id IN (SELECT j.value FROM claims c, json_each(c.job_ids) j
                  WHERE c.worker_id IN (SELECT value FROM json_each(?)))
       AND state = {running} ORDER BY id"
);

impl SqliteStore {
    pub(super) async fn count_jobs(&self) -> Result<Tally, Error> {
        let mut transaction = self.readers.begin().await?;
        let mut tally = Tally { complete: true, ..Tally::default() };
        let mut looked_at = Vec::new();
        for table in ["claims", "due", "dead"] {
            let rows = find::side_rows(&mut transaction, &[table], (Uuid::nil(), Uuid::max())).await?;
            tally.complete &= rows.len() < LOOK;
            looked_at.extend(rows);
        }
        let count = sqlx::query(COUNT.clone()).bind(ids(looked_at));
        for row in count.fetch_all(&mut *transaction).await? {
            let queue = row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?;
            let state = read::state(row.try_get(1)?)?;
            tally.counts.insert((queue, state), row.try_get::<i64, _>(2)?.unsigned_abs());
        }
        Ok(tally)
    }

    pub(super) async fn select_workers(
        &self,
        before: Option<WorkerId>,
        limit: usize,
    ) -> Result<Vec<WorkerRecord>, Error> {
        let mut transaction = self.readers.begin().await?;
        let rows = sqlx::query(
            "SELECT id, label, started_at, nullif(heartbeat_at, 0), lease, heartbeat_at > ?3 - lease, kinds
             FROM workers WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2",
        )
        .bind(before.map(|id| id.to_string()))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(self.now())
        .fetch_all(&mut *transaction)
        .await?;
        let workers: Vec<&str> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let jobs = sqlx::query(RUNNING.clone()).bind(ids(&workers)).fetch_all(&mut *transaction).await?;
        let mut running: HashMap<&str, Vec<JobId>> = HashMap::new();
        for row in &jobs {
            running.entry(row.try_get(1)?).or_default().push(read::id(row.try_get(0)?)?);
        }
        rows.iter()
            .map(|row| {
                let id: &str = row.try_get(0)?;
                Ok(WorkerRecord {
                    id: id.parse().map_err(|error: windlass_core::InvalidId| unexpected(error))?,
                    label: row.try_get(1)?,
                    started_at: timestamp(row.try_get(2)?)?,
                    seen_at: row.try_get::<Option<i64>, _>(3)?.map(timestamp).transpose()?,
                    lease: Duration::from_micros(row.try_get::<i64, _>(4)?.unsigned_abs()),
                    alive: row.try_get(5)?,
                    kinds: crate::kinds::read(row.try_get(6)?).map_err(unexpected)?,
                    running: running.remove(id).unwrap_or_default(),
                })
            })
            .collect()
    }
}
