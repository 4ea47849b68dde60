-- The verified copy of the log: one row an event, with the hash chain over them. See chain.py.

CREATE TABLE events (
    seq            bigint PRIMARY KEY,         -- its place in the stream
    time           timestamptz NOT NULL,       -- its appender's
    tenant         text NOT NULL,
    actor_id       text NOT NULL,              -- the subject's token: '_host-<host_id>' for a host's facts
    type           text NOT NULL,              -- of the subject, so that what cannot be read has one, too
    id             text NOT NULL,
    causation_id   text NOT NULL,
    correlation_id text NOT NULL,
    hops           integer NOT NULL,
    traceparent    text,
    subject        text NOT NULL,
    data           json,                       -- the body, byte by byte; null when Postgres refuses it
    body           bytea,                      -- the body when data is null
    hash           bytea NOT NULL              -- SHA-256 of the hash before and of this event
);

CREATE INDEX events_of_actor ON events (tenant, actor_id, seq);
CREATE INDEX events_of_type ON events (type, seq);
CREATE INDEX events_by_time ON events (time);

-- A generation is the tables that are built together; see generations.py.
ALTER TABLE projection_checkpoints ADD COLUMN generation bigint NOT NULL DEFAULT 0;

-- The copy begins with the first event, so all of them are folded once more; output stays.
TRUNCATE actors, executions, workers, subscriptions;
UPDATE projection_checkpoints SET sequence = 0, skipped = 0 WHERE name = 'events';
