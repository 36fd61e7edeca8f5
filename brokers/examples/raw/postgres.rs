use std::time::Instant;

use futures::future::try_join;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{BATCH, Result};

/// A queue as one writes it by hand: a row for each message, taken and removed in one statement.
pub(crate) async fn run(url: &str, lane: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let pool = PgPool::connect(url).await?;
    let table = format!("\"{lane}.bare\"");
    let execute = async |statement: String| sqlx::query(AssertSqlSafe(statement)).execute(&pool).await;
    execute(format!("CREATE TABLE {table} (id bigserial PRIMARY KEY, message bytea NOT NULL)")).await?;

    let start = Instant::now();
    let publish = async {
        let insert = format!("INSERT INTO {table} (message) SELECT unnest($1::bytea[])");
        for batch in payloads.chunks(BATCH) {
            sqlx::query(AssertSqlSafe(insert.as_str())).bind(batch).execute(&pool).await?;
        }
        Result::Ok(())
    };
    let consume = async {
        let take = format!(
            "DELETE FROM {table} WHERE id = ANY(ARRAY(
                 SELECT id FROM {table} ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)) RETURNING message"
        );
        let mut found = 0;
        while found < payloads.len() {
            found += sqlx::query(AssertSqlSafe(take.as_str())).fetch_all(&pool).await?.len();
        }
        Result::Ok(())
    };
    try_join(publish, consume).await?;
    let took = start.elapsed().as_secs_f64();
    execute(format!("DROP TABLE {table}")).await?;
    Ok(took)
}
