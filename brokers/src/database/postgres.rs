//! Parcels in Postgres. Readers wake up by LISTEN/NOTIFY, or once a second where a pooler swallows that.
//!
//! A parcel has up to a hundred messages, so that the table costs a job next to nothing: rows are written per group.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Error, Postgres, Row, raw_sql};
use tokio::time::sleep;
use url::Url;
use uuid::Uuid;
use windlass_core::{BrokerError, Lane};

use super::{Changes, DEADLINE, Database, LEASE, Listeners, Parcel, Table};

/// A parcel is split when it does not fit into a subscription's room; smaller ones are split less.
const PARCEL: usize = 100;
/// Parcels of a lane that one statement looks at.
const LOOK: i64 = 32;
const CONNECTIONS: u32 = 4;
const DEFAULT_SCHEMA: &str = "windlass_broker";

const MAKE: &str = "
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.parcels (
    id       bigint  NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    lane     text    NOT NULL,
    size     integer NOT NULL,
    messages bytea[] NOT NULL,
    holder   uuid,
    until    timestamptz
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX IF NOT EXISTS parcels_free ON {schema}.parcels (lane, id) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS parcels_held ON {schema}.parcels (holder) WHERE holder IS NOT NULL";

const PUT: &str = "
WITH put AS (
    INSERT INTO {schema}.parcels (lane, size, messages)
    SELECT lane, count(*), array_agg(body ORDER BY place)
    FROM unnest($1::text[], $2::int4[], $3::bytea[]) WITH ORDINALITY AS i (lane, parcel, body, place)
    GROUP BY parcel, lane ORDER BY parcel
    RETURNING lane
)
SELECT pg_notify('{schema}.parcels', lane) FROM (SELECT DISTINCT lane FROM put) AS l";

/// Takes whole parcels of each lane while they fit into its room, and the beginning of the next one. That room is the
/// lane's share and what the lanes before it leave of theirs: all they take together is the least that some lane's
/// sum of shares allows, with everything that waits after it. What a crash of the server undoes is merely delivered
/// again, so the commit need not wait for the disk. The lanes are read by way of a subquery: else the server counts them, and
/// plans the statement anew at each use.
const TAKE: &str = "
WITH soft AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true)
), free AS MATERIALIZED (
    SELECT l.rank, l.shares, p.id, p.lane, p.size, p.messages
    FROM soft CROSS JOIN unnest((SELECT $1::text[]), (SELECT $3::int8[])) WITH ORDINALITY AS l (lane, shares, rank)
    CROSS JOIN LATERAL (
        SELECT id, lane, size, messages FROM {schema}.parcels
        WHERE lane = l.lane AND holder IS NULL ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED
    ) AS p
), spared AS (
    SELECT rank, id, size, shares - sum(size) OVER (ORDER BY rank) AS spare FROM free
), planned AS MATERIALIZED (
    SELECT rank, id, size,
        (sum(size) OVER (PARTITION BY rank ORDER BY id) - size)::int4 AS before,
        (sum(size) OVER (PARTITION BY rank)
            + least(0, min(spare) OVER (ORDER BY rank))
            - least(0, min(spare) OVER (ORDER BY rank RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)))::int4 AS room
    FROM spared
), whole AS (
    UPDATE {schema}.parcels p SET holder = $2, until = now() + make_interval(secs => $5)
    FROM planned f WHERE p.id = f.id AND f.before + f.size <= f.room
    RETURNING p.id, p.lane, p.messages, f.rank
), cut AS (
    UPDATE {schema}.parcels p SET messages = m.messages[f.room - f.before + 1:], size = f.size - (f.room - f.before)
    FROM planned f JOIN free m USING (id)
    WHERE p.id = f.id AND f.before < f.room AND f.before + f.size > f.room
), part AS (
    INSERT INTO {schema}.parcels (lane, size, messages, holder, until)
    SELECT m.lane, f.room - f.before, m.messages[:f.room - f.before], $2, now() + make_interval(secs => $5)
    FROM planned f JOIN free m USING (id) WHERE f.before < f.room AND f.before + f.size > f.room
    RETURNING id, lane, messages
)
SELECT id, lane, messages, rank FROM whole
UNION ALL SELECT id, lane, messages, NULL FROM part
ORDER BY rank NULLS LAST, id";

