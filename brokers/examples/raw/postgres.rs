use futures::future::try_join;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{BATCH, Result, WINDOW, in_batches, rate};

/// A queue as one writes it by hand: a row for each message, taken and removed in one statement.
pub(crate) async fn run(url: &str, name: &str, payloads: &[Vec<u8>]) -> Result<f64> {
    let pool = PgPool::connect(url).await?;
    let table = format!("\"{name}\"");
    let execute = async |statement: String| sqlx::query(AssertSqlSafe(statement)).execute(&pool).await;
    execute(format!("CREATE TABLE {table} (id bigserial PRIMARY KEY, message bytea NOT NULL)")).await?;

    let insert = format!("INSERT INTO {table} (message) SELECT unnest($1::bytea[])");
    let take = format!(
        "DELETE FROM {table} WHERE id = ANY(ARRAY(
             SELECT id FROM {table} ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)) RETURNING message"
    );
    let rate = rate(payloads, async |payloads| {
        let publish = in_batches(payloads, BATCH, WINDOW / BATCH, async |batch| {
            sqlx::query(AssertSqlSafe(insert.as_str())).bind(batch).execute(&pool).await?;
            Ok(())
        });
        let consume = async {
            let mut found = 0;
            while found < payloads.len() {
                found += sqlx::query(AssertSqlSafe(take.as_str())).fetch_all(&pool).await?.len();
            }
            Result::Ok(())
        };
        try_join(publish, consume).await.map(drop)
    });
    let rate = rate.await?;
    execute(format!("DROP TABLE {table}")).await?;
    Ok(rate)
}
