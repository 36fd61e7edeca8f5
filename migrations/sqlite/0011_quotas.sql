CREATE TABLE quotas (
    tenant         TEXT    NOT NULL PRIMARY KEY,
    max_unfinished INTEGER NOT NULL,
    used           INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE quota_places (
    job_id TEXT NOT NULL PRIMARY KEY,
    tenant TEXT NOT NULL
) STRICT, WITHOUT ROWID;
