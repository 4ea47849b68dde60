-- Rows are passed and returned as JSON, see domain/row_codec.py. $n are positional parameters.

-- name: lock_checkpoint
-- Blocks other projectors until this transaction ends.
SELECT sequence, generation FROM projection_checkpoints WHERE name = $1 FOR UPDATE;

-- name: create_checkpoint
INSERT INTO projection_checkpoints (name, sequence) VALUES ($1, 0) ON CONFLICT DO NOTHING;

-- name: advance_checkpoint
UPDATE projection_checkpoints
SET sequence = $2, skipped = skipped + $3, updated_at = now()
WHERE name = $1 AND sequence < $2;

-- name: notify
SELECT pg_notify('abaco_projection', $1);

-- name: remove_beyond
DELETE FROM events WHERE seq > $1;

-- name: read_checkpoint
SELECT sequence, generation FROM projection_checkpoints WHERE name = $1;

-- name: read_hash
SELECT hash FROM events WHERE seq <= $1 ORDER BY seq DESC LIMIT 1;

-- name: load_actors
SELECT coalesce(json_agg(row), '[]')
FROM (
    SELECT
        a.*,
        (
            SELECT coalesce(json_object_agg(s.subscription_id, s.event_pattern), '{}')
            FROM subscriptions s
            WHERE s.tenant = a.tenant AND s.actor_id = a.actor_id
        ) AS subscriptions
    FROM unnest($1::text[], $2::text[]) AS k (tenant, actor_id)
    JOIN actors a USING (tenant, actor_id)
) AS row;

-- name: load_last_ordinals
-- The highest ordinal of each of these actors, -1 if it has no execution. The actor itself may have
-- no row.
SELECT
    k.tenant,
    k.actor_id,
    coalesce(
        (SELECT max(ordinal) FROM executions e WHERE (e.tenant, e.actor_id) = (k.tenant, k.actor_id)),
        -1
    )
FROM unnest($1::text[], $2::text[]) AS k (tenant, actor_id);

-- name: load_executions
SELECT coalesce(json_agg(json_build_array(e.tenant, e)), '[]')
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS k (tenant, actor_id, ordinal)
JOIN executions e USING (tenant, actor_id, ordinal);

-- name: load_workers
-- By id, and the live ones by the execution they run.
SELECT coalesce(json_agg(json_build_array(w.tenant, w)), '[]')
FROM (
    SELECT w.*
    FROM unnest($1::text[], $2::text[]) AS k (tenant, worker_id)
    JOIN workers w USING (tenant, worker_id)
    UNION
    SELECT w.*
    FROM unnest($3::text[], $4::text[], $5::text[]) AS k (tenant, actor_id, execution_id)
    JOIN workers w USING (tenant, actor_id, execution_id)
    WHERE w.ended_sequence = 0
) AS w;

-- name: write_actors
-- Without the totals: they change with every execution, and a long state should not be rewritten
-- for them.
INSERT INTO actors
SELECT * FROM json_populate_recordset(NULL::actors, $1::json)
ON CONFLICT (tenant, actor_id) DO UPDATE SET
    name = excluded.name,
    image = excluded.image,
    description = excluded.description,
    definition = excluded.definition,
    revision = excluded.revision,
    status = excluded.status,
    status_message = excluded.status_message,
    state = excluded.state,
    state_version = excluded.state_version,
    sequence = excluded.sequence,
    definition_sequence = excluded.definition_sequence,
    registered_at = excluded.registered_at,
    updated_at = excluded.updated_at;

-- name: write_totals
UPDATE actors a
SET
    total_executions = t.total_executions,
    total_ended = t.total_ended,
    total_complete = t.total_complete,
    total_error = t.total_error,
    total_halted = t.total_halted,
    total_purged = t.total_purged,
    total_cpu_ns = t.total_cpu_ns,
    total_io_bytes = t.total_io_bytes,
    total_runtime_ms = t.total_runtime_ms
FROM json_populate_recordset(NULL::actors, $1::json) AS t
WHERE a.tenant = t.tenant AND a.actor_id = t.actor_id;

