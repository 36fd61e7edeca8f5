-- How often jobs that were over have been changed, which only operators do: what is kept of such jobs in memory holds
-- while this stays.

CREATE TABLE {schema}.revision (
    only_row boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    number   bigint  NOT NULL
);
INSERT INTO {schema}.revision (number) VALUES (0);
