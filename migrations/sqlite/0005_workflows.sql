CREATE TABLE workflows (
    id         TEXT    NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workflow_jobs (
    job_id       TEXT    NOT NULL PRIMARY KEY,
    workflow_id  TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    open_parents INTEGER NOT NULL,
    added_by     TEXT,
    UNIQUE (workflow_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE dependencies (
    parent_id TEXT    NOT NULL,
    child_id  TEXT    NOT NULL,
    needs     INTEGER NOT NULL,
    resolved  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (parent_id, child_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependencies_child_id ON dependencies (child_id);

ALTER TABLE jobs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
