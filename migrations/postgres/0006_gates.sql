ALTER TABLE {schema}.jobs
    -- JSON: the limits, ordering key and tenant that the enqueue named.
    ADD COLUMN gating text;

ALTER TABLE {schema}.queues
    ADD COLUMN draining    boolean NOT NULL DEFAULT false,
    ADD COLUMN max_running integer,
    ADD COLUMN rate        integer,
    ADD COLUMN per_us      bigint,
    ADD COLUMN burst       integer,
    -- How many jobs may be on their way to a worker while the others wait for their tenant's turn.
    ADD COLUMN fair_window integer,
    -- Whether its jobs have to pass a gate.
    ADD COLUMN limited     boolean NOT NULL GENERATED ALWAYS AS
        (max_running IS NOT NULL OR rate IS NOT NULL OR fair_window IS NOT NULL) STORED;

-- The limits that jobs may name.
CREATE TABLE {schema}.limits (
    name        text    NOT NULL PRIMARY KEY,
    max_running integer,
    rate        integer,
    per_us      bigint,
    burst       integer
);

-- Who passes which gate is decided under one lock (store/src/admission.rs); these are its books.

-- Gates that hold something: slots taken, a rate to keep, a next start. Times are microseconds since 1970.
CREATE TABLE {schema}.gates (
    key     text    NOT NULL PRIMARY KEY,
    -- How many rows of slots name it.
    taken   integer NOT NULL,
    -- By when a bucket that was never empty would have filled.
    full_at bigint  NOT NULL,
    -- When the next job may start, if one waits for that; or that its rules have changed.
    next_at bigint,
    -- In a fair queue: the rank of the newest job let through.
    rank    bigint  NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX gates_next_at ON {schema}.gates (next_at) WHERE next_at IS NOT NULL;

-- Who holds a place behind a gate.
CREATE TABLE {schema}.slots (
    job_id uuid NOT NULL,
    gate   text NOT NULL,
    PRIMARY KEY (job_id, gate)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- Jobs with the same gates wait in one line, at the first of those gates that is shut.
CREATE TABLE {schema}.lines (
    id       bigint   NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    -- JSON
    gates    text     NOT NULL UNIQUE,
    waits_at text     NOT NULL,
    -- The place of its first job.
    urgency  smallint NOT NULL,
    rank     bigint   NOT NULL,
    seq      bigint   NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX lines_waits_at ON {schema}.lines (waits_at, urgency, rank, seq);

-- Jobs that have come to a gate and are not over yet.
CREATE TABLE {schema}.gated (
    job_id   uuid     NOT NULL PRIMARY KEY,
    -- The order in which they came, which an ordering key keeps.
    seq      bigint   NOT NULL GENERATED ALWAYS AS IDENTITY,
    urgency  smallint NOT NULL,
    rank     bigint   NOT NULL,
    -- Where it waits; null while it does not.
    line     bigint,
    -- Whether it is through: a worker may have it.
    admitted boolean  NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX gated_line ON {schema}.gated (line, urgency, rank, seq) WHERE line IS NOT NULL;

-- The rank that each tenant's next job in a fair queue has at least.
CREATE TABLE {schema}.shares (
    queue  text   NOT NULL,
    tenant text   NOT NULL,
    rank   bigint NOT NULL,
    PRIMARY KEY (queue, tenant)
);
