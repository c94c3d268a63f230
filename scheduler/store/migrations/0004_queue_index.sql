-- With the state in it, since only so does SQLite take it for the way from one shape to the next.
DROP INDEX jobs_waiting;
CREATE INDEX jobs_waiting ON jobs (state, gpus, nodes, rank) WHERE state = 'queued';
