//! End-to-end tests of the promises, with real servers and processes that are killed.
