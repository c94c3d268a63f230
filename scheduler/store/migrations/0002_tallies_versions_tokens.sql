-- How many jobs are in each state, kept with every transition: nobody counts rows.
INSERT INTO counters (name, value)
SELECT 'jobs.' || states.name, (SELECT count(*) FROM jobs WHERE jobs.state = states.name)
FROM (SELECT 'queued' AS name UNION ALL SELECT 'assigned' UNION ALL SELECT 'running' UNION ALL SELECT 'succeeded'
      UNION ALL SELECT 'failed' UNION ALL SELECT 'cancelled' UNION ALL SELECT 'timed_out') AS states;

-- What an ETag says of a node: it changes with every drain, cordon, registration, loss and return.
ALTER TABLE nodes ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Only what a token hashes to is kept.
CREATE TABLE tokens (
    name       TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    scopes     TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION
);
