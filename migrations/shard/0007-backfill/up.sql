-- Migrations in phases: how far they are, and how far each clinic's rows have been filled (migrations/README.md).
-- Run by hc_owner, in one transaction.

ALTER TABLE hc_schema
    ADD COLUMN phase text,
    ADD CONSTRAINT hc_schema_phase CHECK (phase IN ('expanded', 'backfilled')) NOT VALID;
COMMENT ON COLUMN hc_schema.phase IS 'What has been done of a migration in phases; NULL: all of it.';

CREATE TABLE hc_backfill (
    tenant_id    uuid        NOT NULL,
    version      integer     NOT NULL CHECK (version > 0),
    cursor       text,
    rows_seen    bigint      NOT NULL DEFAULT 0 CHECK (rows_seen >= 0),
    begun_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at      timestamptz,
    PRIMARY KEY (tenant_id, version)
) WITH (fillfactor = 50);
COMMENT ON TABLE hc_backfill IS 'How far the rows of each clinic have been gone through for a migration; written in the transaction of each batch.';
COMMENT ON COLUMN hc_backfill.version IS 'The migration.';
COMMENT ON COLUMN hc_backfill.cursor IS 'Where the next batch begins: what the migration''s own statement gave back.';
COMMENT ON COLUMN hc_backfill.rows_seen IS 'Rows of all batches so far.';
COMMENT ON COLUMN hc_backfill.begun_at IS 'When this pass over the clinic''s rows began.';
COMMENT ON COLUMN hc_backfill.done_at IS 'When it was through; NULL: it goes on.';

ALTER TABLE hc_backfill ENABLE ROW LEVEL SECURITY;
ALTER TABLE hc_backfill FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON hc_backfill TO hc_owner USING (true) WITH CHECK (true);

-- Enters a clinic for a batch of a backfill, as hc_enter() does for its own people: a move's fence keeps it out, and
-- row-level security keeps it among that clinic's rows. Suspended and read-only clinics are entered too: their rows need
-- the new form like all others.
--
--   entered    the transaction may go on
--   busy       the clinic is being handed over: try again
--   elsewhere  it is not served here
CREATE FUNCTION hc_backfill_enter(tenant uuid) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    here_state text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_transaction_state',
            MESSAGE = 'a backfill runs in READ COMMITTED: its snapshot must be newer than its lock';
    END IF;
    IF NOT pg_try_advisory_xact_lock_shared(hc_fence_key(tenant)) THEN
        RETURN 'busy';
    END IF;
    SELECT state INTO here_state FROM hc_tenant WHERE tenant_id = tenant;
    IF here_state IS NULL OR here_state IN ('absent', 'incoming', 'moved') THEN
        RETURN 'elsewhere';
    ELSIF here_state NOT IN ('rw', 'ro', 'suspended') THEN
        RETURN 'busy';
    END IF;
    PERFORM set_config('hc.ctx', tenant::text || '|'
        || (date_part('epoch', transaction_timestamp()) * 1000000)::bigint::text, true);
    RETURN 'entered';
END
$$;

-- The tenant tables without those of the platform, children before parents.
CREATE OR REPLACE FUNCTION hc_tenant_tables() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    WITH RECURSIVE tenant_table AS (
        SELECT class.oid, class.relname
        FROM pg_class class
        JOIN pg_attribute attribute ON attribute.attrelid = class.oid
            AND attribute.attname = 'tenant_id' AND NOT attribute.attisdropped
        WHERE class.relkind = 'r' AND class.relnamespace = 'public'::regnamespace
            AND class.relname NOT IN ('hc_tenant', 'hc_barrier', 'hc_load', 'hc_backfill')
    ),
    descent (oid, depth) AS (
        SELECT oid, 0 FROM tenant_table
        UNION
        SELECT reference.conrelid, descent.depth + 1
        FROM descent
        JOIN pg_constraint reference ON reference.confrelid = descent.oid
            AND reference.contype = 'f' AND reference.conrelid <> reference.confrelid
        WHERE descent.depth < 32
    )
    SELECT tenant_table.relname::text
    FROM tenant_table
    JOIN descent USING (oid)
    GROUP BY tenant_table.relname
    ORDER BY max(descent.depth) DESC, tenant_table.relname
$$;