const REMOVE: &str = "
WITH soft AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
DELETE FROM {schema}.parcels USING soft WHERE id = ANY($1) AND holder = $2";

const SHRINK: &str = "UPDATE {schema}.parcels SET messages = $3, size = $4 WHERE id = $1 AND holder = $2";

const FREE: &str = "
WITH freed AS (
    UPDATE {schema}.parcels SET holder = NULL, until = NULL WHERE id = ANY($1) AND holder = $2 RETURNING lane
)
SELECT pg_notify('{schema}.parcels', lane) FROM (SELECT DISTINCT lane FROM freed) AS l";

const ABANDON: &str = "
WITH freed AS (
    UPDATE {schema}.parcels SET holder = NULL, until = NULL WHERE holder = $1 AND NOT id = ANY($2) RETURNING lane
)
SELECT pg_notify('{schema}.parcels', lane) FROM (SELECT DISTINCT lane FROM freed) AS l";

const RENEW: &str =
    "UPDATE {schema}.parcels SET until = now() + make_interval(secs => $2) WHERE holder = ANY($1)";

const EXPIRE: &str = "
WITH freed AS (
    UPDATE {schema}.parcels SET holder = NULL, until = NULL WHERE id = ANY(ARRAY(
        SELECT id FROM {schema}.parcels WHERE holder IS NOT NULL AND until <= now() FOR UPDATE SKIP LOCKED
    )) RETURNING lane
)
SELECT pg_notify('{schema}.parcels', lane) FROM (SELECT DISTINCT lane FROM freed) AS l";

const DEPTH: &str =
    "SELECT coalesce(sum(size), 0)::int8 FROM {schema}.parcels WHERE lane = $1 AND holder IS NULL";

const DELETE: &str = "DELETE FROM {schema}.parcels WHERE lane = ANY($1)";

/// Postgres at `url`, whose parameter `schema` names the schema of the table.
pub(crate) fn open(url: &str) -> Result<Database, BrokerError> {
    // The parsers' own messages may quote the URL, password and all, and so are not passed on.
    let malformed = || BrokerError::Config {
        problem: "broker_url is not a valid Postgres URL".into(),
        remedy:
            "write it as postgres://user:password@host:5432/database, with special characters percent-encoded"
                .into(),
    };
    let mut url: Url = url.parse().map_err(|_| malformed())?;
    let (mine, others): (Vec<_>, Vec<_>) =
        url.query_pairs().into_owned().partition(|(name, _)| name == "schema");
    url.set_query(None);
    if !others.is_empty() {
        url.query_pairs_mut().extend_pairs(others);
    }
    let schema = mine.into_iter().next_back().map_or_else(|| DEFAULT_SCHEMA.to_owned(), |(_, schema)| schema);
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if schema.is_empty()
        || schema.len() > 48
        || !schema.bytes().all(letter)
        || schema.as_bytes()[0].is_ascii_digit()
    {
        return Err(BrokerError::Config {
            problem: "broker_url: its parameter `schema` is not a valid schema name".into(),
            remedy: "use 1 to 48 lower-case letters, digits and '_', not starting with a digit".into(),
        });
    }
    let connect: PgConnectOptions = url.as_str().parse().map_err(|_| malformed())?;
    let connect = match connect.get_application_name() {
        None => connect.application_name("windlass"),
        Some(_) => connect,
    };
    let address = format!("{}:{}", connect.get_host(), connect.get_port());
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(DEADLINE - Duration::from_secs(1))
        .connect_lazy_with(connect);
    Ok(Database::new(PostgresTable { pool, address, schema, made: AtomicBool::new(false) }))
}

struct PostgresTable {
    pool: PgPool,
    /// For messages.
    address: String,
    schema: String,
    /// Whether the table was seen.
    made: AtomicBool,
}

