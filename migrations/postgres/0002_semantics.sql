-- What only some jobs have. None of it is in an index of jobs, so that claim and finish stay HOT.
ALTER TABLE {schema}.jobs
    -- Not to be started after.
    ADD COLUMN expires_at timestamptz,
    -- To be over by then, whatever state it is in.
    ADD COLUMN deadline   timestamptz,
    -- Of the payload's form.
    ADD COLUMN version    smallint NOT NULL DEFAULT 1,
    -- When due, it has to wait for other jobs.
    ADD COLUMN gated      boolean  NOT NULL DEFAULT false,
    -- Its end is somebody's business: a follow-up is noted.
    ADD COLUMN followed   boolean  NOT NULL DEFAULT false;

-- What remains to be done after jobs came to an end or a pause: noted in the transaction that recorded it, done and
-- removed in another soon after. An outbox, so to speak, for the store itself.
CREATE TABLE {schema}.followups (
    id     bigint NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    job_id uuid   NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- The dead letters: jobs has no index to find them by.
CREATE TABLE {schema}.dead (
    job_id uuid        NOT NULL PRIMARY KEY,
    at     timestamptz NOT NULL
);
CREATE INDEX dead_at ON {schema}.dead (at, job_id);
INSERT INTO {schema}.dead SELECT id, finished_at FROM {schema}.jobs WHERE state = {dead};

-- What operators say of queues. A queue without a row is an ordinary one.
CREATE TABLE {schema}.queues (
    name   text    NOT NULL PRIMARY KEY,
    paused boolean NOT NULL DEFAULT false
);
