-- How many unfinished jobs a tenant may have. Tenants without a quota have no rows here, nor have their jobs.
CREATE TABLE {schema}.quotas (
    tenant         text    NOT NULL PRIMARY KEY,
    max_unfinished integer NOT NULL,
    -- How many rows of quota_places it has.
    used           bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);

-- The jobs that count for a quota, until their end has been followed up.
CREATE TABLE {schema}.quota_places (
    job_id uuid NOT NULL PRIMARY KEY,
    tenant text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0, vacuum_truncate = off);
