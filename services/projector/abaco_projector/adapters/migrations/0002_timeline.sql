-- The timeline of an execution, what else it used, what it was given, and what executions ended as.

ALTER TABLE executions
    ADD COLUMN memory_bytes    bigint NOT NULL DEFAULT 0,
    ADD COLUMN network_bytes   bigint NOT NULL DEFAULT 0,
    ADD COLUMN state_sequence  bigint NOT NULL DEFAULT 0,
    ADD COLUMN actor_sequence  bigint NOT NULL DEFAULT 0,
    ADD COLUMN rerun_of        text,
    ADD COLUMN taken_at        timestamptz,
    ADD COLUMN first_output_at timestamptz,
    ADD COLUMN recorded_at     timestamptz;

ALTER TABLE actors
    ADD COLUMN total_complete bigint NOT NULL DEFAULT 0,
    ADD COLUMN total_error    bigint NOT NULL DEFAULT 0,
    ADD COLUMN total_halted   bigint NOT NULL DEFAULT 0,
    ADD COLUMN total_purged   bigint NOT NULL DEFAULT 0;
