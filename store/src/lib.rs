//! The Windlass stores: Postgres and SQLite.
