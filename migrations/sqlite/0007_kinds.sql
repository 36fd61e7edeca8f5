ALTER TABLE kinds ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

CREATE TABLE kind_schemas (
    kind    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    schema  TEXT    NOT NULL,
    PRIMARY KEY (kind, version)
) STRICT, WITHOUT ROWID;

ALTER TABLE workers ADD COLUMN kinds TEXT NOT NULL DEFAULT '[]';
