//! Throughput and latency of Windlass, next to what its servers can do, in one run.
