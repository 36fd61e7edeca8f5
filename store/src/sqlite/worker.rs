use std::collections::BTreeMap;

use sqlx::{Error, Row};
use windlass_core::{HeartbeatReply, InvalidId, KindInfo, NewWorker, Rescued, State, WorkerId};

use super::{
    Commit, SqliteStore,
    attempt::insert_errors,
    followup::{bury, note_followups},
    insert::insert_outbox,
    micros, read, statement, unexpected,
};

statement!(
    RESCUE,
    "UPDATE jobs
     SET state = CASE
             WHEN cancel_requested THEN {to:abort}
             WHEN crashes + 1 >= ?2 OR attempt - uncounted >= max_attempts THEN {to:quarantine}
             ELSE {to:leaselost} END,
         finished_at = CASE
             WHEN cancel_requested OR crashes + 1 >= ?2 OR attempt - uncounted >= max_attempts THEN ?3 END,
         crashes = crashes + 1
     WHERE id IN (SELECT w.value FROM claims c, json_each(c.job_ids) w WHERE c.worker_id = ?1)
       AND worker_id = ?1 AND state IN ({from:leaselost})
     RETURNING id, state, followed"
);

impl SqliteStore {
    pub(super) async fn insert_worker(&self, worker: &NewWorker) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        let now = self.now();
        sqlx::query(
            "INSERT INTO workers (id, label, lease, started_at, heartbeat_at, kinds) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET heartbeat_at = excluded.heartbeat_at",
        )
        .bind(worker.id.to_string())
        .bind(&worker.label)
        .bind(micros(worker.lease))
        .bind(now)
        .bind(crate::kinds::written(&worker.kinds).map_err(unexpected)?)
        .execute(&mut *transaction)
        .await?;
        for info in &worker.kinds {
            sqlx::query(
                "INSERT INTO kinds (kind, queue, max_attempts, version) VALUES (?, ?, ?, ?)
                 ON CONFLICT (kind) DO UPDATE SET queue = excluded.queue, max_attempts = excluded.max_attempts,
                                                  version = max(version, excluded.version)",
            )
            .bind(info.kind.as_str())
            .bind(info.queue.as_str())
            .bind(info.max_attempts)
            .bind(info.version)
            .execute(&mut *transaction)
            .await?;
            let schema = info.schemas.get(&info.version);
            let keep = match schema {
                Some(_) => "INSERT OR REPLACE INTO kind_schemas (kind, version, schema) VALUES (?, ?, ?)",
                None => "DELETE FROM kind_schemas WHERE kind = ? AND version = ?",
            };
            let keep = sqlx::query(keep).bind(info.kind.as_str()).bind(info.version);
            let keep = if let Some(schema) = schema { keep.bind(schema) } else { keep };
            keep.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// `None`: the worker is unknown, or has said goodbye.
    pub(super) async fn beat(&self, worker: WorkerId) -> Result<Option<HeartbeatReply>, Error> {
        let mut transaction = self.write(Commit::Soft).await?;
        let beat = sqlx::query("UPDATE workers SET heartbeat_at = ? WHERE id = ? AND heartbeat_at <> 0")
            .bind(self.now())
            .bind(worker.to_string())
            .execute(&mut *transaction)
            .await?;
        if beat.rows_affected() == 0 {
            return Ok(None);
        }
        let rows = sqlx::query("SELECT job_id FROM cancellations WHERE worker_id = ?")
            .bind(worker.to_string())
            .fetch_all(&mut *transaction)
            .await?;
        let claims = sqlx::query("SELECT id FROM claims WHERE worker_id = ?")
            .bind(worker.to_string())
            .fetch_all(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let cancel = rows.iter().map(|row| read::id(row.try_get(0)?)).collect::<Result<_, _>>()?;
        let claims = claims.iter().map(|row| row.try_get::<&str, _>(0)?.parse().map_err(unexpected));
        Ok(Some(HeartbeatReply { cancel, claims: claims.collect::<Result<_, Error>>()? }))
    }

    /// Forgets a worker that holds nothing; one that does is dead from now on, and rescued.
    pub(super) async fn delete_worker(&self, worker: WorkerId) -> Result<(), Error> {
        let mut transaction = self.write(Commit::Durable).await?;
        for statement in [
            "UPDATE workers SET heartbeat_at = 0, lease = 0 WHERE id = ?",
            "DELETE FROM workers WHERE id = ? AND id NOT IN (SELECT worker_id FROM claims)",
        ] {
            sqlx::query(statement).bind(worker.to_string()).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    pub(super) async fn rescue_jobs(&self, crash_limit: u32) -> Result<Rescued, Error> {
        let now = self.now();
        let dead = sqlx::query("SELECT 1 FROM workers WHERE heartbeat_at <= ?1 - lease LIMIT 1").bind(now);
        if dead.fetch_optional(&self.readers).await?.is_none() {
            return Ok(Rescued::default());
        }
        let mut transaction = self.write(Commit::Durable).await?;
        let dead = sqlx::query("SELECT id FROM workers WHERE heartbeat_at <= ?1 - lease ORDER BY id")
            .bind(now)
            .fetch_all(&mut *transaction)
            .await?;
        let mut rescued = Rescued::default();
        let (mut requeued, mut dead_jobs, mut followed) = (Vec::new(), Vec::new(), Vec::new());
        for worker in &dead {
            let id: WorkerId = worker.try_get::<&str, _>(0)?.parse().map_err(|e: InvalidId| unexpected(e))?;
            let lost = sqlx::query(RESCUE.clone())
                .bind(id.to_string())
                .bind(crash_limit)
                .bind(now)
                .fetch_all(&mut *transaction)
                .await?;
            let mut failed = Vec::with_capacity(lost.len());
            for job in &lost {
                let job_id: String = job.try_get(0)?;
                let state = read::state(job.try_get(1)?)?;
                if state != State::Queued && job.try_get(2)? {
                    followed.push(job_id.clone());
                }
                match state {
                    State::Dead => {
                        rescued.dead += 1;
                        dead_jobs.push(job_id.clone());
                    }
                    State::Queued => {
                        rescued.requeued += 1;
                        requeued.push(job_id.clone());
                    }
                    _ => rescued.requeued += 1,
                }
                failed.push(job_id);
            }
            let message = "the worker was lost during this attempt".to_owned();
            let failed: Vec<_> = failed.iter().map(|job_id| (job_id, &message)).collect();
            insert_errors(&mut transaction, id, &failed, now).await?;
            for statement in [
                "DELETE FROM cancellations WHERE worker_id = ?",
                "DELETE FROM claims WHERE worker_id = ?",
                "DELETE FROM workers WHERE id = ?",
            ] {
                sqlx::query(statement).bind(id.to_string()).execute(&mut *transaction).await?;
            }
            rescued.workers.push(id);
        }
        insert_outbox(&mut transaction, requeued, now, now).await?;
        bury(&mut transaction, dead_jobs, now).await?;
        note_followups(&mut transaction, followed).await?;
        transaction.commit().await?;
        Ok(rescued)
    }

    pub(super) async fn select_kinds(&self) -> Result<Vec<KindInfo>, Error> {
        let rows = sqlx::query(
            "SELECT k.kind, k.queue, k.max_attempts, k.version, s.version, s.schema
             FROM kinds k LEFT JOIN kind_schemas s USING (kind) ORDER BY k.kind",
        )
        .fetch_all(&self.readers)
        .await?;
        let said = rows.iter().map(|row| {
            let info = KindInfo {
                kind: row.try_get::<&str, _>(0)?.parse().map_err(unexpected)?,
                queue: row.try_get::<&str, _>(1)?.parse().map_err(unexpected)?,
                max_attempts: row.try_get(2)?,
                version: row.try_get(3)?,
                schemas: BTreeMap::new(),
            };
            let schema = match row.try_get::<Option<String>, _>(5)? {
                Some(schema) => Some((row.try_get(4)?, schema)),
                None => None,
            };
            Ok((info, schema))
        });
        Ok(crate::kinds::gathered(said.collect::<Result<_, Error>>()?))
    }
}
