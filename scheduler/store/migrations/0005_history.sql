-- What ran on a node, newest first.
CREATE INDEX parts_by_node ON parts (node, fence);

-- What happened to a place. Most events are of jobs, which nobody looks up by subject.
CREATE INDEX events_of_places ON events (subject, sequence) WHERE type < 'job.' OR type > 'job/';