impl PostgresTable {
    fn query(&self, statement: &str) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(statement.replace("{schema}", &self.schema)))
    }

    /// Makes the table where it is missing.
    async fn ready(&self) -> Result<(), Error> {
        if self.made.load(Ordering::Relaxed) { Ok(()) } else { self.make().await }
    }

    async fn make(&self) -> Result<(), Error> {
        let there =
            self.query("SELECT to_regclass('{schema}.parcels') IS NOT NULL").fetch_one(&self.pool).await?;
        if !there.try_get::<bool, _>(0)? {
            let mut transaction = Transaction::begin(&self.pool).await?;
            // One at a time: IF NOT EXISTS alone fails when two processes begin at once.
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(format!("{}.parcels", self.schema))
                .execute(&mut *transaction.connection)
                .await?;
            raw_sql(AssertSqlSafe(MAKE.replace("{schema}", &self.schema)))
                .execute(&mut *transaction.connection)
                .await?;
            transaction.commit().await?;
        }
        self.made.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn put_on(
        &self,
        connection: &mut PgConnection,
        lanes: &[(Lane, Vec<Vec<u8>>)],
    ) -> Result<(), Error> {
        let (mut names, mut parcels, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
        let mut parcel = 0i32;
        for (lane, messages) in lanes {
            for chunk in messages.chunks(PARCEL) {
                parcel += 1;
                for body in chunk {
                    names.push(lane.to_string());
                    parcels.push(parcel);
                    bodies.push(body.as_slice());
                }
            }
        }
        self.query(PUT).bind(names).bind(parcels).bind(bodies).execute(connection).await.map(drop)
    }
}

/// Dropped before its commit (an error, the deadline), it takes its connection along. The driver's own gives it back to the pool
/// inside the transaction when BEGIN was under way, and whatever is done on it later is lost.
struct Transaction {
    connection: PoolConnection<Postgres>,
    committed: bool,
}

impl Transaction {
    async fn begin(pool: &PgPool) -> Result<Self, Error> {
        let mut transaction = Self { connection: pool.acquire().await?, committed: false };
        raw_sql("BEGIN").execute(&mut *transaction.connection).await?;
        Ok(transaction)
    }

    async fn commit(mut self) -> Result<(), Error> {
        raw_sql("COMMIT").execute(&mut *self.connection).await?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.committed {
            self.connection.close_on_drop();
        }
    }
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the pool, whose options hold the password.
        f.debug_struct("Postgres").field("schema", &self.schema).finish_non_exhaustive()
    }
}

#[async_trait]
impl Table for PostgresTable {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    async fn put(&self, lanes: &[(Lane, Vec<Vec<u8>>)]) -> Result<(), Error> {
        self.ready().await?;
        let mut connection = self.pool.acquire().await?;
        self.put_on(&mut connection, lanes).await
    }

    async fn take(&self, holder: Uuid, lanes: &[(Lane, usize)]) -> Result<Vec<(Lane, Parcel)>, Error> {
        self.ready().await?;
        let names: Vec<String> = lanes.iter().map(|(lane, _)| lane.to_string()).collect();
        let sum = |sum: &mut i64, (_, share): &(Lane, usize)| {
            *sum = sum.saturating_add_unsigned(*share as u64);
            Some(*sum)
        };
        let shares: Vec<i64> = lanes.iter().scan(0, sum).collect();
        let room = shares.last().copied().unwrap_or_default();
        let rows = self
            .query(TAKE)
            .bind(names.clone())
            .bind(holder)
            .bind(shares)
            .bind(room.min(LOOK))
            .bind(LEASE.as_secs_f64())
            .fetch_all(&self.pool)
            .await?;
        let mut taken = Vec::with_capacity(rows.len());
        for row in &rows {
            let name: &str = row.try_get(1)?;
            if let Some(place) = names.iter().position(|known| known == name) {
                let parcel = Parcel { id: row.try_get(0)?, messages: row.try_get(2)? };
                taken.push((lanes[place].0.clone(), parcel));
            }
        }
        Ok(taken)
    }

    async fn settle(&self, holder: Uuid, changes: &Changes) -> Result<(), Error> {
        self.ready().await?;
        if changes.shrunk.is_empty() && changes.freed.is_empty() && changes.returned.is_empty() {
            let remove = self.query(REMOVE).bind(changes.gone.clone()).bind(holder);
            return remove.execute(&self.pool).await.map(drop);
        }
        let mut transaction = Transaction::begin(&self.pool).await?;
        for (id, messages) in &changes.shrunk {
            let size = i32::try_from(messages.len()).unwrap_or(i32::MAX);
            let shrink = self.query(SHRINK).bind(*id).bind(holder).bind(messages.clone()).bind(size);
            shrink.execute(&mut *transaction.connection).await?;
        }
        if !changes.returned.is_empty() {
            self.put_on(&mut transaction.connection, &changes.returned).await?;
        }
        for (statement, ids) in [(FREE, &changes.freed), (REMOVE, &changes.gone)] {
            self.query(statement)
                .bind(ids.clone())
                .bind(holder)
                .execute(&mut *transaction.connection)
                .await?;
        }
        transaction.commit().await
    }

