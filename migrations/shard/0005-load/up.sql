-- What clinics use of the shard, as the workers add it up (admin/rebalancing.md).
--
-- UNLOGGED: once a minute for each clinic and process, with nobody to miss what a crash forgets, and no log that
-- replicas and moves would have to read. It says nothing about a patient and does not move with the clinic.

CREATE UNLOGGED TABLE hc_load (
    tenant_id     uuid        PRIMARY KEY,
    execution_us  bigint      NOT NULL CHECK (execution_us >= 0),
    pool_us       bigint      NOT NULL CHECK (pool_us >= 0),
    rows_all      bigint      NOT NULL CHECK (rows_all >= 0),
    rows_changed  bigint      NOT NULL CHECK (rows_changed >= 0),
    minute        bigint      NOT NULL,
    minute_us     bigint      NOT NULL CHECK (minute_us >= 0),
    busiest_us    bigint      NOT NULL CHECK (busiest_us >= 0),
    counted_at    timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE hc_load IS 'What each clinic has used here, counted since the table was last emptied, by a crash or otherwise.';
COMMENT ON COLUMN hc_load.execution_us IS 'Time that workers waited for its statements.';
COMMENT ON COLUMN hc_load.pool_us IS 'Time for which it held connections of workers.';
COMMENT ON COLUMN hc_load.rows_all IS 'Rows that its statements gave back or changed.';
COMMENT ON COLUMN hc_load.rows_changed IS 'Of these, rows that were inserted, updated or deleted.';
COMMENT ON COLUMN hc_load.minute IS 'The minute, since 1970, to which minute_us belongs.';
COMMENT ON COLUMN hc_load.minute_us IS 'What was added to pool_us in that minute, by all processes.';
COMMENT ON COLUMN hc_load.busiest_us IS 'The most of any minute since the last sample, which puts it back to 0.';

ALTER TABLE hc_load ENABLE ROW LEVEL SECURITY;
ALTER TABLE hc_load FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON hc_load TO hc_owner USING (true) WITH CHECK (true);

-- Adds what one process has counted. Clinics that are not served here are left out. In the order of their ids:
-- two processes that add at once wait for each other and do not lock each other out.
CREATE FUNCTION hc_load_add(
    tenants uuid[], executions bigint[], pools bigint[], alls bigint[], changes bigint[]
) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    INSERT INTO public.hc_load AS here (
        tenant_id, execution_us, pool_us, rows_all, rows_changed, minute, minute_us, busiest_us, counted_at)
    SELECT added.tenant, added.execution, added.pool, added.all_rows, added.changed,
        extract(epoch FROM now())::bigint / 60, added.pool, added.pool, now()
    FROM unnest(tenants, executions, pools, alls, changes)
        AS added (tenant, execution, pool, all_rows, changed)
    JOIN public.hc_tenant ON hc_tenant.tenant_id = added.tenant AND hc_tenant.state NOT IN ('absent', 'moved')
    ORDER BY added.tenant
    ON CONFLICT (tenant_id) DO UPDATE SET
        execution_us = here.execution_us + excluded.execution_us,
        pool_us = here.pool_us + excluded.pool_us,
        rows_all = here.rows_all + excluded.rows_all,
        rows_changed = here.rows_changed + excluded.rows_changed,
        minute = excluded.minute,
        minute_us = excluded.minute_us
            + CASE WHEN here.minute = excluded.minute THEN here.minute_us ELSE 0 END,
        busiest_us = greatest(here.busiest_us, excluded.minute_us
            + CASE WHEN here.minute = excluded.minute THEN here.minute_us ELSE 0 END),
        counted_at = excluded.counted_at
$$;
GRANT EXECUTE ON FUNCTION hc_load_add(uuid[], bigint[], bigint[], bigint[], bigint[]) TO hc_app;
GRANT SELECT, DELETE, UPDATE (busiest_us) ON hc_load TO hc_mover;

-- Shares of tables by clinic come from the statistics of tenant_id: as many clinics by name as can be asked for.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT public.hc_tenant_tables() LOOP
        IF name <> 'hc_load' THEN
            EXECUTE format('ALTER TABLE public.%I ALTER COLUMN tenant_id SET STATISTICS 1000', name);
        END IF;
    END LOOP;
END
$$;

-- The tenant tables without hc_tenant, hc_barrier and hc_load, children before parents.
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
            AND class.relname NOT IN ('hc_tenant', 'hc_barrier', 'hc_load')
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
