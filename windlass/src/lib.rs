//! Windlass: background jobs in Rust over any broker. The crate that users depend on.
