-- What a worker uses to separate its messages. Older events do not have it.

ALTER TABLE workers
    ADD COLUMN isolation        text,                          -- sandbox container
    ADD COLUMN isolation_reason text NOT NULL DEFAULT '';      -- why it is not the one asked for
