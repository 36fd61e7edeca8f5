CREATE TABLE api_keys (
    id           TEXT    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,
    old_hash     BLOB,
    old_until    INTEGER,
    scopes       TEXT    NOT NULL,
    tenant       TEXT,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT, WITHOUT ROWID;

ALTER TABLE workflows ADD COLUMN tenant TEXT;
