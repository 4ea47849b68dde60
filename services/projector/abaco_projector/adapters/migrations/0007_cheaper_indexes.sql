-- Two indexes of answers about the past that cost less with each event (docs/adr/0063).

-- The events of an execution or a worker, by the name that their ids begin with. A hash is enough
-- for it, and costs half. Events of actors and hosts are left out: they are never looked for by
-- name, and all events of one actor would have the same hash.
DROP INDEX events_by_id;
CREATE INDEX events_by_name ON events USING hash (split_part(id, '.', 1))
    WHERE type NOT IN (
        'actor.registered', 'actor.updated', 'actor.deleted', 'actor.state_set',
        'actor.subscribed', 'actor.unsubscribed', 'inbox.purged', 'host.joined', 'host.lost'
    );

-- The worker in the body of an assignment, without a regular expression, which took most of the
-- time. No text in the body can be taken for it: quotes in a JSON string are escaped.
DROP INDEX assignments_of_worker;
CREATE OR REPLACE FUNCTION worker_named_in(body json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT split_part(split_part(body::text, '"worker_id":"', 2), '"', 1)
$$;
CREATE INDEX assignments_of_worker ON events (tenant, worker_named_in(data), seq)
    WHERE type = 'execution.assigned';
