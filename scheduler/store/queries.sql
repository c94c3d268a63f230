-- Every statement, by name. Parameters are :named.

-- name: lock_schema
-- Whoever comes second waits for the first to commit.
UPDATE schema_version SET version = version;

-- name: schema_version
SELECT max(version) AS version FROM schema_version;

-- name: add_schema_version
INSERT INTO schema_version (version) VALUES (:version);

-- name: hold_counter
-- Changes nothing, but keeps others from it until the commit.
UPDATE counters SET value = value WHERE name = :name RETURNING value;

-- name: set_counter
UPDATE counters SET value = :value WHERE name = :name;

-- name: read_counter
SELECT value FROM counters WHERE name = :name;

-- name: add_event
INSERT INTO events (sequence, time, type, subject, data) VALUES (:sequence, :time, :type, :subject, :data);

-- name: events_after
SELECT sequence, time, type, subject, data FROM events WHERE sequence > :after ORDER BY sequence LIMIT :limit;

-- name: events_of_place
-- The second condition is the one of the index.
SELECT sequence, time, type, subject, data FROM events
WHERE subject = :subject AND (type < 'job.' OR type > 'job/') ORDER BY sequence DESC LIMIT :limit;

-- name: oldest_event
SELECT min(sequence) AS sequence FROM events;

-- name: forget_old_events
-- Events are as old as their sequence says, so the oldest few are looked at, never all.
DELETE FROM events WHERE sequence < :below AND time < :before;

-- name: forget_events
DELETE FROM events WHERE sequence < :below;

-- name: add_job
INSERT INTO jobs (id, number, name, type, gpus, nodes, priority, timeout_seconds, retries, duration_seconds,
                  parameters, origin, state, rank, submitted_at)
VALUES (:id, :number, :name, :type, :gpus, :nodes, :priority, :timeout_seconds, :retries, :duration_seconds,
        :parameters, :origin, 'queued', :rank, :submitted_at);

-- name: job
SELECT * FROM jobs WHERE id = :id;

-- name: jobs_before
SELECT * FROM jobs WHERE number < :before ORDER BY number DESC LIMIT :limit;

-- name: jobs_in_state_before
SELECT * FROM jobs WHERE state = :state AND number < :before ORDER BY number DESC LIMIT :limit;

-- name: job_counts
SELECT name, value FROM counters WHERE name LIKE 'jobs.%';

-- name: oldest_waiting
SELECT submitted_at FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1;

-- name: finished_since
SELECT count(*) AS jobs FROM jobs WHERE finished_at >= :since;

-- name: running_shares
SELECT holdings.job, holdings.node, holdings.gpu
FROM holdings JOIN attempts ON attempts.fence = holdings.fence WHERE attempts.state = 'running';

-- name: move_job
-- The old state stands in the condition: a transition happens from where we saw the job, or not at all.
UPDATE jobs SET state = :new, reason = :reason, result = :result, placement = :placement, avoid = :avoid,
                retries_used = :retries_used, started_at = :started_at, finished_at = :finished_at
WHERE id = :id AND state = :old;

-- name: waiting_shapes
-- From each shape to the next one in the index, so that a long queue costs no more than a short one.
WITH RECURSIVE shapes (gpus, nodes) AS (
    SELECT gpus, nodes FROM jobs
    WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY state, gpus, nodes, rank LIMIT 1)
    UNION ALL
    SELECT jobs.gpus, jobs.nodes FROM shapes JOIN jobs ON jobs.id = coalesce(
        (SELECT wider.id FROM jobs AS wider
         WHERE wider.state = 'queued' AND wider.gpus = shapes.gpus AND wider.nodes > shapes.nodes
         ORDER BY wider.nodes, wider.rank LIMIT 1),
        (SELECT larger.id FROM jobs AS larger
         WHERE larger.state = 'queued' AND larger.gpus > shapes.gpus
         ORDER BY larger.gpus, larger.nodes, larger.rank LIMIT 1))
)
SELECT gpus, nodes FROM shapes;

-- name: waiting_of_shape
SELECT id, gpus, nodes, rank, avoid, submitted_at FROM jobs
WHERE state = 'queued' AND gpus = :gpus AND nodes = :nodes ORDER BY rank LIMIT :limit;

-- name: add_attempt
INSERT INTO attempts (fence, job, state, placement, decision, placed_at)
VALUES (:fence, :job, 'assigned', :placement, :decision, :placed_at);

