use sqlx::{Error, Postgres, Row, postgres::PgArguments, query::Query, raw_sql};
use uuid::Uuid;
use windlass_core::{JobId, State};

use super::{
    PostgresStore,
    dead::{KEEP_RETRIES_WAITING, SIDE_TABLES},
    finish::seconds,
    maintain::PARTITIONED,
    range,
};

/// Results forgotten in one transaction.
const RESULTS: i64 = 1000;

/// Results past their time.
const EXPIRED_RESULTS: &str = "
SELECT job_id FROM {schema}.expiring_results WHERE expires_at <= {now} ORDER BY expires_at LIMIT $1";

/// Locks jobs in the order in which claims do: a retry may be giving one of them a new result.
const LOCK: &str = "
SELECT id FROM {schema}.jobs WHERE id = ANY($1) AND id >= $2 AND id <= $3 ORDER BY id FOR UPDATE";

const FORGET_RESULTS: &str = "
WITH expired AS (
    DELETE FROM {schema}.expiring_results WHERE job_id = ANY($1) AND expires_at <= {now} RETURNING job_id
)
UPDATE {schema}.jobs SET result = NULL
WHERE id = ANY($1) AND id >= $2 AND id <= $3 AND id IN (SELECT job_id FROM expired)";

impl PostgresStore {
    /// Forgets a batch of results past their time, which polls do not show any more. Whether there may be more.
    pub(super) async fn forget_results(&self) -> Result<bool, Error> {
        let mut session = self.transaction().await?;
        let expired = self.rare(EXPIRED_RESULTS).bind(RESULTS).fetch_all(&mut *session).await?;
        let ids: Vec<Uuid> = expired.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if let Some((least, greatest)) = range(&ids) {
            for statement in [LOCK, FORGET_RESULTS] {
                let query = self.rare(statement).bind(ids.clone()).bind(least).bind(greatest);
                query.execute(&mut *session).await?;
            }
        }
        session.commit().await?;
        Ok(i64::try_from(ids.len()) == Ok(RESULTS))
    }
}

/// Rows that must stay in a partition before it is left for later. They move while the table is locked.
const MOST_MOVED: i64 = 1000;
/// Jobs of the default partition removed in one transaction.
const BATCH: i64 = 1000;

/// Whether a job's time is over, by rules in arrays: queue or null, state, seconds. The rule of the queue counts before
/// the one of any; without a rule a job stays, and so does one whose end is yet to be followed up, or for whose
/// result children may ask.
const OVERDUE: &str = "
coalesce(j.finished_at <= {now} - make_interval(secs => coalesce(
    (SELECT r.secs FROM unnest($1::text[], $2::int2[], $3::float8[]) AS r (queue, state, secs)
     WHERE r.queue = j.queue AND r.state = j.state),
    (SELECT r.secs FROM unnest($1::text[], $2::int2[], $3::float8[]) AS r (queue, state, secs)
     WHERE r.queue IS NULL AND r.state = j.state)
)), false) AND j.id <> ALL(ARRAY(SELECT job_id FROM {schema}.followups))
AND NOT EXISTS (SELECT FROM {schema}.dependencies d JOIN {schema}.jobs c ON c.id = d.child_id
                WHERE d.parent_id = j.id AND c.state NOT IN ({succeeded}, {cancelled}, {dead}))";

/// Workflows without jobs: a new one gets its jobs in the transaction that makes it.
const EMPTY_WORKFLOWS: &str = "
DELETE FROM {schema}.workflows w
WHERE NOT EXISTS (SELECT FROM {schema}.workflow_jobs j WHERE j.workflow_id = w.id)";

/// Past days that have a partition and all of whose jobs can be overdue, with the least id of each and of the day after.
const OLD_DAYS: &str = "
SELECT substr(c.relname, 6), b.least, b.beyond
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
CROSS JOIN LATERAL (SELECT to_date(substr(c.relname, 6), 'YYYYMMDD')) AS d (day)
CROSS JOIN LATERAL (SELECT
    (lpad(to_hex(extract(epoch FROM d.day)::int8 * 1000), 12, '0') || repeat('0', 20))::uuid,
    (lpad(to_hex(extract(epoch FROM d.day + 1)::int8 * 1000), 12, '0') || repeat('0', 20))::uuid
) AS b (least, beyond)
WHERE i.inhparent = '{schema}.jobs'::regclass AND c.relname ~ '^jobs_[0-9]{8}$'
AND d.day < ({now} AT TIME ZONE 'UTC')::date - 1
AND d.day + 1 <= ({now} - make_interval(secs => $1)) AT TIME ZONE 'UTC'
ORDER BY d.day";

