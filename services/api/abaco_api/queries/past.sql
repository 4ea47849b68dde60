-- What answers about the past are made of. $1 is the tenant; seq is the sequence in the log.
--
-- Where the latest or the earliest of some events is wanted, pairs are compared instead of their
-- columns. Only one index has the order of these pairs, so the planner has no other choice. With
-- columns it may read an actor's history backwards, in the hope to find a match soon. OFFSET 0 has
-- the events of each name looked up by themselves. The types that are left out are not in the index
-- events_of_actor_by_type.

-- name: events_before
-- The latest events of some types of one actor, the latest first.
SELECT e.*
  FROM unnest($3::text[]) AS t (type)
 CROSS JOIN LATERAL (
       SELECT seq, time, tenant, id, causation_id, correlation_id, hops, principal, subject, data, body
         FROM events
        WHERE tenant = $1
          AND (actor_id || '.' || type, seq) > ($2 || '.' || t.type, $4)
          AND (actor_id || '.' || type, seq) < ($2 || '.' || t.type, $5)
          AND type NOT IN ('message.received', 'execution.assigned', 'execution.finished')
        ORDER BY actor_id || '.' || type DESC, seq DESC
        LIMIT $6) AS e
 ORDER BY seq DESC
 LIMIT $6;

-- name: events_after
-- The earliest events of some types of one actor.
SELECT e.*
  FROM unnest($3::text[]) AS t (type)
 CROSS JOIN LATERAL (
       SELECT seq, time, tenant, id, causation_id, correlation_id, hops, principal, subject, data, body
         FROM events
        WHERE tenant = $1
          AND (actor_id || '.' || type, seq) > ($2 || '.' || t.type, $4)
          AND (actor_id || '.' || type, seq) < ($2 || '.' || t.type, $5)
          AND type NOT IN ('message.received', 'execution.assigned', 'execution.finished')
        ORDER BY actor_id || '.' || type, seq
        LIMIT $6) AS e
 ORDER BY seq
 LIMIT $6;

-- name: events_named
-- The events whose ids begin with one of some names and a full stop: of executions, of workers. The
-- types that are left out are not in the index events_by_name.
SELECT e.*
  FROM unnest($2::text[]) AS n (name)
 CROSS JOIN LATERAL (
       SELECT seq, time, tenant, id, causation_id, correlation_id, hops, principal, subject, data, body
         FROM events
        WHERE tenant = $1
          AND split_part(id, '.', 1) = n.name
          AND type NOT IN (
              'actor.registered', 'actor.updated', 'actor.deleted', 'actor.state_set',
              'actor.subscribed', 'actor.unsubscribed', 'inbox.purged', 'host.joined', 'host.lost')
       OFFSET 0) AS e
 WHERE seq < $3
 ORDER BY seq;

-- name: assignments
-- The latest assignments to each of some workers.
SELECT w.worker_id, e.*
  FROM unnest($2::text[]) AS w (worker_id)
 CROSS JOIN LATERAL (
       SELECT seq, time, tenant, id, causation_id, correlation_id, hops, principal, subject, data, body
         FROM events
        WHERE tenant = $1 AND type = 'execution.assigned'
          AND (worker_named_in(data), seq) > (w.worker_id, 0)
          AND (worker_named_in(data), seq) < (w.worker_id, $3)
        ORDER BY worker_named_in(data) DESC, seq DESC
        LIMIT $4) AS e
 ORDER BY seq;

-- name: is_longer
-- Whether an actor has more than so many events up to a sequence.
SELECT count(*) > $4 AS longer
  FROM (SELECT FROM events WHERE tenant = $1 AND actor_id = $2 AND seq <= $3 LIMIT $4 + 1) AS e;

-- name: live_workers
-- The workers of an actor that were live at a sequence.
SELECT worker_id
  FROM workers
 WHERE tenant = $1 AND actor_id = $2
   AND int8range(requested_sequence, nullif(ended_sequence, 0)) @> $3::bigint
 ORDER BY requested_sequence;

