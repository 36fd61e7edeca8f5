use sqlx::{Error, PgConnection, Row, raw_sql};
use uuid::Uuid;

use super::PostgresStore;

/// The tables that are partitioned by a job's id, and what it is called there.
pub(super) const PARTITIONED: &[(&str, &str)] = &[
    ("jobs", "id"),
    ("job_errors", "job_id"),
    ("job_progress", "job_id"),
    ("job_logs", "job_id"),
    ("job_checkpoints", "job_id"),
];

fn partitioned() -> Vec<&'static str> {
    PARTITIONED.iter().map(|(table, _)| *table).collect()
}

/// Partitions that should exist and do not, with the least id of their day and of the next (a UUIDv7 begins with 48
/// bits of milliseconds): from yesterday, for clocks that are behind, to three days ahead, so that a few days without
/// maintenance do no harm. Where the default partition has rows of a day already, the whole day stays there.
///
/// Attaching locks a table's default partition, so the tables come in the order in which everyone else locks them, who
/// would be waited for in a circle otherwise.
const MISSING: &str = "
SELECT t.name, to_char(d.day, 'YYYYMMDD'), b.least, b.beyond
FROM unnest($1::text[]) WITH ORDINALITY AS t (name, place)
CROSS JOIN generate_series(-1, 3) AS ahead (days)
CROSS JOIN LATERAL (SELECT ({now} AT TIME ZONE 'UTC')::date + ahead.days) AS d (day)
CROSS JOIN LATERAL (SELECT
    (lpad(to_hex(extract(epoch FROM d.day)::int8 * 1000), 12, '0') || repeat('0', 20))::uuid,
    (lpad(to_hex(extract(epoch FROM d.day + 1)::int8 * 1000), 12, '0') || repeat('0', 20))::uuid
) AS b (least, beyond)
WHERE to_regclass('{schema}.' || t.name || '_' || to_char(d.day, 'YYYYMMDD')) IS NULL
AND NOT EXISTS (SELECT FROM {schema}.jobs_default WHERE id >= b.least AND id < b.beyond)
AND NOT EXISTS (SELECT FROM {schema}.job_errors_default WHERE job_id >= b.least AND job_id < b.beyond)
AND NOT EXISTS (SELECT FROM {schema}.job_progress_default WHERE job_id >= b.least AND job_id < b.beyond)
AND NOT EXISTS (SELECT FROM {schema}.job_logs_default WHERE job_id >= b.least AND job_id < b.beyond)
AND NOT EXISTS (SELECT FROM {schema}.job_checkpoints_default WHERE job_id >= b.least AND job_id < b.beyond)
ORDER BY t.place, d.day";

/// Keys past their time, except those that an insert is just taking.
const EXPIRE_KEYS: &str = "
DELETE FROM {schema}.idempotency_keys WHERE key = ANY(ARRAY(
    SELECT key FROM {schema}.idempotency_keys WHERE expires_at <= {now}
    ORDER BY expires_at LIMIT 100000 FOR UPDATE SKIP LOCKED
))";

/// Gates whose buckets are full again, and tenants whose turn is as anybody's.
const FORGET_GATES: [&str; 2] = [
    "DELETE FROM {schema}.gates WHERE taken = 0 AND next_at IS NULL AND rank = 0
     AND full_at <= (extract(epoch FROM {now}) * 1000000)::int8",
    "DELETE FROM {schema}.shares s USING {schema}.gates g WHERE g.key = 'queue:' || s.queue AND s.rank <= g.rank",
];

/// Half of each page stays free, so that a job's two updates find room on it.
const JOBS_OPTIONS: &str =
    "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, vacuum_truncate = off)";

/// Leaves a partition with some pages of nothing. To the planner a table without pages is best read whole, which a
/// prepared statement would go on doing once the table has grown.
const PAD: &str = "
INSERT INTO {schema}.{name} (id, max_attempts, state, priority, kind, queue, payload)
SELECT '{least}', 1, {dead}, 0, '', '', repeat('x', 1900) FROM generate_series(1, 64);
DELETE FROM {schema}.{name};";

impl PostgresStore {
    pub(super) async fn keep_house(&self) -> Result<(), Error> {
        let mut session = self.statement().await?;
        self.rare(EXPIRE_KEYS).execute(&mut *session).await?;
        self.clean_unique_keys(&mut session).await?;
        self.forget_deliveries(&mut session).await?;
        let missing = self.rare(MISSING).bind(partitioned()).fetch_optional(&mut *session).await?;
        session.commit().await?;
        let mut session = self.transaction().await?;
        self.lock_gates(&mut session).await?;
        for statement in FORGET_GATES {
            self.rare(statement).execute(&mut *session).await?;
        }
        session.commit().await?;
        if missing.is_none() {
            return Ok(());
        }
        let mut session = self.transaction().await?;
        // Attaching waits for transactions that touch the default partition, and others wait behind it meanwhile:
        // rather no partition this minute.
        raw_sql("SET LOCAL lock_timeout = '1s'").execute(&mut *session).await?;
        self.lock_schema(&mut session).await?;
        self.make_partitions(&mut session).await?;
        session.commit().await
    }

    /// Makes the partitions that are missing, under the schema's lock.
    ///
    /// Each is made beside its table first, and attached then: that only needs a lock which lets readers and writers
    /// go on. The check spares the scan for rows out of range, and goes again.
    pub(super) async fn make_partitions(&self, connection: &mut PgConnection) -> Result<(), Error> {
        for row in self.rare(MISSING).bind(partitioned()).fetch_all(&mut *connection).await? {
            let table: &str = row.try_get(0)?;
            let name = format!("{table}_{}", row.try_get::<&str, _>(1)?);
            let (least, beyond): (Uuid, Uuid) = (row.try_get(2)?, row.try_get(3)?);
            let (key, options, pad) = match table {
                "jobs" => {
                    ("id", JOBS_OPTIONS, PAD.replace("{name}", &name).replace("{least}", &least.to_string()))
                }
                _ => ("job_id", "", String::new()),
            };
            let make = format!(
                "CREATE TABLE {{schema}}.{name} (LIKE {{schema}}.{table} INCLUDING DEFAULTS,
                     CONSTRAINT in_range CHECK ({key} >= '{least}' AND {key} < '{beyond}')) {options};
                 {pad}
                 ALTER TABLE {{schema}}.{table} ATTACH PARTITION {{schema}}.{name}
                     FOR VALUES FROM ('{least}') TO ('{beyond}');
                 ALTER TABLE {{schema}}.{name} DROP CONSTRAINT in_range"
            );
            raw_sql(self.fill(&make)).execute(&mut *connection).await?;
        }
        Ok(())
    }
}