-- name: write_executions
INSERT INTO executions
SELECT * FROM json_populate_recordset(NULL::executions, $1::json)
ON CONFLICT (tenant, actor_id, ordinal) DO UPDATE SET
    execution_id = excluded.execution_id,
    status = excluded.status,
    status_message = excluded.status_message,
    attempt = excluded.attempt,
    halt_requested = excluded.halt_requested,
    message_sequence = excluded.message_sequence,
    worker_id = excluded.worker_id,
    host_id = excluded.host_id,
    container_id = excluded.container_id,
    image_digest = excluded.image_digest,
    start_kind = excluded.start_kind,
    exit_code = excluded.exit_code,
    final_state = excluded.final_state,
    cpu_ns = excluded.cpu_ns,
    io_bytes = excluded.io_bytes,
    runtime_ms = excluded.runtime_ms,
    log_bytes = excluded.log_bytes,
    log_sha256 = excluded.log_sha256,
    log_truncated = excluded.log_truncated,
    memory_bytes = excluded.memory_bytes,
    network_bytes = excluded.network_bytes,
    state_sequence = excluded.state_sequence,
    actor_sequence = excluded.actor_sequence,
    rerun_of = excluded.rerun_of,
    message_received_at = excluded.message_received_at,
    taken_at = excluded.taken_at,
    started_at = excluded.started_at,
    first_output_at = excluded.first_output_at,
    finished_at = excluded.finished_at,
    recorded_at = excluded.recorded_at,
    started_sequence = excluded.started_sequence,
    ended_sequence = excluded.ended_sequence;

-- name: write_workers
INSERT INTO workers
SELECT * FROM json_populate_recordset(NULL::workers, $1::json)
ON CONFLICT (tenant, worker_id) DO UPDATE SET
    actor_id = excluded.actor_id,
    host_id = excluded.host_id,
    status = excluded.status,
    status_message = excluded.status_message,
    revision = excluded.revision,
    image = excluded.image,
    image_digest = excluded.image_digest,
    location = excluded.location,
    container_id = excluded.container_id,
    isolation = excluded.isolation,
    isolation_reason = excluded.isolation_reason,
    execution_id = excluded.execution_id,
    requested_at = excluded.requested_at,
    updated_at = excluded.updated_at,
    requested_sequence = excluded.requested_sequence,
    ended_sequence = excluded.ended_sequence;

-- name: write_subscriptions
WITH changed AS (
    SELECT * FROM json_populate_recordset(NULL::subscriptions, $1::json)
), removed AS (
    DELETE FROM subscriptions s
    USING changed c
    WHERE c.event_pattern IS NULL
        AND (s.tenant, s.actor_id, s.subscription_id) = (c.tenant, c.actor_id, c.subscription_id)
)
INSERT INTO subscriptions
SELECT * FROM changed WHERE event_pattern IS NOT NULL
ON CONFLICT (tenant, actor_id, subscription_id) DO UPDATE SET
    event_pattern = excluded.event_pattern,
    subscribed_at = excluded.subscribed_at;

-- name: bulk_update
-- Ends all waiting executions up to an ordinal, except those that the batch has folded.
WITH ended AS (
    UPDATE executions
    SET status = $4, status_message = $5, finished_at = $6, recorded_at = $6, ended_sequence = $8
    WHERE tenant = $1 AND actor_id = $2 AND ordinal <= $3
        AND status = 'SUBMITTED'
        AND ordinal <> ALL ($7::bigint[])
    RETURNING 1
)
UPDATE actors
SET
    total_ended = total_ended + (SELECT count(*) FROM ended),
    total_purged = total_purged + (SELECT count(*) FROM ended)
WHERE tenant = $1 AND actor_id = $2;

-- name: load_output_ends
-- The end of the stored output of each attempt. Chunks do not overlap, so it is the end of the last one.
SELECT k.tenant, k.execution_id, k.attempt, l.output_end
FROM unnest($1::text[], $2::text[], $3::integer[]) AS k (tenant, execution_id, attempt)
CROSS JOIN LATERAL (
    SELECT output_offset + octet_length(data) AS output_end
    FROM logs
    WHERE (tenant, execution_id, attempt) = (k.tenant, k.execution_id, k.attempt)
    ORDER BY output_offset DESC
    LIMIT 1
) AS l;

-- name: write_chunks
INSERT INTO logs (tenant, execution_id, attempt, output_offset, data)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::bigint[], $5::bytea[])
ON CONFLICT DO NOTHING;

-- name: count_chunks
SELECT count(*) FROM logs;

