-- What a key, user, tenant or partner has used in the last minute, where several servers count together: steps of the rolling window as text.
CREATE TABLE rate_counts (
    subject TEXT NOT NULL PRIMARY KEY,
    counts TEXT NOT NULL,
    updated_at BIGINT NOT NULL
);
