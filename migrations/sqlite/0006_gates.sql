ALTER TABLE jobs ADD COLUMN gating TEXT;

ALTER TABLE queues ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queues ADD COLUMN max_running INTEGER;
ALTER TABLE queues ADD COLUMN rate INTEGER;
ALTER TABLE queues ADD COLUMN per_us INTEGER;
ALTER TABLE queues ADD COLUMN burst INTEGER;
ALTER TABLE queues ADD COLUMN fair_window INTEGER;
ALTER TABLE queues ADD COLUMN limited INTEGER GENERATED ALWAYS AS
    (max_running IS NOT NULL OR rate IS NOT NULL OR fair_window IS NOT NULL) VIRTUAL;

CREATE TABLE limits (
    name        TEXT NOT NULL PRIMARY KEY,
    max_running INTEGER,
    rate        INTEGER,
    per_us      INTEGER,
    burst       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE gates (
    key     TEXT    NOT NULL PRIMARY KEY,
    taken   INTEGER NOT NULL,
    full_at INTEGER NOT NULL,
    next_at INTEGER,
    rank    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX gates_next_at ON gates (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE slots (
    job_id TEXT NOT NULL,
    gate   TEXT NOT NULL,
    PRIMARY KEY (job_id, gate)
) STRICT, WITHOUT ROWID;

CREATE TABLE lines (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    gates    TEXT    NOT NULL UNIQUE,
    waits_at TEXT    NOT NULL,
    urgency  INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    seq      INTEGER NOT NULL
) STRICT;
CREATE INDEX lines_waits_at ON lines (waits_at, urgency, rank, seq);

CREATE TABLE gated (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id   TEXT    NOT NULL UNIQUE,
    urgency  INTEGER NOT NULL,
    rank     INTEGER NOT NULL,
    line     INTEGER,
    admitted INTEGER NOT NULL
) STRICT;
CREATE INDEX gated_line ON gated (line, urgency, rank, seq) WHERE line IS NOT NULL;

CREATE TABLE shares (
    queue  TEXT    NOT NULL,
    tenant TEXT    NOT NULL,
    rank   INTEGER NOT NULL,
    PRIMARY KEY (queue, tenant)
) STRICT, WITHOUT ROWID;
