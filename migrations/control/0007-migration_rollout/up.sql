-- A migration of all shards in waves, as one run that one process carries on: `hc-admin migrate up`.
-- Run by hc_owner, in one transaction.
--
-- What is applied says the ledger of each shard. This table says who is at it, how far it has come and why it stopped; so
-- of two operators one is refused, and a run whose process died is taken over when its lease has run out.

CREATE TABLE migration_rollout (
    id            uuid        PRIMARY KEY,
    state         text        NOT NULL CHECK (state IN ('running', 'halted', 'aborted', 'done')),
    version       integer     NOT NULL CHECK (version > 0),
    checksum      text        NOT NULL,
    canary        text        NOT NULL REFERENCES shard (id),
    wave          integer     NOT NULL DEFAULT 0 CHECK (wave >= 0),
    shards_done   integer     NOT NULL DEFAULT 0 CHECK (shards_done >= 0),
    shards_total  integer     NOT NULL CHECK (shards_total > 0),
    failed_shards text[]      NOT NULL DEFAULT '{}',
    problem       text,
    attempt       bigint      NOT NULL DEFAULT 1,
    lease_owner   text        NOT NULL,
    lease_until   timestamptz,
    abort_wanted  boolean     NOT NULL DEFAULT false,
    operator_name text        NOT NULL CHECK (operator_name <> ''),
    started_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz
);
COMMENT ON TABLE migration_rollout IS 'Runs of migrations over all shards; at most one is open.';
COMMENT ON COLUMN migration_rollout.version IS 'To which the shards are brought.';
COMMENT ON COLUMN migration_rollout.checksum IS 'Of the migration of that version.';
COMMENT ON COLUMN migration_rollout.wave IS 'The one that is being worked on; 0: the canary.';
COMMENT ON COLUMN migration_rollout.failed_shards IS 'Where it halted.';
COMMENT ON COLUMN migration_rollout.problem IS 'Why it halted.';
COMMENT ON COLUMN migration_rollout.attempt IS 'Counts the processes that have carried it on: each writes only while this is its own.';

-- One at a time, whoever begins it.
CREATE UNIQUE INDEX migration_rollout_open ON migration_rollout ((true)) WHERE state IN ('running', 'halted');
CREATE INDEX migration_rollout_started ON migration_rollout (started_at);

ALTER TABLE migration_run ADD COLUMN rollout_id uuid REFERENCES migration_rollout (id);
COMMENT ON COLUMN migration_run.rollout_id IS 'The run it was a part of.';
CREATE INDEX migration_run_rollout ON migration_run (rollout_id) WHERE state = 'running';

GRANT SELECT, INSERT, UPDATE ON migration_rollout TO hc_control;
