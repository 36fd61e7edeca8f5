//! derive(Job) for Windlass payload types.
