//! What the store counted meanwhile, where it counts.

use windlass::Settings;

use crate::Error;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) transactions: i64,
    pub(crate) row_writes: i64,
}

/// The difference of one number between two readings, if there were any.
pub(crate) fn difference(
    before: Option<Count>,
    after: Option<Count>,
    number: impl Fn(Count) -> i64,
) -> Option<i64> {
    Some(number(after?) - number(before?))
}

#[cfg(feature = "postgres")]
pub(crate) struct Counters {
    pool: Option<sqlx::PgPool>,
}

#[cfg(feature = "postgres")]
impl Counters {
    pub(crate) async fn connect(settings: &Settings) -> Result<Self, Error> {
        let url = settings.store_url.expose();
        let pool = if url.starts_with("postgres") { Some(sqlx::PgPool::connect(url).await?) } else { None };
        Ok(Self { pool })
    }

    /// The database's own counters, which its sessions hand in about a second late: so it waits until they rest.
    pub(crate) async fn read(&self) -> Result<Option<Count>, Error> {
        let Some(pool) = &self.pool else { return Ok(None) };
        let statement = "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted
                         FROM pg_stat_database WHERE datname = current_database()";
        let mut last: Option<(i64, i64)> = None;
        loop {
            let now: (i64, i64) = sqlx::query_as(statement).fetch_one(pool).await?;
            // Reading them is a transaction too, and idle processes make a few.
            if last.is_some_and(|last| now.1 == last.1 && now.0 - last.0 < 20) {
                return Ok(Some(Count { transactions: now.0, row_writes: now.1 }));
            }
            last = Some(now);
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        }
    }

    pub(crate) async fn drop_schema(&self, schema: &str) -> Result<(), Error> {
        if let Some(pool) = &self.pool {
            let statement = format!("DROP SCHEMA {schema} CASCADE");
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(pool).await?;
        }
        Ok(())
    }
}

#[cfg(not(feature = "postgres"))]
pub(crate) struct Counters;

#[cfg(not(feature = "postgres"))]
impl Counters {
    pub(crate) async fn connect(_: &Settings) -> Result<Self, Error> {
        Ok(Self)
    }

    pub(crate) async fn read(&self) -> Result<Option<Count>, Error> {
        Ok(None)
    }

    pub(crate) async fn drop_schema(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}
