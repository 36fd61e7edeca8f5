//! What Postgres allows: the three row writes of a job, grouped, on a bare table, with nothing else around them.

use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions};
use uuid::Uuid;

const GROUP: usize = 100;
const CONNECTIONS: usize = 2;

/// Inserts, claims and finishes `jobs` rows in groups over two connections; answers the time it took.
pub(crate) async fn run(store_url: &str, schema: &str, jobs: usize) -> Result<Duration, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS as u32).connect(store_url).await?;
    let execute = |statement: String| {
        let pool = pool.clone();
        async move { sqlx::query(AssertSqlSafe(statement)).execute(&pool).await }
    };
    execute(format!("CREATE SCHEMA {schema}")).await?;
    execute(format!(
        "CREATE TABLE {schema}.bare (id uuid PRIMARY KEY, state smallint, attempt int, kind text, queue text,
         payload text, created_at timestamptz, started_at timestamptz, finished_at timestamptz)
         WITH (fillfactor = 50)"
    ))
    .await?;
    let began = Instant::now();
    let share = jobs.div_ceil(CONNECTIONS);
    let answers = futures::future::join_all((0..CONNECTIONS).map(|_| write(&pool, schema, share))).await;
    let took = began.elapsed();
    execute(format!("DROP SCHEMA {schema} CASCADE")).await?;
    pool.close().await;
    answers.into_iter().collect::<Result<(), _>>().map(|()| took)
}

async fn write(pool: &PgPool, schema: &str, jobs: usize) -> Result<(), sqlx::Error> {
    let insert = format!(
        "INSERT INTO {schema}.bare SELECT id, 1, 0, 'bench.noop', 'bench', payload, now()
         FROM unnest($1::uuid[], $2::text[]) AS n (id, payload)"
    );
    let claim = format!(
        "UPDATE {schema}.bare SET state = 2, attempt = attempt + 1, started_at = now()
         WHERE id = ANY($1::uuid[]) AND state = 1 RETURNING id, attempt, payload"
    );
    let finish = format!(
        "UPDATE {schema}.bare SET state = 4, finished_at = now()
         WHERE id = ANY($1::uuid[]) AND attempt = 1 AND state = 2"
    );
    let mut connection = pool.acquire().await?;
    let mut left = jobs;
    while left > 0 {
        let size = left.min(GROUP);
        let ids: Vec<Uuid> = (0..size).map(|_| Uuid::now_v7()).collect();
        let payloads = vec!["null"; size];
        sqlx::query(AssertSqlSafe(insert.as_str()))
            .bind(&ids)
            .bind(payloads)
            .execute(&mut *connection)
            .await?;
        sqlx::query(AssertSqlSafe(claim.as_str())).bind(&ids).fetch_all(&mut *connection).await?;
        sqlx::query(AssertSqlSafe(finish.as_str())).bind(&ids).execute(&mut *connection).await?;
        left -= size;
    }
    Ok(())
}