-- name: attempts_of
SELECT * FROM attempts WHERE job = :job ORDER BY fence;

-- name: job_of_attempt
SELECT jobs.* FROM attempts JOIN jobs ON jobs.id = attempts.job WHERE attempts.fence = :fence;

-- name: live_attempt
SELECT * FROM attempts WHERE job = :job AND state IN ('assigned', 'running');

-- name: start_attempt
UPDATE attempts SET state = 'running', started_at = :now WHERE fence = :fence AND state = 'assigned';

-- name: started_before
SELECT fence FROM attempts WHERE job = :job AND fence < :fence AND started_at IS NOT NULL LIMIT 1;

-- name: end_attempt
UPDATE attempts SET state = :state, reason = :reason, finished_at = :now
WHERE fence = :fence AND state IN ('assigned', 'running');

-- name: succeed_attempt
-- One whose end is heard before its beginning began no earlier.
UPDATE attempts SET state = 'succeeded', reason = :reason, finished_at = :now,
                    started_at = coalesce(started_at, :now)
WHERE fence = :fence AND state IN ('assigned', 'running');

-- name: overdue_attempts
SELECT attempts.fence, attempts.job, attempts.state, jobs.timeout_seconds
FROM attempts JOIN jobs ON jobs.id = attempts.job
WHERE attempts.state IN ('assigned', 'running') AND (
    (attempts.state = 'running' AND attempts.started_at + jobs.timeout_seconds <= :now)
    OR (attempts.state = 'assigned' AND attempts.placed_at + :start_seconds <= :now));

-- name: add_part
INSERT INTO parts (fence, node, gpus, state) VALUES (:fence, :node, :gpus, 'assigned');

-- name: live_parts
SELECT parts.fence, parts.node, parts.gpus, parts.state, attempts.job
FROM parts JOIN attempts ON attempts.fence = parts.fence WHERE parts.node = :node AND parts.state <> 'done';

-- name: part
SELECT parts.fence, parts.node, parts.gpus, parts.state, attempts.job
FROM parts JOIN attempts ON attempts.fence = parts.fence WHERE parts.fence = :fence AND parts.node = :node;

-- name: reported
-- All that a report's taking hangs on.
SELECT jobs.*, parts.state AS part, nodes.drain_owner,
       (SELECT count(*) FROM parts AS others
        WHERE others.fence = parts.fence AND others.state <> 'done') AS unfinished,
       (SELECT count(*) FROM attempts AS earlier WHERE earlier.job = attempts.job
        AND earlier.fence < attempts.fence AND earlier.started_at IS NOT NULL) AS started_before
FROM parts JOIN attempts ON attempts.fence = parts.fence JOIN jobs ON jobs.id = attempts.job
JOIN nodes ON nodes.name = parts.node
WHERE parts.fence = :fence AND parts.node = :node;

-- name: parts_on
SELECT parts.gpus, attempts.job, attempts.state, attempts.reason, attempts.placed_at, attempts.started_at,
       attempts.finished_at, jobs.name, jobs.type, jobs.state AS job_state,
       (SELECT later.placement FROM attempts AS later
        WHERE later.job = attempts.job AND later.fence > attempts.fence ORDER BY later.fence LIMIT 1) AS next
FROM parts JOIN attempts ON attempts.fence = parts.fence JOIN jobs ON jobs.id = attempts.job
WHERE parts.node = :node ORDER BY parts.fence DESC LIMIT :limit;

-- name: unfinished_parts
SELECT node FROM parts WHERE fence = :fence AND state <> 'done';

-- name: move_part
UPDATE parts SET state = :state WHERE fence = :fence AND node = :node;

-- name: stop_parts
UPDATE parts SET state = 'stopping' WHERE fence = :fence AND state IN ('assigned', 'running');

-- name: hold_gpu
INSERT INTO holdings (node, gpu, fence, job) VALUES (:node, :gpu, :fence, :job);

-- name: release_gpus
DELETE FROM holdings WHERE fence = :fence AND node = :node;

-- name: holdings
SELECT node, gpu, job FROM holdings;

-- name: holdings_of
SELECT node, gpu, job FROM holdings WHERE node = :node;

