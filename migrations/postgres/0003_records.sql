-- What running attempts say about themselves. Partitioned as jobs are, so that all are dropped together.

CREATE TABLE {schema}.job_progress (
    job_id  uuid        NOT NULL PRIMARY KEY,
    fence   integer     NOT NULL,
    at      timestamptz NOT NULL,
    value   float8      NOT NULL,
    message text        NOT NULL
) PARTITION BY RANGE (job_id);
CREATE TABLE {schema}.job_progress_default PARTITION OF {schema}.job_progress DEFAULT;

CREATE TABLE {schema}.job_logs (
    job_id  uuid        NOT NULL,
    fence   integer     NOT NULL,
    -- Of the line in its attempt.
    number  integer     NOT NULL,
    attempt integer     NOT NULL,
    at      timestamptz NOT NULL,
    level   smallint    NOT NULL,
    message text        NOT NULL,
    fields  text,
    PRIMARY KEY (job_id, fence, number)
) PARTITION BY RANGE (job_id);
CREATE TABLE {schema}.job_logs_default PARTITION OF {schema}.job_logs DEFAULT;

-- What an attempt leaves for the next.
CREATE TABLE {schema}.job_checkpoints (
    job_id uuid        NOT NULL PRIMARY KEY,
    fence  integer     NOT NULL,
    at     timestamptz NOT NULL,
    value  text        NOT NULL
) PARTITION BY RANGE (job_id);
CREATE TABLE {schema}.job_checkpoints_default PARTITION OF {schema}.job_checkpoints DEFAULT;

-- When results are to be forgotten, of those that are not kept as long as their jobs.
CREATE TABLE {schema}.expiring_results (
    job_id     uuid        NOT NULL PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX expiring_results_expires_at ON {schema}.expiring_results (expires_at);
