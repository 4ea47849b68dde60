-- name: checkpoint
SELECT sequence FROM projection_checkpoints WHERE name = 'events';

-- name: actor
SELECT a.*,
       (SELECT coalesce(json_object_agg(s.subscription_id, s.event_pattern
                                        ORDER BY s.subscribed_at, s.subscription_id), '{}')
          FROM subscriptions s
         WHERE s.tenant = a.tenant AND s.actor_id = a.actor_id) AS subscriptions
  FROM actors a
 WHERE a.tenant = $1 AND a.actor_id = $2 AND a.status <> 'DELETED';

-- name: actors
-- As events: rows up to the one that reaches so many bytes.
SELECT *
  FROM (SELECT page.*,
               count(*) OVER () AS found,
               coalesce(sum(octet_length(state) + octet_length(definition::text)) OVER (
                   ORDER BY registered_at, actor_id
                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM (
          SELECT a.*,
                 (SELECT coalesce(json_object_agg(s.subscription_id, s.event_pattern
                                                  ORDER BY s.subscribed_at, s.subscription_id), '{}')
                    FROM subscriptions s
                   WHERE s.tenant = a.tenant AND s.actor_id = a.actor_id) AS subscriptions
            FROM actors a
           WHERE a.tenant = $1 AND a.status <> 'DELETED'
             AND ($4::timestamptz IS NULL OR (a.registered_at, a.actor_id) > ($4, $5::text))
             AND ($7::text[] IS NULL OR a.actor_id = ANY ($7))
           ORDER BY a.registered_at, a.actor_id
           LIMIT $2 OFFSET $3) AS page) AS measured
 WHERE before < $6
 ORDER BY registered_at, actor_id;

-- name: waiting
SELECT (SELECT count(*)
          FROM executions e
         WHERE e.tenant = a.tenant AND e.actor_id = a.actor_id
           AND e.status IN ('SUBMITTED', 'ASSIGNED')) AS waiting
  FROM actors a
 WHERE a.tenant = $1 AND a.actor_id = $2 AND a.status <> 'DELETED';

-- name: executions
-- Ordinals have no gaps, so an offset is an ordinal.
SELECT a.*,
       ARRAY(SELECT e.execution_id
               FROM executions e
              WHERE e.tenant = a.tenant AND e.actor_id = a.actor_id AND e.ordinal >= $4
              ORDER BY e.ordinal
              LIMIT $3) AS ids
  FROM actors a
 WHERE a.tenant = $1 AND a.actor_id = $2 AND a.status <> 'DELETED';

-- name: execution
-- Of a deleted actor, too: its results stay.
SELECT e.*, (a.definition ->> 'log_ex')::bigint AS log_ex
  FROM executions e
  JOIN actors a ON a.tenant = e.tenant AND a.actor_id = e.actor_id
 WHERE e.tenant = $1 AND e.actor_id = $2 AND e.ordinal = $3;

-- name: stored_output
SELECT coalesce(max(output_offset + octet_length(data)), 0) AS bytes
  FROM logs
 WHERE tenant = $1 AND execution_id = $2 AND attempt = $3;

-- name: output
SELECT output_offset, data
  FROM logs
 WHERE tenant = $1 AND execution_id = $2 AND attempt = $3
   AND output_offset >= coalesce((SELECT max(output_offset)
                                    FROM logs
                                   WHERE tenant = $1 AND execution_id = $2 AND attempt = $3
                                     AND output_offset <= $4), 0)
 ORDER BY output_offset
 LIMIT $5;

-- name: ended
SELECT e.*
  FROM unnest($2::text[], $3::bigint[]) AS k (actor_id, ordinal)
  JOIN executions e USING (actor_id, ordinal)
 WHERE e.tenant = $1 AND e.status IN ('COMPLETE', 'ERROR', 'HALTED', 'PURGED');

-- name: workers
SELECT *
  FROM workers
 WHERE tenant = $1 AND actor_id = $2 AND ended_sequence = 0
 ORDER BY requested_at, worker_id;

-- name: worker
SELECT *
  FROM workers
 WHERE tenant = $1 AND worker_id = $3 AND actor_id = $2;

-- name: worker_at
-- A worker, if there is one, and the last event that the rows hold, both of one moment.
SELECT c.sequence, w.worker_id, w.host_id, w.status
  FROM projection_checkpoints c
  LEFT JOIN workers w ON w.tenant = $1 AND w.actor_id = $2 AND w.worker_id = $3
 WHERE c.name = 'events';

-- name: subscriptions
SELECT *
  FROM subscriptions
 WHERE tenant = $1 AND actor_id = $2
 ORDER BY subscribed_at, subscription_id;

-- name: known
-- Whether there ever was such an actor.
SELECT EXISTS (SELECT FROM actors WHERE tenant = $1 AND actor_id = $2);

-- name: events
-- Rows up to the one that reaches so many bytes; found says how many there were to take.
SELECT *
  FROM (SELECT page.*,
               count(*) OVER () AS found,
               coalesce(sum(octet_length(data::text)) OVER (
                   ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM (
          SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops,
                 principal, data
            FROM events
           WHERE tenant = $1 AND seq > $2 AND seq < $3 AND type LIKE $4
             AND ($5::timestamptz IS NULL OR time >= $5) AND ($6::timestamptz IS NULL OR time < $6)
             AND ($9::text[] IS NULL OR actor_id = ANY ($9))
             AND ($10 OR type NOT LIKE ALL ('{token.%,nonce.%}'::text[]))
             AND ($11::text IS NULL OR principal LIKE $11)
           ORDER BY seq
           LIMIT $7) AS page) AS measured
 WHERE before < $8
 ORDER BY seq;

-- name: events_of_type
SELECT *
  FROM (SELECT page.*,
               count(*) OVER () AS found,
               coalesce(sum(octet_length(data::text)) OVER (
                   ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM (
          SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops,
                 principal, data
            FROM events
           WHERE tenant = $1 AND seq > $2 AND seq < $3 AND type = $4
             AND ($5::timestamptz IS NULL OR time >= $5) AND ($6::timestamptz IS NULL OR time < $6)
             AND ($9::text[] IS NULL OR actor_id = ANY ($9))
             AND ($10 OR type NOT LIKE ALL ('{token.%,nonce.%}'::text[]))
             AND ($11::text IS NULL OR principal LIKE $11)
           ORDER BY seq
           LIMIT $7) AS page) AS measured
 WHERE before < $8
 ORDER BY seq;

-- name: events_of_principal
-- What one principal did that is no service of Abaco. The order is that of the one index of it.
SELECT *
  FROM (SELECT page.*,
               count(*) OVER () AS found,
               coalesce(sum(octet_length(data::text)) OVER (
                   ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM (
          SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops,
                 principal, data
            FROM events
           WHERE tenant = $1 AND seq > $2 AND seq < $3 AND type LIKE $4
             AND ($5::timestamptz IS NULL OR time >= $5) AND ($6::timestamptz IS NULL OR time < $6)
             AND ($9::text[] IS NULL OR actor_id = ANY ($9))
             AND ($10 OR type NOT LIKE ALL ('{token.%,nonce.%}'::text[]))
             AND left(principal, 255) = left($11, 255) AND principal = $11
             AND principal NOT IN ('service:api', 'service:scheduler', 'service:worker')
           ORDER BY left(principal, 255), seq
           LIMIT $7) AS page) AS measured
 WHERE before < $8
 ORDER BY seq;

-- name: events_of_actor
SELECT *
  FROM (SELECT page.*,
               count(*) OVER () AS found,
               coalesce(sum(octet_length(data::text)) OVER (
                   ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
          FROM (
          SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops,
                 principal, data
            FROM events
           WHERE tenant = $1 AND actor_id = $8 AND seq > $2 AND seq < $3 AND type LIKE $4
             AND ($5::timestamptz IS NULL OR time >= $5) AND ($6::timestamptz IS NULL OR time < $6)
             AND ($10::text IS NULL OR principal LIKE $10)
           ORDER BY seq
           LIMIT $7) AS page) AS measured
 WHERE before < $9
 ORDER BY seq;

-- name: event
SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops, principal, data,
       hash
  FROM events
 WHERE tenant = $1 AND seq = $2;

-- name: head
SELECT seq, hash, time
  FROM events
 ORDER BY seq DESC
 LIMIT 1;

-- name: last_event_at
-- The place of a moment: of all events that are not later, the last in the order of the log.
SELECT coalesce(max(seq), 0)
  FROM events
 WHERE time <= $1;

-- name: caused
-- The messages that subscriptions made of some events.
SELECT seq, time, type, tenant, actor_id, id, causation_id, correlation_id, hops, principal, data
  FROM events
 WHERE tenant = $1 AND type = 'message.received' AND seq > $2 AND causation_id = ANY ($3::text[])
 ORDER BY seq
 LIMIT $4;

-- name: latest_rerun
SELECT ordinal
  FROM executions
 WHERE tenant = $1 AND actor_id = $2 AND rerun_of = $3
 ORDER BY ordinal DESC
 LIMIT 1;
