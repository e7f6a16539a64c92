-- What each key used of each model on each day (UTC).
CREATE TABLE usage (
    day TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    key_name TEXT NOT NULL,
    user_id TEXT NOT NULL,
    tenant TEXT NOT NULL,
    requests BIGINT NOT NULL,
    texts BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    busy_ms BIGINT NOT NULL,
    PRIMARY KEY (day, key_id, model)
);

CREATE INDEX usage_tenant ON usage (tenant, day);
