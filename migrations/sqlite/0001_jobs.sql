-- The Postgres schema (migrations/postgres) without partitions; see there for what each table is for.
-- Ids are UUIDs as text, times are microseconds since 1970, booleans are 0 and 1, lists of ids are JSON arrays.
CREATE TABLE jobs (
    id               TEXT    NOT NULL PRIMARY KEY,
    created_at       INTEGER NOT NULL,
    run_at           INTEGER,
    started_at       INTEGER,
    finished_at      INTEGER,
    worker_id        TEXT,
    timeout_ms       INTEGER,
    attempt          INTEGER NOT NULL DEFAULT 0,
    uncounted        INTEGER NOT NULL DEFAULT 0,
    crashes          INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    priority         INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    kind             TEXT    NOT NULL,
    queue            TEXT    NOT NULL,
    payload          TEXT    NOT NULL,
    result           TEXT,
    labels           TEXT    NOT NULL DEFAULT '{}',
    trace            TEXT
) STRICT;

CREATE TABLE job_errors (
    job_id  TEXT    NOT NULL,
    fence   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    worker  TEXT    NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (job_id, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE due (
    job_id TEXT    NOT NULL PRIMARY KEY,
    run_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX due_run_at ON due (run_at);

CREATE TABLE outbox (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    published  INTEGER NOT NULL DEFAULT 0,
    job_ids    TEXT    NOT NULL
) STRICT;
CREATE INDEX outbox_due_at ON outbox (due_at);

CREATE TABLE workers (
    id           TEXT    NOT NULL PRIMARY KEY,
    label        TEXT    NOT NULL,
    lease        INTEGER NOT NULL,
    started_at   INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
    id        TEXT NOT NULL PRIMARY KEY,
    worker_id TEXT NOT NULL REFERENCES workers (id),
    job_ids   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_worker_id ON claims (worker_id);

CREATE TABLE cancellations (
    job_id    TEXT NOT NULL PRIMARY KEY,
    worker_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX cancellations_worker_id ON cancellations (worker_id);

CREATE TABLE kinds (
    kind         TEXT    NOT NULL PRIMARY KEY,
    queue        TEXT    NOT NULL,
    max_attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    key         TEXT    NOT NULL PRIMARY KEY,
    fingerprint BLOB    NOT NULL,
    job_id      TEXT    NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires_at ON idempotency_keys (expires_at);

CREATE TABLE leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    holder     TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
