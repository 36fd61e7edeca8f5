use std::path::Path;

use sqlx::{Error, error::DatabaseError};
use windlass_core::StoreError;

/// What to do about a driver's error: wait, mend something, or report a bug.
pub(super) fn classify(error: Error, file: &Path) -> StoreError {
    let config = |what: &str, remedy: &str| StoreError::Config {
        problem: format!("store_url: {} {what}", file.display()),
        remedy: remedy.into(),
    };
    match &error {
        Error::Io(_) | Error::PoolTimedOut | Error::PoolClosed | Error::WorkerCrashed => {
            StoreError::Unavailable(Box::new(error))
        }
        Error::Database(database) => {
            match primary_code(database.as_ref()) {
                // Busy, locked, out of memory, interrupted, I/O error, disk full.
                5 | 6 | 7 | 9 | 10 | 13 => StoreError::Unavailable(Box::new(error)),
                3 | 8 => config(
                    "cannot be written to",
                    "give this user the right to write the file and its folder",
                ),
                14 => config("cannot be opened", "name a file in a folder that this user may write to"),
                26 => config("is not a SQLite database", "name another file, or move this one away"),
                1 if database.message().starts_with("no such") => config(
                    &format!("has a schema that does not fit this release ({})", database.message()),
                    "run `windlass migrate`",
                ),
                _ => StoreError::Unexpected(Box::new(error)),
            }
        }
        _ => StoreError::Unexpected(Box::new(error)),
    }
}

/// Whether another connection was in the way.
pub(super) fn is_locked(error: &Error) -> bool {
    error.as_database_error().is_some_and(|error| matches!(primary_code(error), 5 | 6))
}

/// The low byte of an extended code.
fn primary_code(error: &dyn DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default() & 0xff
}
