-- Times at which a job is over unless something has happened: one row for an expiry, one for a deadline. They stay until
-- their time, whatever becomes of the job before.
CREATE TABLE {schema}.timers (
    job_id   uuid        NOT NULL,
    deadline boolean     NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (job_id, deadline)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX timers_at ON {schema}.timers (at);

CREATE TABLE {schema}.schedules (
    name       text        NOT NULL PRIMARY KEY,
    -- JSON: when it fires, and what it makes then.
    definition text        NOT NULL,
    enabled    boolean     NOT NULL DEFAULT true,
    -- The first tick that has not been dealt with; null for never.
    next_at    timestamptz,
    last_at    timestamptz
);

-- Which job had a key last. Whether it still has is seen from its state, or from the time.
CREATE TABLE {schema}.unique_keys (
    key      bytea       NOT NULL PRIMARY KEY,
    job_id   uuid        NOT NULL,
    -- Until when, if that does not depend on the job's state.
    until    timestamptz,
    -- When housekeeping looks whether the row is still of use.
    check_at timestamptz NOT NULL
);
CREATE INDEX unique_keys_check_at ON {schema}.unique_keys (check_at);
