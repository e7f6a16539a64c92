-- How long a job's results are kept, where its submission says so; in milliseconds.
ALTER TABLE jobs ADD COLUMN keep_ms BIGINT;
