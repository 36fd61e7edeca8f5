-- Keys of the HTTP API. Revoked ones stay, so that an operator sees what there was.
CREATE TABLE {schema}.api_keys (
    id           text        NOT NULL PRIMARY KEY,
    name         text        NOT NULL,
    -- SHA-256 of the secret, and of the one before it, which is good until then.
    hash         bytea       NOT NULL,
    old_hash     bytea,
    old_until    timestamptz,
    -- Names, with a space between them.
    scopes       text        NOT NULL,
    tenant       text,
    created_at   timestamptz NOT NULL DEFAULT {now},
    expires_at   timestamptz,
    revoked_at   timestamptz,
    -- Within a minute.
    last_used_at timestamptz
);

-- The tenant of all the jobs that a workflow was accepted with.
ALTER TABLE {schema}.workflows ADD COLUMN tenant text;
