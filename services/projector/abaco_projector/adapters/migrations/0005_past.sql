-- What answers about the past need: from which event to which a worker was live, which events
-- started and ended an execution, and the events that name one execution or one worker.

ALTER TABLE workers
    ADD COLUMN requested_sequence bigint NOT NULL DEFAULT 0,
    ADD COLUMN ended_sequence     bigint NOT NULL DEFAULT 0;   -- 0 while it is live

ALTER TABLE executions
    ADD COLUMN started_sequence bigint NOT NULL DEFAULT 0,     -- of the latest attempt
    ADD COLUMN ended_sequence   bigint NOT NULL DEFAULT 0;     -- 0 until it has ended

-- The worker in the body of an event. A regular expression, because the JSON operators fail on
-- texts with an escaped NUL.
CREATE OR REPLACE FUNCTION worker_named_in(body json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substring(body::text FROM '"worker_id":"([A-Za-z0-9_-]+)"')
$$;

-- Not of the types of which every execution has one, and of which none is looked for by type.
CREATE INDEX events_of_actor_by_type ON events (tenant, (actor_id || '.' || type), seq)
    WHERE type NOT IN ('message.received', 'execution.assigned', 'execution.finished');
CREATE INDEX events_by_id ON events (tenant, id COLLATE "C");
CREATE INDEX assignments_of_worker ON events (tenant, worker_named_in(data), seq)
    WHERE type = 'execution.assigned';
CREATE INDEX messages_by_cause ON events (tenant, causation_id) WHERE type = 'message.received';

UPDATE workers w
SET requested_sequence = e.seq
FROM events e
WHERE e.tenant = w.tenant AND e.id = w.worker_id || '.requested';

UPDATE workers w
SET ended_sequence = e.seq
FROM events e
WHERE w.status IN ('STOPPED', 'FAILED', 'LOST')
    AND e.tenant = w.tenant
    AND e.id = w.worker_id || '.' || lower(w.status);

UPDATE executions x
SET started_sequence = e.seq
FROM events e
WHERE x.container_id IS NOT NULL
    AND e.tenant = x.tenant
    AND e.id = x.execution_id || '.started.' || x.attempt;

-- An end has the time of its event, and is a purge, a deletion, or an event of the execution.
UPDATE executions x
SET ended_sequence = coalesce(
    (
        SELECT min(e.seq)
        FROM events e
        WHERE e.tenant = x.tenant
            AND e.id = x.execution_id || '.finished.' || x.attempt
            AND x.final_state IS NOT NULL
    ),
    (
        SELECT min(e.seq)
        FROM events e
        WHERE e.tenant = x.tenant
            AND e.actor_id = x.actor_id
            AND e.time = x.recorded_at
            AND (
                e.type IN ('inbox.purged', 'actor.deleted')
                OR starts_with(e.id, x.execution_id || '.')
            )
    ),
    0
)
WHERE x.status IN ('COMPLETE', 'ERROR', 'HALTED', 'PURGED');

-- None of these has a column that changes with every run, so that most updates stay in their page.
DROP INDEX workers_of_actor;
CREATE INDEX workers_live ON workers (tenant, actor_id) WHERE ended_sequence = 0;
CREATE INDEX workers_live_at ON workers
    USING gist (int8range(requested_sequence, nullif(ended_sequence, 0)));
CREATE INDEX reruns_of_execution ON executions (tenant, actor_id, rerun_of)
    WHERE rerun_of IS NOT NULL;