impl PostgresStore {
    /// Drops the partitions of days whose jobs have been kept for long enough, and removes such jobs of the default
    /// partition. Each day and each batch is a transaction of its own.
    pub(super) async fn retain(&self) -> Result<(), Error> {
        let rules = self.retention.rules();
        let Some(shortest) = rules.iter().map(|(_, _, keep)| *keep).min() else { return Ok(()) };
        let mut session = self.statement().await?;
        let days = self.rare(OLD_DAYS).bind(seconds(shortest)).fetch_all(&mut *session).await?;
        session.commit().await?;
        let mut removed_any = !days.is_empty();
        for row in days {
            self.drop_day(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?).await?;
        }
        loop {
            let mut session = self.statement().await?;
            let select = format!("SELECT j.id FROM {{schema}}.jobs_default j WHERE {OVERDUE} LIMIT $4");
            let rows = self.by_rules(&select).bind(BATCH).fetch_all(&mut *session).await?;
            session.commit().await?;
            let overdue: Vec<JobId> =
                rows.iter().map(|row| Ok(row.try_get::<Uuid, _>(0)?.into())).collect::<Result<_, Error>>()?;
            let removed = self.delete_jobs(&overdue, &State::TERMINAL).await?;
            removed_any |= !removed.is_empty();
            if removed.is_empty() || i64::try_from(overdue.len()) != Ok(BATCH) {
                break;
            }
        }
        if removed_any {
            let mut session = self.statement().await?;
            self.rare(EMPTY_WORKFLOWS).execute(&mut *session).await?;
            session.commit().await?;
        }
        Ok(())
    }

    /// Drops a day, unless many of its jobs must stay. The few that must move to the default partition.
    ///
    /// All of it is one transaction. The search needs no lock on the tables: of what it finds overdue only an operator's
    /// retry could make something else, and retries are kept waiting. The tables are locked for the move and the drop.
    async fn drop_day(&self, day: &str, least: Uuid, beyond: Uuid) -> Result<(), Error> {
        let mut session = self.transaction().await?;
        raw_sql("SET LOCAL lock_timeout = '1s'").execute(&mut *session).await?;
        self.lock_schema(&mut session).await?;
        self.rare(KEEP_RETRIES_WAITING).execute(&mut *session).await?;
        let staying = format!("SELECT j.id FROM {{schema}}.jobs_{day} j WHERE NOT ({OVERDUE}) LIMIT $4");
        let staying = self.by_rules(&staying).bind(MOST_MOVED + 1).fetch_all(&mut *session).await?;
        let staying: Vec<Uuid> = staying.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if i64::try_from(staying.len()).is_ok_and(|count| count > MOST_MOVED) {
            return session.commit().await;
        }
        // What is not partitioned, and what is older than its table's partitions. Before the tables are locked.
        for (table, key) in SIDE_TABLES {
            let partitioned = PARTITIONED.iter().any(|(name, _)| name == table);
            let rows = if partitioned { format!("{table}_default") } else { (*table).to_owned() };
            let clear = format!(
                "DELETE FROM {{schema}}.{rows} WHERE {key} >= $1 AND {key} < $2 AND {key} <> ALL($3)"
            );
            self.rare(&clear).bind(least).bind(beyond).bind(&staying).execute(&mut *session).await?;
        }
        for (table, key) in PARTITIONED {
            // A table may be younger than the day.
            let exists = self.rare(&format!("SELECT to_regclass('{{schema}}.{table}_{day}') IS NOT NULL"));
            if exists.fetch_one(&mut *session).await?.try_get(0)? {
                let detach =
                    format!("ALTER TABLE {{schema}}.{table} DETACH PARTITION {{schema}}.{table}_{day}");
                raw_sql(self.fill(&detach)).execute(&mut *session).await?;
                let keep = format!(
                    "INSERT INTO {{schema}}.{table} SELECT * FROM {{schema}}.{table}_{day} WHERE {key} = ANY($1)"
                );
                self.rare(&keep).bind(&staying).execute(&mut *session).await?;
                let drop = format!("DROP TABLE {{schema}}.{table}_{day}");
                raw_sql(self.fill(&drop)).execute(&mut *session).await?;
            }
        }
        self.note_revision(&mut session, 1).await?;
        session.commit().await?;
        tracing::info!(day, moved = staying.len(), "dropped the jobs of a day");
        Ok(())
    }

    /// A statement with the rules as its first parameters.
    fn by_rules(&self, template: &str) -> Query<'static, Postgres, PgArguments> {
        let rules = self.retention.rules();
        self.rare(template)
            .bind(rules.iter().map(|(queue, ..)| queue.map(|queue| queue.to_string())).collect::<Vec<_>>())
            .bind(rules.iter().map(|(_, state, _)| state.code()).collect::<Vec<_>>())
            .bind(rules.iter().map(|(.., keep)| seconds(*keep)).collect::<Vec<_>>())
    }
}
