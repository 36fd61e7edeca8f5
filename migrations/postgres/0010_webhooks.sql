-- Who is told over HTTP that jobs are over.
CREATE TABLE {schema}.webhooks (
    id         uuid        NOT NULL PRIMARY KEY,
    -- Null: hears of everyone's jobs.
    tenant     text,
    url        text        NOT NULL,
    -- What it hears of; empty is all.
    events     text[]      NOT NULL,
    kinds      text[]      NOT NULL,
    queues     text[]      NOT NULL,
    enabled    boolean     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT {now},
    -- JSON, encrypted where the settings have a key. The old one signs as well until then.
    secret     text        NOT NULL,
    old_secret text,
    old_until  timestamptz
);

-- The log. The id is that of the job which makes the delivery, and so ordered by time.
CREATE TABLE {schema}.webhook_deliveries (
    id           uuid        NOT NULL PRIMARY KEY,
    webhook_id   uuid        NOT NULL,
    event        text        NOT NULL,
    -- Null: a test.
    job_id       uuid,
    -- When that job was over: one delivery for each end, however often it is noted.
    at           timestamptz NOT NULL,
    -- What the newest attempt came to.
    attempt      integer,
    status       integer,
    error        text,
    attempted_at timestamptz,
    UNIQUE (webhook_id, job_id, at)
);
CREATE INDEX webhook_deliveries_webhook_id ON {schema}.webhook_deliveries (webhook_id, id);
