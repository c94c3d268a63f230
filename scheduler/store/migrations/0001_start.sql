-- Statements here and in queries.sql are meant for SQLite and PostgreSQL alike.

-- Sequences are rows, so that numbers are handed out in the order of commits, without gaps.
CREATE TABLE counters (
    name  TEXT   PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('event', 0), ('job', 0), ('fence', 0);

CREATE TABLE jobs (
    id               TEXT    PRIMARY KEY,
    number           BIGINT  NOT NULL UNIQUE,
    name             TEXT    NOT NULL,
    type             TEXT    NOT NULL,
    gpus             INTEGER NOT NULL,
    nodes            INTEGER NOT NULL,
    priority         INTEGER NOT NULL,
    timeout_seconds  DOUBLE PRECISION NOT NULL,
    retries          INTEGER NOT NULL,
    retries_used     INTEGER NOT NULL DEFAULT 0,
    duration_seconds DOUBLE PRECISION,
    parameters       TEXT    NOT NULL,
    origin           TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    rank             DOUBLE PRECISION NOT NULL,
    avoid            TEXT    NOT NULL DEFAULT '[]',
    placement        TEXT    NOT NULL DEFAULT '[]',
    reason           TEXT,
    result           TEXT,
    submitted_at     DOUBLE PRECISION NOT NULL,
    started_at       DOUBLE PRECISION,
    finished_at      DOUBLE PRECISION
);
CREATE INDEX jobs_waiting ON jobs (gpus, nodes, rank) WHERE state = 'queued';
CREATE INDEX jobs_by_state ON jobs (state, number);
CREATE INDEX jobs_by_finish ON jobs (finished_at);

CREATE TABLE attempts (
    fence       BIGINT PRIMARY KEY,
    job         TEXT   NOT NULL REFERENCES jobs (id),
    state       TEXT   NOT NULL,
    placement   TEXT   NOT NULL,
    decision    TEXT   NOT NULL,
    reason      TEXT,
    placed_at   DOUBLE PRECISION NOT NULL,
    started_at  DOUBLE PRECISION,
    finished_at DOUBLE PRECISION
);
CREATE INDEX attempts_by_job ON attempts (job, fence);
-- At most one current attempt per job.
CREATE UNIQUE INDEX attempts_live ON attempts (job) WHERE state IN ('assigned', 'running');

-- One node's share of an attempt.
CREATE TABLE parts (
    fence BIGINT NOT NULL REFERENCES attempts (fence),
    node  TEXT   NOT NULL,
    gpus  TEXT   NOT NULL,
    state TEXT   NOT NULL,
    PRIMARY KEY (fence, node)
);
CREATE INDEX parts_live ON parts (node) WHERE state <> 'done';

-- Who has a GPU now. The key is what keeps two jobs off one GPU.
CREATE TABLE holdings (
    node  TEXT    NOT NULL,
    gpu   INTEGER NOT NULL,
    fence BIGINT  NOT NULL,
    job   TEXT    NOT NULL,
    PRIMARY KEY (node, gpu)
);

CREATE TABLE nodes (
    name          TEXT    PRIMARY KEY,
    rack          TEXT,
    kind          TEXT    NOT NULL,
    gpus          TEXT    NOT NULL,
    reachable     INTEGER NOT NULL,
    reason        TEXT,
    drain_reason  TEXT,
    drain_owner   TEXT,
    drain_since   DOUBLE PRECISION,
    registered_at DOUBLE PRECISION NOT NULL
);

-- gpu -1 is the whole node.
CREATE TABLE cordons (
    node       TEXT    NOT NULL,
    gpu        INTEGER NOT NULL,
    source     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    since      DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,
    PRIMARY KEY (node, gpu, source)
);

CREATE TABLE alerts (
    fingerprint   TEXT    NOT NULL,
    starts_at     TEXT    NOT NULL,
    status        TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    severity      TEXT,
    node          TEXT,
    gpu           INTEGER,
    labels        TEXT    NOT NULL,
    annotations   TEXT    NOT NULL,
    effect        TEXT    NOT NULL,
    received_at   DOUBLE PRECISION NOT NULL,
    notifications INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, starts_at, status)
);
CREATE INDEX alerts_by_receipt ON alerts (received_at);

CREATE TABLE events (
    sequence BIGINT PRIMARY KEY,
    time     DOUBLE PRECISION NOT NULL,
    type     TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    data     TEXT   NOT NULL
);

CREATE TABLE idempotency (
    key         TEXT   PRIMARY KEY,
    fingerprint TEXT   NOT NULL,
    job         TEXT   NOT NULL REFERENCES jobs (id),
    created_at  DOUBLE PRECISION NOT NULL
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
