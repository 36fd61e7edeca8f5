use sqlx::Error;
use windlass_core::{Source, StoreError};

/// What to do about a driver's error: wait, mend a setting, or report a bug.
pub(super) fn classify(error: Error) -> StoreError {
    match &error {
        Error::Io(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => StoreError::Unavailable(Box::new(error)),
        Error::Tls(_) => config(
            "store_url: the TLS connection to Postgres failed",
            "check `sslmode` in it, and the server's certificate",
        ),
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match &*code {
                // Passwords are not quoted by the server.
                "28P01" | "28000" => refused(),
                // PgBouncer's word for it.
                "08P01" if database.message().contains("authentication failed") => refused(),
                "3D000" => config("store_url: the database does not exist", "create it, or correct the name"),
                "42501" => config(
                    &format!("store_url: the user lacks a right ({})", database.message()),
                    "grant it, or run `windlass migrate` as the owner of the schema",
                ),
                // Prepared on one server connection, run on another.
                "26000" | "42P05" => config(
                    "store_url leads to a pooler that keeps no prepared statements",
                    "add `?statement-cache-capacity=0` to it, or upgrade PgBouncer to 1.21 and set max_prepared_statements",
                ),
                "3F000" | "42P01" | "42703" => config(
                    &format!("the schema does not fit this release ({})", database.message()),
                    "run `windlass migrate`, and check store_schema",
                ),
                // Serialization and deadlock, connection trouble, resources, shutdown, read-only after a failover,
                // cancelled by the server's timeouts.
                "40001" | "40P01" | "25006" | "25P03" | "55P03" | "57014" => {
                    StoreError::Unavailable(Box::new(error))
                }
                code if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => {
                    StoreError::Unavailable(Box::new(error))
                }
                _ => StoreError::Unexpected(Box::new(error)),
            }
        }
        _ => StoreError::Unexpected(Box::new(error)),
    }
}

/// Whether the server ended a transaction that waited for another one in a circle. Nothing of it has happened.
pub(super) fn is_deadlock(error: &Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("40P01"))
}

fn refused() -> StoreError {
    config(
        "store_url: Postgres refuses the user or the password",
        "check both, and the pg_hba.conf of the server or the auth_file of the pooler",
    )
}

fn config(problem: &str, remedy: &str) -> StoreError {
    StoreError::Config { problem: problem.into(), remedy: remedy.into() }
}

/// For values in a row that this release cannot read.
pub(super) fn unexpected<E: Into<Source>>(error: E) -> Error {
    Error::Decode(error.into())
}
