//! Parcels in a SQLite file, for the processes of one machine. Each parcel is one message: rows cost little here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection, Error, Row, Sqlite, Transaction, raw_sql};
use tokio::sync::OnceCell;
use tokio::time::sleep;
use uuid::Uuid;
use windlass_core::{BrokerError, Lane};

use super::{Changes, DEADLINE, Database, LEASE, Listeners, Parcel, Table};

/// How often a process looks whether another has written to the file, which costs next to nothing.
const LOOK: Duration = Duration::from_millis(20);

const MAKE: &str = "
CREATE TABLE IF NOT EXISTS messages (
    id     INTEGER PRIMARY KEY,
    lane   TEXT NOT NULL,
    body   BLOB NOT NULL,
    holder BLOB,
    until  INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS messages_free ON messages (lane, id) WHERE holder IS NULL;
CREATE INDEX IF NOT EXISTS messages_held ON messages (holder) WHERE holder IS NOT NULL";

const TAKE: &str = "
UPDATE messages SET holder = ?1, until = ?2 WHERE id IN (
    SELECT id FROM messages WHERE lane = ?3 AND holder IS NULL ORDER BY id LIMIT ?4
) RETURNING id, body";

const REMOVE: &str = "DELETE FROM messages WHERE id = ? AND holder = ?";

const FREE: &str = "UPDATE messages SET holder = NULL, until = NULL WHERE id = ? AND holder = ?";

const EXPIRE: &str =
    "UPDATE messages SET holder = NULL, until = NULL WHERE holder IS NOT NULL AND until <= ?";

/// The file that `url` (`sqlite:path/to/file.db`) names, made with its folder where needed.
pub(crate) fn open(url: &str) -> Result<Database, BrokerError> {
    let config = |problem: String, remedy: &str| BrokerError::Config { problem, remedy: remedy.into() };
    let connect: SqliteConnectOptions = url.parse().map_err(|error| {
        config(format!("broker_url is not a valid SQLite URL ({error})"), "write sqlite:path/to/broker.db")
    })?;
    let file = connect.get_filename().to_owned();
    if url.contains(":memory:") || url.contains("mode=memory") || file.as_os_str().is_empty() {
        return Err(config("broker_url names no file".into(), "write sqlite:path/to/broker.db, or memory:"));
    }
    if let Some(folder) = file.parent().filter(|folder| *folder != Path::new("")) {
        std::fs::create_dir_all(folder).map_err(|error| {
            config(
                format!("broker_url: the folder {} cannot be made ({error})", folder.display()),
                "name a folder that this user may write to",
            )
        })?;
    }
    let connect = connect.create_if_missing(true).busy_timeout(DEADLINE / 2);
    // SQLite has one writer at a time.
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(DEADLINE)
        .connect_lazy_with(connect.clone().synchronous(SqliteSynchronous::Full));
    Ok(Database::new(SqliteTable { pool, connect, file, made: OnceCell::new() }))
}

struct SqliteTable {
    pool: SqlitePool,
    connect: SqliteConnectOptions,
    file: PathBuf,
    made: OnceCell<()>,
}

impl SqliteTable {
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        self.made.get_or_try_init(|| self.make()).await?;
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    async fn make(&self) -> Result<(), Error> {
        // The switch takes a lock for which SQLite does not wait: other processes may be at it.
        let mut tries = 0;
        while let Err(error) =
            SqliteConnection::connect_with(&self.connect.clone().journal_mode(SqliteJournalMode::Wal)).await
        {
            tries += 1;
            if tries == 50 {
                return Err(error);
            }
            sleep(LOOK).await;
        }
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        raw_sql(MAKE).execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

impl fmt::Debug for SqliteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("file", &self.file).finish_non_exhaustive()
    }
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn lease_end() -> i64 {
    now().saturating_add(LEASE.as_millis() as i64)
}

#[async_trait]
impl Table for SqliteTable {
    fn kind(&self) -> &'static str {
        "sqlite"
    }

    async fn put(&self, lanes: &[(Lane, Vec<Vec<u8>>)]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for (lane, messages) in lanes {
            let lane = lane.to_string();
            for body in messages {
                let insert =
                    sqlx::query("INSERT INTO messages (lane, body) VALUES (?, ?)").bind(lane.as_str());
                insert.bind(body.as_slice()).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await
    }

    async fn take(&self, holder: Uuid, lanes: &[(Lane, usize)]) -> Result<Vec<(Lane, Parcel)>, Error> {
        let mut transaction = self.begin().await?;
        let mut taken = Vec::new();
        let mut room = 0;
        for (lane, share) in lanes {
            room += share;
            let left = room.saturating_sub(taken.len());
            if left == 0 {
                continue;
            }
            let take = sqlx::query(TAKE).bind(holder).bind(lease_end()).bind(lane.to_string());
            let rows =
                take.bind(i64::try_from(left).unwrap_or(i64::MAX)).fetch_all(&mut *transaction).await?;
            let first = taken.len();
            for row in &rows {
                let parcel = Parcel { id: row.try_get(0)?, messages: vec![row.try_get(1)?] };
                taken.push((lane.clone(), parcel));
            }
            // RETURNING knows no order.
            taken[first..].sort_by_key(|(_, parcel)| parcel.id);
        }
        transaction.commit().await?;
        Ok(taken)
    }

    async fn settle(&self, holder: Uuid, changes: &Changes) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        // Parcels of one message are settled altogether or not at all.
        for (statement, ids) in [(REMOVE, &changes.gone), (FREE, &changes.freed)] {
            for id in ids {
                sqlx::query(statement).bind(*id).bind(holder).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await
    }

    async fn abandon(&self, holder: Uuid, except: &[i64]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        let held = sqlx::query("SELECT id FROM messages WHERE holder = ?").bind(holder);
        for row in held.fetch_all(&mut *transaction).await? {
            let id: i64 = row.try_get(0)?;
            if !except.contains(&id) {
                sqlx::query(FREE).bind(id).bind(holder).execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await
    }

    async fn renew(&self, holders: &[Uuid]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for holder in holders {
            let renew = sqlx::query("UPDATE messages SET until = ? WHERE holder = ?").bind(lease_end());
            renew.bind(*holder).execute(&mut *transaction).await?;
        }
        sqlx::query(EXPIRE).bind(now()).execute(&mut *transaction).await?;
        transaction.commit().await
    }

    async fn depth(&self, lane: &Lane) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let count = sqlx::query("SELECT count(*) FROM messages WHERE lane = ? AND holder IS NULL");
        let row = count.bind(lane.to_string()).fetch_one(&mut *transaction).await?;
        Ok(row.try_get::<i64, _>(0)?.unsigned_abs())
    }

    async fn delete(&self, lanes: &[Lane]) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        for lane in lanes {
            let delete = sqlx::query("DELETE FROM messages WHERE lane = ?").bind(lane.to_string());
            delete.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.begin().await?.rollback().await
    }

    fn classify(&self, error: Error) -> BrokerError {
        // 14: cannot open; 8: read-only; 26: not a database.
        let code = error
            .as_database_error()
            .and_then(|error| error.code()?.parse::<i32>().ok())
            .map(|code| code & 0xff);
        match code {
            // The statements are always the same.
            Some(1) if error.to_string().contains("column") => BrokerError::Config {
                problem: format!(
                    "broker_url: {} has a table `messages` that is not Windlass's ({error})",
                    self.file.display()
                ),
                remedy: "name another file".into(),
            },
            Some(8 | 14 | 26) => BrokerError::Config {
                problem: format!("broker_url: {} cannot be used ({error})", self.file.display()),
                remedy: "name a file, in a folder, that this user may write to".into(),
            },
            _ if matches!(error, Error::PoolClosed) => BrokerError::Closed,
            _ => BrokerError::Unavailable(Box::new(error)),
        }
    }

    async fn listen(&self, listeners: &Listeners) {
        loop {
            if let Ok(mut connection) = SqliteConnection::connect_with(&self.connect).await {
                let mut last = None;
                // The number changes whenever another connection has committed.
                while let Ok(row) = sqlx::query("PRAGMA data_version").fetch_one(&mut connection).await {
                    let version = row.try_get::<i64, _>(0).ok();
                    if std::mem::replace(&mut last, version) != version {
                        listeners.wake_all();
                    }
                    sleep(LOOK).await;
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
