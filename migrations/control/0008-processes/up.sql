-- Which programs serve, and which schemas they work with: so a contract waits for those that it would break, and a server
-- does not serve a shard whose schema it does not know.
-- Run by hc_owner, in one transaction.
--
-- Older programs do not look at any of this; newer ones need it, so the control database is migrated before them.

CREATE TABLE program_process (
    id              uuid        PRIMARY KEY,
    name            text        NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    host            text        NOT NULL CHECK (length(host) BETWEEN 1 AND 253),
    process_id      integer     NOT NULL CHECK (process_id > 0),
    version         text        NOT NULL CHECK (length(version) BETWEEN 1 AND 32),
    control_lowest  integer     NOT NULL CHECK (control_lowest > 0),
    control_highest integer     NOT NULL CHECK (control_highest >= control_lowest),
    shard_lowest    integer     NOT NULL CHECK (shard_lowest > 0),
    shard_highest   integer     NOT NULL CHECK (shard_highest >= shard_lowest),
    refused         jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(refused) = 'array'),
    started_at      timestamptz NOT NULL,
    seen_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE program_process IS 'Processes that serve, by what they say of themselves every few seconds. One that has said nothing for a while is gone.';
COMMENT ON COLUMN program_process.name IS 'The program and what it is at.';
COMMENT ON COLUMN program_process.version IS 'The release.';
COMMENT ON COLUMN program_process.control_lowest IS 'Of the control database: the migration without which it cannot work.';
COMMENT ON COLUMN program_process.control_highest IS 'Of the control database: the last migration that it knows.';
COMMENT ON COLUMN program_process.shard_lowest IS 'Of shards: the migration without which it cannot work.';
COMMENT ON COLUMN program_process.shard_highest IS 'Of shards: the last migration that it knows.';
COMMENT ON COLUMN program_process.refused IS 'Shards that it does not serve because of their schema, with reasons; no more than it can name.';
COMMENT ON COLUMN program_process.seen_at IS 'By the clock of this database.';
CREATE INDEX program_process_seen ON program_process (seen_at);

GRANT SELECT ON program_process TO hc_control;

-- What a process says of itself. Those of which nothing was heard for a day are forgotten.
CREATE FUNCTION program_process_report(
    process uuid, called text, at_host text, pid integer, release text, control_from integer, control_to integer,
    shard_from integer, shard_to integer, started timestamptz, refusals jsonb
) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    DELETE FROM public.program_process WHERE seen_at < clock_timestamp() - interval '1 day';
    INSERT INTO public.program_process AS known (id, name, host, process_id, version, control_lowest,
        control_highest, shard_lowest, shard_highest, refused, started_at)
    VALUES (process, called, at_host, pid, release, control_from, control_to, shard_from, shard_to, refusals, started)
    ON CONFLICT (id) DO UPDATE
    SET refused = excluded.refused, control_lowest = excluded.control_lowest, control_highest = excluded.control_highest,
        shard_lowest = excluded.shard_lowest, shard_highest = excluded.shard_highest, seen_at = clock_timestamp();
$$;

-- It has ended in good order.
CREATE FUNCTION program_process_leave(process uuid) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    DELETE FROM public.program_process WHERE id = process;
$$;

GRANT EXECUTE ON FUNCTION
    program_process_report(uuid, text, text, integer, text, integer, integer, integer, integer, timestamptz, jsonb),
    program_process_leave(uuid) TO hc_router;

-- Last: nobody can use the table until the end.
ALTER TABLE shard ADD COLUMN schema_serves_from integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN shard.schema_serves_from IS 'Highest serves_from of its ledger, as last seen.';
