//! The Windlass worker: handlers, the run loop, leases and maintenance.
