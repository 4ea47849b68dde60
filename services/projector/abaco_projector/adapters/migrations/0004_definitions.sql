-- Definitions that were stored before they had `no_new_privileges`: the fold of their events has its
-- default, and `abaco verify` compares the rows with the fold.

UPDATE actors
SET definition = definition || '{"no_new_privileges": true}'
WHERE NOT definition ? 'no_new_privileges';