-- name: read_chunks
SELECT tenant, execution_id, attempt, output_offset, data
FROM logs
ORDER BY tenant, execution_id, attempt, output_offset;

-- name: lock_migrations
-- Held until it is unlocked or the connection ends. The number identifies this lock.
SELECT pg_advisory_lock(4201986);

-- name: unlock_migrations
SELECT pg_advisory_unlock(4201986);

-- name: create_migrations
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: read_migrations
SELECT number FROM schema_migrations;

-- name: record_migration
INSERT INTO schema_migrations (number, name) VALUES ($1, $2);

-- name: columns_of
-- The hash of an event is the last: it differs wherever another column does.
SELECT column_name::text, data_type::text
FROM information_schema.columns
WHERE table_schema = $1 AND table_name = $2
ORDER BY column_name = 'hash', ordinal_position;

-- name: chained
-- Whether the hash of a row follows from its content and the row before; see domain/hash_chain.py.
SELECT e.hash = sha256(
    coalesce((SELECT hash FROM {events} WHERE seq < e.seq ORDER BY seq DESC LIMIT 1), $2::bytea)
    || coalesce(
        int8send(-2) || int4send(octet_length(e.principal)) || convert_to(e.principal, 'UTF8'), ''
    )
    || int8send(e.seq)
    || int8send((extract(epoch FROM e.time) * 1000000)::bigint)
    || int8send(e.hops)
    || int4send(octet_length(e.subject))
    || int4send(octet_length(e.id))
    || int4send(octet_length(e.causation_id))
    || int4send(octet_length(e.correlation_id))
    || int4send(coalesce(octet_length(e.traceparent), -1))
    || convert_to(
        e.subject || e.id || e.causation_id || e.correlation_id || coalesce(e.traceparent, ''),
        'UTF8'
    )
    || coalesce(e.body, convert_to(e.data::text, 'UTF8'), '')
)
FROM {events} e
WHERE e.seq = $1;

-- name: copied
-- Rows of the copy as domain/copy_format.py computes them: the body from either column, and in how many
-- columns it is.
SELECT
    seq, time, hops, num_nonnulls(data, body), tenant, actor_id, type, subject, id, causation_id,
    correlation_id, principal, traceparent, coalesce(body, json_send(data)), hash
FROM {events}
WHERE seq > {after} AND seq <= {last}
ORDER BY seq;

-- name: hash_of
SELECT hash FROM {events} WHERE seq = $1;

-- name: strays
SELECT EXISTS (SELECT FROM {events} WHERE seq > $1) OR EXISTS (SELECT FROM {events} WHERE seq < 1);

-- name: same_event
-- The other positions in `there` of an event in `here`.
SELECT t.seq
FROM {here} h
JOIN {there} t ON t.subject = h.subject AND t.id = h.id AND t.time = h.time
    AND t.causation_id = h.causation_id AND t.seq <> h.seq
    AND (t.data::text, t.body) IS NOT DISTINCT FROM (h.data::text, h.body)
WHERE h.seq = $1;

-- name: try_lock
SELECT pg_try_advisory_lock(4201986, hashtext($1));

-- name: unlock
SELECT pg_advisory_unlock(4201986, hashtext($1));

-- name: schema_comment
-- No row if the schema does not exist.
SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1;

-- name: secondary_indexes
-- Indexes that belong to no constraint.
SELECT format('%I.%I', i.schemaname, i.indexname)
FROM pg_indexes i
WHERE i.schemaname = $1
    AND i.tablename IN ('events', 'actors', 'executions', 'workers', 'subscriptions')
    AND NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conindid = format('%I.%I', i.schemaname, i.indexname)::regclass
    );

-- name: index_definitions
-- Statements that make the secondary indexes of one schema in another.
SELECT replace(
    i.indexdef,
    format(' ON %I.%I ', i.schemaname, i.tablename),
    format(' ON %I.%I ', $2::text, i.tablename)
)
FROM pg_indexes i
WHERE i.schemaname = $1
    AND i.tablename IN ('events', 'actors', 'executions', 'workers', 'subscriptions')
    AND NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conindid = format('%I.%I', i.schemaname, i.indexname)::regclass
    );

-- name: hashes
SELECT seq, encode(hash, 'hex') FROM {schema}.events WHERE seq = ANY ($1::bigint[]);

