-- How often jobs that were over have been changed, which only operators do: what is kept of such jobs in memory holds
-- while this stays.

CREATE TABLE revision (
    only_row INTEGER NOT NULL PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    number   INTEGER NOT NULL
) STRICT;
INSERT INTO revision (number) VALUES (0);
