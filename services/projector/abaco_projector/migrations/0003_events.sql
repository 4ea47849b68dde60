-- The verified copy of the log: one row for each event, each hash over the row and the hash before.

CREATE TABLE events (
    seq            bigint PRIMARY KEY,
    time           timestamptz NOT NULL,
    tenant         text NOT NULL,
    actor_id       text NOT NULL,
    type           text NOT NULL,
    id             text NOT NULL,
    causation_id   text NOT NULL,
    correlation_id text NOT NULL,
    hops           integer NOT NULL,
    traceparent    text,
    subject        text NOT NULL,
    data           json,
    body           bytea NOT NULL,
    hash           bytea NOT NULL
);

CREATE INDEX events_of_actor ON events (tenant, actor_id, seq);
CREATE INDEX events_of_type ON events (type, seq);
CREATE INDEX events_by_time ON events (time);