-- name: held_gpus
-- Of each node 30 GPUs a row, the lowest in the lowest bit: a large fleet is read in a few milliseconds.
SELECT node, gpu / 30 AS word, sum(1 << gpu % 30) AS bits FROM holdings GROUP BY node, gpu / 30;

-- name: nodes
SELECT * FROM nodes ORDER BY name;

-- name: node
SELECT * FROM nodes WHERE name = :name;

-- name: put_node
INSERT INTO nodes (name, rack, kind, gpus, gpu_count, reachable, reason, registered_at)
VALUES (:name, :rack, :kind, :gpus, :gpu_count, 0, 'not heard yet', :now)
ON CONFLICT (name) DO UPDATE SET rack = excluded.rack, kind = excluded.kind, gpus = excluded.gpus,
                                 gpu_count = excluded.gpu_count, version = nodes.version + 1;

-- name: remove_node
DELETE FROM nodes WHERE name = :name;

-- name: set_reachable
UPDATE nodes SET reachable = :reachable, reason = :reason, version = version + 1 WHERE name = :name;

-- name: set_drain
UPDATE nodes SET drain_reason = :reason, drain_owner = :owner, drain_since = :since, version = version + 1
WHERE name = :name;

-- name: touch_node
UPDATE nodes SET version = version + 1 WHERE name = :name;

-- name: node_versions
SELECT name, version FROM nodes;

-- name: cordons
SELECT * FROM cordons;

-- name: cordons_of
SELECT * FROM cordons WHERE node = :node;

-- name: put_cordon
INSERT INTO cordons (node, gpu, source, reason, since, expires_at, evict)
VALUES (:node, :gpu, :source, :reason, :since, :expires_at, :evict)
ON CONFLICT (node, gpu, source) DO UPDATE SET reason = excluded.reason, expires_at = excluded.expires_at;

-- name: lift_cordon
DELETE FROM cordons WHERE node = :node AND gpu = :gpu AND source = :source RETURNING node;

-- name: lift_all_cordons
DELETE FROM cordons WHERE node = :node AND gpu = :gpu RETURNING source;

-- name: forget_cordons
DELETE FROM cordons WHERE node = :node;

-- name: expired_cordons
SELECT * FROM cordons WHERE expires_at <= :now;

-- name: alert
SELECT * FROM alerts WHERE fingerprint = :fingerprint AND starts_at = :starts_at AND status = :status;

-- name: add_alert
INSERT INTO alerts (fingerprint, starts_at, status, name, severity, node, gpu, labels, annotations, effect,
                    received_at, notifications)
VALUES (:fingerprint, :starts_at, :status, :name, :severity, :node, :gpu, :labels, :annotations, :effect,
        :received_at, 1);

-- name: repeat_alert
UPDATE alerts SET notifications = notifications + 1, received_at = :received_at, effect = :effect
WHERE fingerprint = :fingerprint AND starts_at = :starts_at AND status = :status;

-- name: recent_alerts
SELECT * FROM alerts ORDER BY received_at DESC LIMIT :limit;

-- name: remembered_answer
SELECT fingerprint, job FROM idempotency WHERE key = :key;

-- name: remember_answer
INSERT INTO idempotency (key, fingerprint, job, created_at) VALUES (:key, :fingerprint, :job, :now);

-- name: forget_answers
DELETE FROM idempotency WHERE created_at < :before;

-- name: setting
SELECT value FROM settings WHERE name = :name;

-- name: put_setting
INSERT INTO settings (name, value) VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: add_token
INSERT INTO tokens (name, hash, scopes, created_at, expires_at)
VALUES (:name, :hash, :scopes, :now, :expires_at) ON CONFLICT (name) DO NOTHING;

-- name: tokens
SELECT name, hash, scopes, created_at, expires_at FROM tokens ORDER BY name;

-- name: remove_token
DELETE FROM tokens WHERE name = :name;

-- name: live_holdings_of
-- A part that is being stopped already needs no second word.
SELECT DISTINCT holdings.fence FROM holdings
JOIN parts ON parts.fence = holdings.fence AND parts.node = holdings.node
WHERE holdings.node = :node AND (holdings.gpu = :gpu OR :gpu < 0) AND parts.state IN ('assigned', 'running');

-- name: rack_sizes
SELECT coalesce(rack, '') AS rack, sum(gpu_count) AS gpus FROM nodes GROUP BY coalesce(rack, '');

