-- The read models: a fold of the log, thrown away and rebuilt at will.
-- Names are the field names of the aggregates in proto; units are in the names.

CREATE TABLE projection_checkpoints (
    name       text PRIMARY KEY,               -- 'events' or 'output'
    sequence   bigint NOT NULL,                -- the last sequence of its stream that is in the rows
    skipped    bigint NOT NULL DEFAULT 0,      -- messages that no schema reads
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE actors (
    tenant              text NOT NULL,
    actor_id            text NOT NULL,
    name                text NOT NULL,
    image               text NOT NULL,
    description         text,
    definition          jsonb NOT NULL,        -- the whole definition
    revision            integer NOT NULL,
    status              text NOT NULL,         -- SUBMITTED READY ERROR DELETED
    status_message      text NOT NULL,
    state               text NOT NULL,         -- JSON as text: it may hold what jsonb refuses
    state_version       integer NOT NULL,
    sequence            bigint NOT NULL,
    definition_sequence bigint NOT NULL,
    registered_at       timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    -- totals over all executions of the actor, maintained event by event
    total_executions    bigint NOT NULL DEFAULT 0,
    total_ended         bigint NOT NULL DEFAULT 0,
    total_cpu_ns        bigint NOT NULL DEFAULT 0,
    total_io_bytes      bigint NOT NULL DEFAULT 0,
    total_runtime_ms    double precision NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, actor_id)
);

CREATE TABLE executions (
    tenant              text NOT NULL,
    actor_id            text NOT NULL,
    execution_id        text NOT NULL,
    ordinal             bigint NOT NULL,
    status              text NOT NULL,         -- SUBMITTED ASSIGNED RUNNING COMPLETE ERROR HALTED PURGED
    status_message      text NOT NULL,
    attempt             integer NOT NULL,
    halt_requested      boolean NOT NULL,
    message_sequence    bigint NOT NULL,
    worker_id           text,
    host_id             text,
    container_id        text,
    image_digest        text,
    start_kind          text,
    exit_code           integer,
    final_state         jsonb,
    cpu_ns              bigint NOT NULL,
    io_bytes            bigint NOT NULL,
    runtime_ms          double precision NOT NULL,
    log_bytes           bigint NOT NULL,
    log_sha256          text NOT NULL,
    log_truncated       boolean NOT NULL,
    message_received_at timestamptz,
    started_at          timestamptz,
    finished_at         timestamptz,
    PRIMARY KEY (tenant, actor_id, ordinal)
);

CREATE INDEX executions_waiting ON executions (tenant, actor_id) WHERE status IN ('SUBMITTED', 'ASSIGNED');

CREATE TABLE workers (
    tenant         text NOT NULL,
    worker_id      text NOT NULL,
    actor_id       text NOT NULL,
    host_id        text NOT NULL,
    status         text NOT NULL,              -- REQUESTED READY BUSY STOPPING STOPPED FAILED LOST
    status_message text NOT NULL,
    revision       integer NOT NULL,
    image          text NOT NULL,
    image_digest   text NOT NULL,
    location       text NOT NULL,
    container_id   text,
    execution_id   text,
    requested_at   timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (tenant, worker_id)
);

CREATE INDEX workers_of_actor ON workers (tenant, actor_id);

CREATE TABLE subscriptions (
    tenant          text NOT NULL,
    actor_id        text NOT NULL,
    subscription_id text NOT NULL,
    event_pattern   text NOT NULL,
    subscribed_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, actor_id, subscription_id)
);

-- Output in chunks of bytes, as it came. An offset counts the bytes of the attempt before it.
CREATE TABLE logs (
    tenant        text NOT NULL,
    execution_id  text NOT NULL,
    attempt       integer NOT NULL,
    output_offset bigint NOT NULL,
    data          bytea NOT NULL,
    PRIMARY KEY (tenant, execution_id, attempt, output_offset)
);
