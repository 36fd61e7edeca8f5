//! The connections to one server.

use std::time::Duration;

use sqlx::{
    Connection, Error, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use windlass_core::StoreError;

use crate::StoreOptions;

/// Connections idle for longer are tried before use, so that a server's restart is noticed in time; younger ones are
/// not, since that would cost every statement a round trip.
const TRY_AFTER_IDLE: Duration = Duration::from_secs(1);

/// How long such a connection has to answer before a new one is made.
const TRY_FOR: Duration = Duration::from_secs(1);

/// Has the server keep the plan of a prepared statement. Left to itself it makes one for each use, since a plan for these very
/// values seems cheaper, as it leaves out partitions; but to make it takes as long as to run it for a hundred jobs. What the
/// plans must be like is in `plans.rs`.
const KEEP_PLANS: (&str, &str) = ("plan_cache_mode", "force_generic_plan");

/// A pool, and what it must do without where a pooler is between.
#[derive(Clone)]
pub(super) struct Connections {
    pool: PgPool,
    plain: PgConnectOptions,
    /// Whether the pooler, if any, keeps prepared statements.
    pub(super) persistent: bool,
}

impl Connections {
    /// To the server at `url`, which is of the named setting, made when they are needed; and the server for people.
    pub(super) fn open(
        url: &str,
        setting: &str,
        options: &StoreOptions,
    ) -> Result<(Self, String), StoreError> {
        // The error is not shown, since it may quote the password.
        let plain: PgConnectOptions = url.parse().map_err(|_| StoreError::Config {
            problem: format!("{setting} is not a valid Postgres URL"),
            remedy:
                "write postgres://user:password@host:port/database, with special characters percent-encoded"
                    .into(),
        })?;
        let plain = match plain.get_application_name() {
            None => plain.application_name("windlass"),
            Some(_) => plain,
        };
        let server = format!("{}:{}", plain.get_host(), plain.get_port());
        let persistent = keeps_statements(url);
        let connect = if persistent { plain.clone().options([KEEP_PLANS]) } else { plain.clone() };
        let pool = PgPoolOptions::new()
            .max_connections(options.connections)
            // So that the statement has the other half.
            .acquire_timeout(options.deadline / 2)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRY_AFTER_IDLE {
                        return Ok(true);
                    }
                    let answer = tokio::time::timeout(TRY_FOR, connection.ping()).await;
                    Ok(matches!(answer, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(connect);
        Ok((Self { pool, plain, persistent }, server))
    }

    pub(super) async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        match self.pool.acquire().await {
            Err(error) if refuses_options(&error) => {
                self.pool.set_connect_options(self.plain.clone());
                self.pool.acquire().await
            }
            acquired => acquired,
        }
    }
}

/// Whether a pooler hands on no settings. Each has its own code and words for that. What is taken for it and is not fails in
/// the same way without them.
fn refuses_options(error: &Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    let refused = matches!(error.code().as_deref(), Some("08P01" | "0A000" | "22023" | "42704"));
    refused && ["option", "parameter"].iter().any(|word| error.message().contains(word))
}

/// Whether the driver may keep prepared statements on its connections.
fn keeps_statements(url: &str) -> bool {
    let capacity = url.split(['?', '&', '#']).find_map(|part| part.strip_prefix("statement-cache-capacity="));
    capacity.is_none_or(|capacity| capacity.parse() != Ok(0))
}