    async fn abandon(&self, holder: Uuid, except: &[i64]) -> Result<(), Error> {
        self.ready().await?;
        self.query(ABANDON).bind(holder).bind(except.to_vec()).execute(&self.pool).await.map(drop)
    }

    async fn renew(&self, holders: &[Uuid]) -> Result<(), Error> {
        self.ready().await?;
        self.query(RENEW).bind(holders.to_vec()).bind(LEASE.as_secs_f64()).execute(&self.pool).await?;
        self.query(EXPIRE).execute(&self.pool).await.map(drop)
    }

    async fn depth(&self, lane: &Lane) -> Result<u64, Error> {
        self.ready().await?;
        let row = self.query(DEPTH).bind(lane.to_string()).fetch_one(&self.pool).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), Error> {
        self.ready().await?;
        let lanes: Vec<String> = lanes.iter().map(ToString::to_string).collect();
        self.query(DELETE).bind(lanes).execute(&self.pool).await.map(drop)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.ready().await?;
        self.query("SELECT 1").execute(&self.pool).await.map(drop)
    }

    fn classify(&self, error: Error) -> BrokerError {
        let code = error.as_database_error().and_then(|error| error.code());
        if matches!(code.as_deref(), Some("42P01" | "3F000")) {
            // Somebody dropped the table: the next call makes it anew.
            self.made.store(false, Ordering::Relaxed);
        }
        match classify(error) {
            BrokerError::Unavailable(source) => {
                BrokerError::Unavailable(format!("Postgres at {}: {source}", self.address).into())
            }
            error => error,
        }
    }

    async fn listen(&self, listeners: &Listeners) {
        loop {
            if let Err(error) = self.hear(listeners).await {
                tracing::debug!(%error, "not listening for messages; looking for them once a second");
            }
            sleep(Duration::from_secs(1)).await;
            listeners.wake_all();
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

impl PostgresTable {
    async fn hear(&self, listeners: &Listeners) -> Result<(), Error> {
        // A connection of its own, so that the pool keeps all of its.
        let options = PgPoolOptions::new().max_connections(1).acquire_timeout(DEADLINE);
        let pool = options.connect_lazy_with((*self.pool.connect_options()).clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(&format!("{}.parcels", self.schema)).await?;
        // What came before it listened.
        listeners.wake_all();
        while let Some(notification) = listener.try_recv().await? {
            listeners.wake(notification.payload());
        }
        Ok(())
    }
}

/// What to do about a driver's error: wait, or mend a setting.
fn classify(error: Error) -> BrokerError {
    let config = |problem: String, remedy: &str| BrokerError::Config { problem, remedy: remedy.into() };
    let Error::Database(database) = &error else {
        return match &error {
            Error::Tls(_) => config(
                "broker_url: the TLS connection to Postgres failed".into(),
                "check `sslmode` in it, and the server's certificate",
            ),
            Error::PoolClosed => BrokerError::Closed,
            _ => BrokerError::Unavailable(Box::new(error)),
        };
    };
    match database.code().as_deref() {
        Some("28P01" | "28000") => config(
            "broker_url: Postgres refuses the user or the password".into(),
            "check both, and the server's pg_hba.conf",
        ),
        Some("3D000") => {
            config("broker_url: the database does not exist".into(), "create it, or correct the name")
        }
        Some("42501") => config(
            format!("broker_url: the user lacks a right ({})", database.message()),
            "grant it, or run `windlass migrate` once as a user who may create the schema",
        ),
        // Columns that are missing, or of other types.
        Some("42703" | "42804" | "42883") => config(
            format!(
                "broker_url: its schema has a table `parcels` that is not Windlass's ({})",
                database.message()
            ),
            "name another schema by the parameter `schema`, or drop that table",
        ),
        _ => BrokerError::Unavailable(Box::new(error)),
    }
}
