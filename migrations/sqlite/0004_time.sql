CREATE TABLE timers (
    job_id   TEXT    NOT NULL,
    deadline INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (job_id, deadline)
) STRICT, WITHOUT ROWID;
CREATE INDEX timers_at ON timers (at);

CREATE TABLE schedules (
    name       TEXT    NOT NULL PRIMARY KEY,
    definition TEXT    NOT NULL,
    enabled    INTEGER NOT NULL DEFAULT 1,
    next_at    INTEGER,
    last_at    INTEGER
) STRICT, WITHOUT ROWID;

-- Keys in hexadecimal.
CREATE TABLE unique_keys (
    key      TEXT    NOT NULL PRIMARY KEY,
    job_id   TEXT    NOT NULL,
    until    INTEGER,
    check_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unique_keys_check_at ON unique_keys (check_at);
