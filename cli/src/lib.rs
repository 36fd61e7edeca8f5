//! The windlass command: dev, api, migrate, bench.
