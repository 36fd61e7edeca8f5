-- Jobs that wait for each other. All writes to these tables, once they are made, are under the lock of their workflow's row.
CREATE TABLE {schema}.workflows (
    id         uuid        NOT NULL PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT {now}
);

CREATE TABLE {schema}.workflow_jobs (
    job_id       uuid    NOT NULL PRIMARY KEY,
    workflow_id  uuid    NOT NULL,
    name         text    NOT NULL,
    -- How many parents it still waits for. Not a column of jobs, whose index-free updates it would crowd.
    open_parents integer NOT NULL,
    -- The job whose handler added it.
    added_by     uuid,
    UNIQUE (workflow_id, name)
) WITH (fillfactor = 70);

-- Who waits for whom.
CREATE TABLE {schema}.dependencies (
    parent_id uuid     NOT NULL,
    child_id  uuid     NOT NULL,
    -- 0: that the parent succeeds; 1: that it is over.
    needs     smallint NOT NULL,
    -- The parent's end has been counted.
    resolved  boolean  NOT NULL DEFAULT false,
    PRIMARY KEY (parent_id, child_id)
) WITH (fillfactor = 70);
CREATE INDEX dependencies_child_id ON {schema}.dependencies (child_id);

-- It waits for parents.
ALTER TABLE {schema}.jobs ADD COLUMN held boolean NOT NULL DEFAULT false;
