use chrono::{Days, NaiveDate, NaiveTime, Utc};
use sqlx::{AssertSqlSafe, Error, PgConnection, Row};
use uuid::Uuid;

use super::PostgresStore;
use crate::template::fill;

/// Days before and after today that have partitions: before, for clocks that are behind; after, so that a few days
/// without any maintenance do no harm.
const DAYS: std::ops::RangeInclusive<i64> = -1..=3;

impl PostgresStore {
    pub(super) async fn keep_house(&self) -> Result<(), Error> {
        let expired = fill("DELETE FROM {schema}.idempotency_keys WHERE expires_at <= now()", &self.schema);
        sqlx::query(expired).persistent(self.persistent).execute(&self.pool).await?;
        let mut transaction = self.pool.begin().await?;
        // Rather no partition today than writers waiting behind us.
        sqlx::raw_sql("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
        self.lock_schema(&mut transaction).await?;
        self.make_partitions(&mut transaction).await?;
        transaction.commit().await
    }

    /// Makes the partitions of the coming days that do not exist, under the schema's lock.
    pub(super) async fn make_partitions(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let today = Utc::now().date_naive();
        for offset in DAYS {
            let day = match u64::try_from(offset) {
                Ok(after) => today.checked_add_days(Days::new(after)),
                Err(_) => today.checked_sub_days(Days::new(offset.unsigned_abs())),
            };
            let Some(day) = day else { continue };
            let Some(next) = day.checked_add_days(Days::new(1)) else { continue };
            for (table, key, options) in [
                // Half of each page stays free, so that a job's two updates find room on it. Frequent, unthrottled
                // vacuums keep the dead versions from piling up.
                ("jobs", "id", "WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05)"),
                ("job_errors", "job_id", ""),
            ] {
                self.make_partition(connection, table, key, options, day, next).await?;
            }
        }
        Ok(())
    }

    /// Makes the partition beside its table first, and attaches it then: that only needs a lock which lets readers
    /// and writers go on. The check spares the scan for rows out of range.
    async fn make_partition(
        &self,
        connection: &mut PgConnection,
        table: &str,
        key: &str,
        options: &str,
        day: NaiveDate,
        next: NaiveDate,
    ) -> Result<(), Error> {
        let schema = &self.schema;
        let name = format!("{table}_{}", day.format("%Y%m%d"));
        let exists = sqlx::query("SELECT to_regclass($1) IS NOT NULL")
            .persistent(self.persistent)
            .bind(format!("{schema}.{name}"))
            .fetch_one(&mut *connection)
            .await?;
        if exists.try_get(0)? {
            return Ok(());
        }
        let (from, to) = (first_id(day), first_id(next));
        let statements = format!(
            "CREATE TABLE {schema}.{name} (LIKE {schema}.{table} INCLUDING DEFAULTS,
                 CONSTRAINT in_range CHECK ({key} >= '{from}' AND {key} < '{to}')) {options};
             ALTER TABLE {schema}.{table} ATTACH PARTITION {schema}.{name} FOR VALUES FROM ('{from}') TO ('{to}');
             ALTER TABLE {schema}.{name} DROP CONSTRAINT in_range"
        );
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
    }
}

/// The least UUIDv7 of a day: 48 bits of milliseconds, then zeros.
fn first_id(day: NaiveDate) -> Uuid {
    let millis = day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    Uuid::from_u128(u128::from(millis.unsigned_abs()) << 80)
}