-- name: automatic_cordons
SELECT cordons.node, cordons.gpu, coalesce(nodes.rack, '') AS rack, nodes.gpu_count
FROM cordons JOIN nodes ON nodes.name = cordons.node WHERE cordons.source <> 'person'
GROUP BY cordons.node, cordons.gpu, nodes.rack, nodes.gpu_count;

-- name: overrule
INSERT INTO overrules (node, gpu, source, since) VALUES (:node, :gpu, :source, :now)
ON CONFLICT (node, gpu, source) DO NOTHING;

-- name: overruled
SELECT node, gpu, source FROM overrules;

-- name: overruled_at
SELECT source FROM overrules WHERE node = :node AND gpu = :gpu;

-- name: forget_overrule
DELETE FROM overrules WHERE node = :node AND gpu = :gpu AND source = :source;

-- name: forget_old_overrules
DELETE FROM overrules WHERE source = :source AND since < :before;

-- name: probations
SELECT node, gpu, strikes, canary, due FROM probations ORDER BY node, gpu;

-- name: probation
SELECT node, gpu, strikes, canary, due FROM probations WHERE node = :node AND gpu = :gpu;

-- name: put_probation
INSERT INTO probations (node, gpu, strikes, canary, due) VALUES (:node, :gpu, :strikes, :canary, :due)
ON CONFLICT (node, gpu) DO UPDATE SET strikes = excluded.strikes, canary = excluded.canary, due = excluded.due;

-- name: forget_probation
DELETE FROM probations WHERE node = :node AND gpu = :gpu;

-- name: forget_probations
DELETE FROM probations WHERE node = :node;

-- name: forget_overrules
DELETE FROM overrules WHERE node = :node;

-- name: count_reliability
INSERT INTO reliability (node, attempts, infrastructure_failures, repairs)
VALUES (:node, :attempts, :infrastructure_failures, :repairs)
ON CONFLICT (node) DO UPDATE SET
    attempts = reliability.attempts + excluded.attempts,
    infrastructure_failures = reliability.infrastructure_failures + excluded.infrastructure_failures,
    repairs = reliability.repairs + excluded.repairs;

-- name: reliability
SELECT node, attempts, infrastructure_failures, repairs FROM reliability;

-- name: failed_nodes
SELECT node, attempts, infrastructure_failures FROM reliability WHERE infrastructure_failures > 0;

-- name: recent_ends
SELECT parts.node, count(*) AS ended FROM attempts JOIN parts ON parts.fence = attempts.fence
WHERE attempts.finished_at >= :since GROUP BY parts.node;

-- name: recent_fast_failures
SELECT parts.node, count(DISTINCT attempts.job) AS jobs FROM attempts JOIN parts ON parts.fence = attempts.fence
WHERE attempts.finished_at >= :since AND attempts.state = 'failed'
  AND attempts.finished_at - coalesce(attempts.started_at, attempts.placed_at) <= :fast_seconds
GROUP BY parts.node;

-- name: coolings
SELECT node, gpu, limit_watts, usual_watts, celsius, since FROM coolings;

-- name: put_cooling
INSERT INTO coolings (node, gpu, limit_watts, usual_watts, celsius, since)
VALUES (:node, :gpu, :limit_watts, :usual_watts, :celsius, :since)
ON CONFLICT (node, gpu) DO UPDATE SET
    limit_watts = excluded.limit_watts, usual_watts = excluded.usual_watts, celsius = excluded.celsius;

-- name: forget_cooling
DELETE FROM coolings WHERE node = :node AND gpu = :gpu;

-- name: forget_coolings
DELETE FROM coolings WHERE node = :node;

-- name: ended_jobs
SELECT id, state FROM jobs
WHERE finished_at < :before AND id NOT IN (SELECT job FROM holdings)
  AND id NOT IN (SELECT canary FROM probations WHERE canary IS NOT NULL)
ORDER BY finished_at LIMIT :limit;

-- name: forget_parts_of
DELETE FROM parts WHERE fence IN (SELECT fence FROM attempts WHERE job = :job);

-- name: forget_attempts_of
DELETE FROM attempts WHERE job = :job;

-- name: forget_answers_of
DELETE FROM idempotency WHERE job = :job;

-- name: forget_job
DELETE FROM jobs WHERE id = :job;

-- name: forget_alerts
DELETE FROM alerts WHERE received_at < :before;
