-- What workers say of the payloads they read.
ALTER TABLE {schema}.kinds ADD COLUMN version smallint NOT NULL DEFAULT 1;

-- JSON Schemas, of each version that a worker has ever handled.
CREATE TABLE {schema}.kind_schemas (
    kind    text     NOT NULL,
    version smallint NOT NULL,
    -- JSON, as the worker wrote it.
    schema  text     NOT NULL,
    PRIMARY KEY (kind, version)
);

-- JSON: the kinds it handles, each with its version.
ALTER TABLE {schema}.workers ADD COLUMN kinds text NOT NULL DEFAULT '[]';
