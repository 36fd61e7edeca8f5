-- Which system this is, in a number that nobody can guess: systems that share a server, such as a Redis, keep apart there by it.

ALTER TABLE {schema}.revision ADD COLUMN system uuid NOT NULL DEFAULT gen_random_uuid();
