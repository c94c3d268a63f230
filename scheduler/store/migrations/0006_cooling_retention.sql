-- GPUs whose power limit an agent has lowered because they were too hot.
CREATE TABLE coolings (
    node        TEXT    NOT NULL,
    gpu         INTEGER NOT NULL,
    limit_watts DOUBLE PRECISION NOT NULL,
    usual_watts DOUBLE PRECISION NOT NULL,
    celsius     DOUBLE PRECISION NOT NULL,
    since       DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (node, gpu)
);

-- For the jobs that are forgotten: what refers to them is found by them.
CREATE INDEX idempotency_by_job ON idempotency (job);
