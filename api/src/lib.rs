//! The Windlass HTTP API: accept, poll and cancel jobs.
