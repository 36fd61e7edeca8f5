-- Which system this is, in a number that nobody can guess: systems that share a server, such as a Redis, keep apart there by it.

ALTER TABLE revision ADD COLUMN system TEXT NOT NULL DEFAULT '';
UPDATE revision SET system = lower(hex(randomblob(16)));
