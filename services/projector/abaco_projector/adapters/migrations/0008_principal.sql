-- Who did it. Older events have none.

ALTER TABLE events ADD COLUMN principal text;

-- What one principal did. Not of the services, whose events are most of the log. An index holds no
-- text of more than 2700 bytes, so it has the beginning only.
CREATE INDEX events_of_principal ON events (tenant, left(principal, 255), seq)
    WHERE principal NOT IN ('service:api', 'service:scheduler', 'service:worker');
