-- Whether a cordon takes away what runs there, too.
ALTER TABLE cordons ADD COLUMN evict INTEGER NOT NULL DEFAULT 0;

-- Counted once, so that the circuit breaker sums numbers. Each GPU is described by one "gpu" key.
ALTER TABLE nodes ADD COLUMN gpu_count INTEGER NOT NULL DEFAULT 0;
UPDATE nodes SET gpu_count = (length(gpus) - length(replace(gpus, '"gpu"', ''))) / 5;

-- What a person put back into service against the automation: the sources that hold it no more until they are over.
CREATE TABLE overrules (
    node   TEXT    NOT NULL,
    gpu    INTEGER NOT NULL,
    source TEXT    NOT NULL,
    since  DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (node, gpu, source)
);

-- On the way back: the canary job that runs, or when the next one is due.
CREATE TABLE probations (
    node    TEXT    NOT NULL,
    gpu     INTEGER NOT NULL,
    strikes INTEGER NOT NULL,
    canary  TEXT,
    due     DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (node, gpu)
);

-- How a node has served, over all its time.
CREATE TABLE reliability (
    node                    TEXT    PRIMARY KEY,
    attempts                INTEGER NOT NULL DEFAULT 0,
    infrastructure_failures INTEGER NOT NULL DEFAULT 0,
    repairs                 INTEGER NOT NULL DEFAULT 0
);

CREATE INDEX attempts_by_finish ON attempts (finished_at);
