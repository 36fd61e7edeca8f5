use std::{
    fmt,
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Error, PgConnection, Postgres, SqlStr, pool::PoolConnection, raw_sql};
use windlass_core::StoreError;

use super::{PostgresStore, within};

/// What a virtual clock shows, where the server sees it.
pub(super) const SHOW_TIME: &str = "UPDATE {schema}.clock SET at = $1 WHERE at <> $1";

/// A connection for one operation. Dropped before its end (an error, the deadline), it takes the connection along:
/// whatever was under way is rolled back, and the pool need not find out whether the server still answers.
pub(super) struct Session {
    connection: PoolConnection<Postgres>,
    in_transaction: bool,
    ended: bool,
}

impl PostgresStore {
    /// For an operation of one statement, which is its own transaction.
    ///
    /// The driver sends it in two steps, prepare and execute. A pooler that keeps no prepared statements may give each
    /// to another server connection, unless a transaction holds them together.
    pub(super) async fn statement(&self) -> Result<Session, Error> {
        self.show_time().await?;
        self.session(!self.connections.persistent).await
    }

    /// For an operation of several statements.
    pub(super) async fn transaction(&self) -> Result<Session, Error> {
        self.show_time().await?;
        self.session(true).await
    }

    /// Lets the server know what the virtual clock shows, if there is one.
    async fn show_time(&self) -> Result<(), Error> {
        let Some(clock) = &self.clock else { return Ok(()) };
        let show = self.rare(SHOW_TIME).bind(clock.now());
        let mut session = self.session(!self.connections.persistent).await?;
        show.execute(&mut *session).await?;
        session.commit().await
    }

    pub(super) async fn session(&self, in_transaction: bool) -> Result<Session, Error> {
        self.session_of(in_transaction.then(|| self.sql.begin.clone())).await
    }

    async fn session_of(&self, begin: Option<SqlStr>) -> Result<Session, Error> {
        let connection = self.connections.acquire().await?;
        let mut session = Session { connection, in_transaction: begin.is_some(), ended: false };
        if let Some(begin) = begin {
            raw_sql(begin).execute(&mut *session).await?;
        }
        Ok(session)
    }

    /// Has the server end a transaction in which nothing comes for longer than an operation may take: whoever began it is
    /// gone, or stands still, and others wait for what it has locked. Of a machine that is gone a server learns after two hours.
    pub(super) fn hurry(deadline: Duration) -> String {
        let most = deadline.as_millis().clamp(1, i32::MAX as u128);
        format!("SET LOCAL idle_in_transaction_session_timeout = {most}")
    }
}

impl Session {
    /// Makes it real, and gives the connection back.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        if self.in_transaction {
            raw_sql("COMMIT").execute(&mut *self).await?;
        }
        self.ended = true;
        Ok(())
    }

    /// Undoes it, and gives the connection back once the server has.
    pub(super) async fn roll_back(mut self) -> Result<(), Error> {
        raw_sql("ROLLBACK").execute(&mut *self).await?;
        self.ended = true;
        Ok(())
    }
}

/// A transaction on the store's pool, for writes of others that are to be one with a job's completion: use it as the
/// connection it derefs to. Dropped before its commit, it is rolled back, and its connection goes with it.
///
/// It is not the driver's own, which has a gap: when whoever waits for its BEGIN is dropped, the connection goes back to the
/// pool within a transaction that nobody knows of, and all that is done on it later is lost.
pub struct PostgresTransaction {
    session: Session,
    /// How long its end may take.
    deadline: Duration,
}

impl PostgresTransaction {
    /// Makes all of it real.
    ///
    /// # Errors
    /// See [`StoreError`]. It may be real all the same, unless the server has answered.
    pub async fn commit(self) -> Result<(), StoreError> {
        within(self.deadline, self.session.commit()).await
    }
}

impl Deref for PostgresTransaction {
    type Target = PoolConnection<Postgres>;

    fn deref(&self) -> &Self::Target {
        &self.session.connection
    }
}

impl DerefMut for PostgresTransaction {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.session.connection
    }
}

impl fmt::Debug for PostgresTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTransaction").finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Begins a transaction on the store's pool, for writes that are to be one with a job's
    /// [completion](Self::finish_in). It may take its time until then.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn begin(&self) -> Result<PostgresTransaction, StoreError> {
        let begin = SqlStr::from_static("BEGIN");
        let session = self.within(self.session_of(Some(begin))).await?;
        Ok(PostgresTransaction { session, deadline: self.deadline })
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.close_on_drop();
        }
    }
}
