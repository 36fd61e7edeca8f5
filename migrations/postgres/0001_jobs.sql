-- The truth of every job. Partitioned by id, which is a UUIDv7 and so ordered by time: retention drops whole
-- partitions. The primary key is the only index, and no index may ever mention state or another column that claim or
-- finish update: both updates then stay HOT, within the page (fillfactor 50), and touch no index.
CREATE TABLE {schema}.jobs (
    id               uuid        NOT NULL PRIMARY KEY,
    created_at       timestamptz NOT NULL DEFAULT {now},
    run_at           timestamptz,
    started_at       timestamptz,
    finished_at      timestamptz,
    worker_id        uuid,
    timeout_ms       bigint,
    -- The fence: how often the job has been claimed. Only ever grows.
    attempt          integer     NOT NULL DEFAULT 0,
    -- Of those, the claims that do not count: released unstarted, snoozed.
    uncounted        integer     NOT NULL DEFAULT 0,
    -- How many workers were lost while they ran it.
    crashes          integer     NOT NULL DEFAULT 0,
    max_attempts     integer     NOT NULL,
    state            smallint    NOT NULL,
    priority         smallint    NOT NULL,
    cancel_requested boolean     NOT NULL DEFAULT false,
    kind             text        NOT NULL,
    queue            text        NOT NULL,
    -- JSON, kept byte for byte; cast to jsonb where you query it.
    payload          text        NOT NULL,
    result           text,
    labels           jsonb       NOT NULL DEFAULT '{}',
    trace            text
) PARTITION BY RANGE (id);

-- The net for ids whose time lies outside every partition, from a clock that is wrong by days.
CREATE TABLE {schema}.jobs_default PARTITION OF {schema}.jobs DEFAULT
    WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, vacuum_truncate = off);

-- Pages of nothing: to the planner, a table without pages is best read whole.
INSERT INTO {schema}.jobs_default (id, max_attempts, state, priority, kind, queue, payload)
SELECT gen_random_uuid(), 1, {dead}, 0, '', '', repeat('x', 1900) FROM generate_series(1, 64);
DELETE FROM {schema}.jobs_default;

-- One row per failed attempt. Partitioned as jobs are, so that both are dropped together.
CREATE TABLE {schema}.job_errors (
    job_id  uuid        NOT NULL,
    fence   integer     NOT NULL,
    attempt integer     NOT NULL,
    at      timestamptz NOT NULL DEFAULT {now},
    worker  text        NOT NULL,
    message text        NOT NULL,
    PRIMARY KEY (job_id, fence)
) PARTITION BY RANGE (job_id);

CREATE TABLE {schema}.job_errors_default PARTITION OF {schema}.job_errors DEFAULT;

-- Of due, outbox and claims, rows come and go all the time while few are there at once: vacuum clears them by the
-- thousand, unthrottled.

-- What waits for its time: scheduled and retrying jobs.
CREATE TABLE {schema}.due (
    job_id uuid        NOT NULL PRIMARY KEY,
    run_at timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX due_run_at ON {schema}.due (run_at);

-- Groups of queued jobs: first to be published, then to be verified, until none of them is queued any more.
CREATE TABLE {schema}.outbox (
    id         bigint      NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    created_at timestamptz NOT NULL DEFAULT {now},
    due_at     timestamptz NOT NULL,
    published  boolean     NOT NULL DEFAULT false,
    job_ids    uuid[]      NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX outbox_due_at ON {schema}.outbox (due_at);

-- Worker processes; one row and one heartbeat each, however many jobs they run.
CREATE TABLE {schema}.workers (
    id           uuid        NOT NULL PRIMARY KEY,
    label        text        NOT NULL,
    lease        interval    NOT NULL,
    started_at   timestamptz NOT NULL DEFAULT {now},
    heartbeat_at timestamptz NOT NULL DEFAULT {now}
) WITH (fillfactor = 50);

-- Whose jobs are running: one row per claim, gone when the last of its jobs has ended. The foreign key is what keeps
-- a worker that was declared dead from claiming.
CREATE TABLE {schema}.claims (
    id        uuid   NOT NULL PRIMARY KEY,
    worker_id uuid   NOT NULL REFERENCES {schema}.workers (id),
    job_ids   uuid[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
CREATE INDEX claims_worker_id ON {schema}.claims (worker_id);

-- Requests to cancel running jobs, until those have ended.
CREATE TABLE {schema}.cancellations (
    job_id    uuid NOT NULL PRIMARY KEY,
    worker_id uuid NOT NULL
);
CREATE INDEX cancellations_worker_id ON {schema}.cancellations (worker_id);

-- What workers say of the kinds they handle.
CREATE TABLE {schema}.kinds (
    kind         text    NOT NULL PRIMARY KEY,
    queue        text    NOT NULL,
    max_attempts integer NOT NULL
);

CREATE TABLE {schema}.idempotency_keys (
    -- As bytes, since it is the client's and may hold what text cannot.
    key         bytea       NOT NULL PRIMARY KEY,
    fingerprint bytea       NOT NULL,
    job_id      uuid        NOT NULL,
    expires_at  timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_expires_at ON {schema}.idempotency_keys (expires_at);

-- Who leads, until when. Rows rather than session locks, so that poolers work.
CREATE TABLE {schema}.leases (
    name       text        NOT NULL PRIMARY KEY,
    holder     uuid        NOT NULL,
    expires_at timestamptz NOT NULL
);
