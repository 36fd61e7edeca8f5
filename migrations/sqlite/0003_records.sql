CREATE TABLE job_progress (
    job_id  TEXT    NOT NULL PRIMARY KEY,
    fence   INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    value   REAL    NOT NULL,
    message TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE job_logs (
    job_id  TEXT    NOT NULL,
    fence   INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    level   INTEGER NOT NULL,
    message TEXT    NOT NULL,
    fields  TEXT,
    PRIMARY KEY (job_id, fence, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_checkpoints (
    job_id TEXT    NOT NULL PRIMARY KEY,
    fence  INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    value  TEXT    NOT NULL
) STRICT;

CREATE TABLE expiring_results (
    job_id     TEXT    NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX expiring_results_expires_at ON expiring_results (expires_at);
