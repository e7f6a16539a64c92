-- Files in chunks of at most 256 KiB. Of an uploaded file, chunk SEQ begins at byte SEQ * 262144 and PART is 0; of a job's result, SEQ is the
-- segment and PART counts what was written of it, so that segments may be finished in any order and the file is in the input's.
CREATE TABLE files (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    ready BIGINT NOT NULL
);

CREATE INDEX files_owner ON files (tenant, user_id, id);

CREATE TABLE file_chunks (
    file_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    part BIGINT NOT NULL,
    data BYTES NOT NULL,
    PRIMARY KEY (file_id, seq, part)
);

-- A batch job. Times are Unix milliseconds. What is paid attention to while it runs is STATUS; VOID counts lines that were given up.
CREATE TABLE jobs (
    id TEXT NOT NULL PRIMARY KEY,
    dialect TEXT NOT NULL,
    key_id TEXT NOT NULL,
    key_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    models TEXT,
    client BIGINT NOT NULL,
    weight BIGINT NOT NULL,
    endpoint TEXT NOT NULL,
    completion_window TEXT NOT NULL,
    metadata TEXT,
    input_file_id TEXT NOT NULL,
    output_file_id TEXT NOT NULL,
    error_file_id TEXT NOT NULL,
    output_bytes BIGINT NOT NULL,
    error_bytes BIGINT NOT NULL,
    status TEXT NOT NULL,
    errors TEXT,
    total BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    void BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    in_progress_at BIGINT,
    finalizing_at BIGINT,
    cancelling_at BIGINT,
    ended_at BIGINT
);

CREATE INDEX jobs_owner ON jobs (tenant, user_id, id);
CREATE INDEX jobs_status ON jobs (status, expires_at);

-- A run of lines of a job's input, done by one server at a time: whoever holds the lease. What is written down of it stays; whoever takes it
-- over goes on behind that.
CREATE TABLE segments (
    job_id TEXT NOT NULL,
    seq BIGINT NOT NULL,
    first_line BIGINT NOT NULL,
    start_byte BIGINT NOT NULL,
    end_byte BIGINT NOT NULL,
    next_line BIGINT NOT NULL,
    next_byte BIGINT NOT NULL,
    part BIGINT NOT NULL,
    done BIGINT NOT NULL,
    owner TEXT NOT NULL,
    lease_until BIGINT NOT NULL,
    PRIMARY KEY (job_id, seq)
);

CREATE INDEX segments_open ON segments (done, lease_until);
