//! Four real Windlass handlers, and a worker binary that runs them.