-- name: totals_at
-- The totals of an actor at a sequence, and how many of its executions waited. Left out are the
-- executions whose rows do not determine it: those with a second attempt, or with one that failed, which
-- had not ended for good. They come by name.
SELECT count(*) FILTER (WHERE determined) AS total_executions,
       count(*) FILTER (WHERE ended) AS total_ended,
       count(*) FILTER (WHERE ended AND status = 'COMPLETE') AS total_complete,
       count(*) FILTER (WHERE ended AND status = 'ERROR') AS total_error,
       count(*) FILTER (WHERE ended AND status = 'HALTED') AS total_halted,
       count(*) FILTER (WHERE ended AND status = 'PURGED') AS total_purged,
       coalesce(sum(cpu_ns) FILTER (WHERE ended), 0)::bigint AS total_cpu_ns,
       coalesce(sum(io_bytes) FILTER (WHERE ended), 0)::bigint AS total_io_bytes,
       coalesce(sum(runtime_ms) FILTER (WHERE ended), 0) AS total_runtime_ms,
       count(*) FILTER (WHERE determined AND NOT ended AND NOT started) AS waiting,
       coalesce((array_agg(ordinal) FILTER (WHERE NOT determined))[:$4], '{}') AS undetermined
  FROM (SELECT ordinal, status, cpu_ns, io_bytes, runtime_ms, ended, started,
               ended OR attempt = 0
               OR (attempt = 1 AND status IN ('ASSIGNED', 'RUNNING', 'COMPLETE')) AS determined
          FROM (SELECT *,
                       ended_sequence BETWEEN 1 AND $3 AS ended,
                       started_sequence BETWEEN 1 AND $3 AS started
                  FROM executions
                 WHERE tenant = $1 AND actor_id = $2 AND message_sequence <= $3) AS e) AS e;

-- name: execution_ids_at
-- A page of the executions that were accepted up to a sequence.
SELECT execution_id
  FROM executions
 WHERE tenant = $1 AND actor_id = $2 AND ordinal >= $4 AND ordinal < $5 AND message_sequence <= $3
 ORDER BY ordinal
 LIMIT $6;

-- name: actors_at
-- Actors that there were at a sequence, in the order of their registration.
SELECT a.actor_id, a.registered_at
  FROM actors a
 WHERE a.tenant = $1
   AND ($3::timestamptz IS NULL OR (a.registered_at, a.actor_id) > ($3, $4::text))
   AND (a.status <> 'DELETED' OR a.sequence > $2)
   AND ($7::text[] IS NULL OR a.actor_id = ANY ($7))
   AND EXISTS (SELECT
                 FROM events e
                WHERE e.tenant = $1 AND e.actor_id || '.' || e.type = a.actor_id || '.actor.registered'
                  AND e.type NOT IN ('message.received', 'execution.assigned', 'execution.finished')
                  AND e.seq <= $2)
 ORDER BY a.registered_at, a.actor_id
 LIMIT $5 OFFSET $6;

-- name: backlog
-- How many messages wait before one, and which execution of the actor a worker has.
SELECT (SELECT count(*)
          FROM executions
         WHERE tenant = $1 AND actor_id = $2 AND status = 'SUBMITTED' AND ordinal < $3) AS ahead,
       (SELECT execution_id
          FROM workers
         WHERE tenant = $1 AND actor_id = $2 AND ended_sequence = 0 AND execution_id IS NOT NULL
         ORDER BY length(execution_id), execution_id
         LIMIT 1) AS running;

-- name: host_events
-- The last event of each host, whatever its tenant: hosts serve all tenants.
SELECT DISTINCT ON (actor_id)
       seq, time, tenant, id, causation_id, correlation_id, hops, principal, subject, data, body
  FROM events
 WHERE type IN ('host.joined', 'host.lost')
 ORDER BY actor_id, seq DESC;

-- name: live_workers_by_host
-- The workers of all tenants: they share the hosts.
SELECT host_id, count(*) AS workers
  FROM workers
 WHERE ended_sequence = 0
 GROUP BY host_id;

-- name: reruns
SELECT execution_id, message_sequence
  FROM executions
 WHERE tenant = $1 AND actor_id = $2 AND rerun_of = $3
 ORDER BY ordinal
 LIMIT $4;