-- name: hold_checkpoint
SELECT sequence FROM {live}.projection_checkpoints WHERE name = $1 FOR UPDATE;

-- name: lock_out_vacuum
-- Does not block readers and writers. An autovacuum is cancelled when a lock waits for over a second.
LOCK TABLE {tables} IN SHARE UPDATE EXCLUSIVE MODE;

-- name: make_old
LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
CREATE SCHEMA {old};
COMMENT ON SCHEMA {old} IS 'made by abaco, from the log';

-- name: switch_table
ALTER TABLE {live}.{table} SET SCHEMA {old};
ALTER TABLE {next}.{table} SET SCHEMA {live};

-- name: switch_checkpoint
UPDATE {live}.projection_checkpoints c
SET sequence = $2, skipped = n.skipped, generation = c.generation + 1, updated_at = now()
FROM {next}.projection_checkpoints n
WHERE c.name = $1 AND n.name = $1
RETURNING c.sequence;

-- name: last_copied
SELECT max(seq) FROM {live}.events;

-- name: last_before
SELECT max(seq) FROM {live}.events WHERE time <= $1;

-- name: expire_output
-- Removes output of runs that ended before the time in their actor's log_ex.
WITH expired AS (
    SELECT e.tenant, e.execution_id
    FROM actors a
    JOIN executions e USING (tenant, actor_id)
    WHERE a.definition ->> 'log_ex' IS NOT NULL
        AND extract(epoch FROM now() - e.finished_at) > (a.definition ->> 'log_ex')::numeric
        AND EXISTS (
            SELECT FROM logs l WHERE (l.tenant, l.execution_id) = (e.tenant, e.execution_id)
        )
    LIMIT $1
), removed AS (
    DELETE FROM logs l
    USING expired e
    WHERE (l.tenant, l.execution_id) = (e.tenant, e.execution_id)
)
SELECT count(*) FROM expired;

-- name: output_of_runs
-- The stored output of each ended run beside its recorded size and digest: the stored bytes, their
-- end, whether chunks overlap, and their SHA-256 if all bytes are stored and few enough to be
-- concatenated here.
SELECT
    e.tenant,
    e.actor_id,
    e.execution_id,
    e.attempt,
    e.log_bytes,
    e.log_sha256,
    coalesce(l.stored, 0),
    coalesce(l.output_end, 0),
    coalesce(l.overlapping, false),
    CASE
        WHEN l.stored = e.log_bytes AND e.log_bytes <= {most} THEN (
            SELECT encode(sha256(string_agg(data, ''::bytea ORDER BY output_offset)), 'hex')
            FROM {live}.logs
            WHERE (tenant, execution_id, attempt) = (e.tenant, e.execution_id, e.attempt)
        )
    END,
    coalesce(
        extract(epoch FROM now() - e.finished_at) > (a.definition ->> 'log_ex')::numeric, false
    )
FROM {fresh}.executions e
LEFT JOIN {fresh}.actors a USING (tenant, actor_id)
LEFT JOIN LATERAL (
    SELECT
        sum(octet_length(data))::bigint AS stored,
        max(output_offset + octet_length(data)) AS output_end,
        bool_or(output_offset < before) AS overlapping
    FROM (
        SELECT
            data,
            output_offset,
            sum(octet_length(data)) OVER (
                ORDER BY output_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) AS before
        FROM {live}.logs
        WHERE (tenant, execution_id, attempt) = (e.tenant, e.execution_id, e.attempt)
    ) AS chunk
) AS l ON true
WHERE e.final_state IS NOT NULL
ORDER BY e.tenant, e.actor_id, e.ordinal;

-- name: output_of_run
SELECT data
FROM {live}.logs
WHERE (tenant, execution_id, attempt) = ($1, $2, $3)
ORDER BY output_offset;

-- name: output_without_digest
-- The number of attempts with output for which no digest is recorded.
SELECT count(*)
FROM (SELECT DISTINCT tenant, execution_id, attempt FROM {live}.logs) AS l
WHERE NOT EXISTS (
    SELECT FROM {fresh}.executions e
    WHERE (e.tenant, e.execution_id, e.attempt) = (l.tenant, l.execution_id, l.attempt)
        AND e.final_state IS NOT NULL
        AND e.log_sha256 <> ''
);
