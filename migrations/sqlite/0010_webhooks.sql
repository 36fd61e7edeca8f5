CREATE TABLE webhooks (
    id         TEXT    NOT NULL PRIMARY KEY,
    tenant     TEXT,
    url        TEXT    NOT NULL,
    -- JSON
    events     TEXT    NOT NULL,
    kinds      TEXT    NOT NULL,
    queues     TEXT    NOT NULL,
    enabled    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    secret     TEXT    NOT NULL,
    old_secret TEXT,
    old_until  INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE webhook_deliveries (
    id           TEXT    NOT NULL PRIMARY KEY,
    webhook_id   TEXT    NOT NULL,
    event        TEXT    NOT NULL,
    job_id       TEXT,
    at           INTEGER NOT NULL,
    attempt      INTEGER,
    status       INTEGER,
    error        TEXT,
    attempted_at INTEGER,
    UNIQUE (webhook_id, job_id, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_webhook_id ON webhook_deliveries (webhook_id, id);
