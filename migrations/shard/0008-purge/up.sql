-- Removing a large clinic in time that grows with its rows, and not with their square: each batch begins where the last
-- one ended. What was looked for from the start each time had to pass all that was removed before.

-- Removes up to `batch` rows of a clinic that is not served here, table by table, each in the order of its key.
--
-- `place` is the `next` of the batch before, NULL for the first: the table, and the key of the last row that went.
-- `next` is NULL when the last table's end was reached.
CREATE FUNCTION hc_purge_from(
    tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    -- By the key's index in any case: to sort what is left would read all of it for each batch.
    SET enable_sort = off
AS $$
DECLARE
    listed record;
    bound  text;
    gone   bigint;
    last   text[];
BEGIN
    PERFORM FROM public.hc_tenant
    WHERE tenant_id = tenant AND state IN ('absent', 'incoming', 'moved')
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'only a tenant that is not served here can be purged';
    END IF;
    removed := 0;
    FOR listed IN
        WITH tenant_table AS (
            SELECT tables.name, tables.number
            FROM public.hc_tenant_tables() WITH ORDINALITY AS tables (name, number)
        )
        SELECT tenant_table.name,
            coalesce(string_agg(quote_ident(attname), ', ' ORDER BY spot), 'tenant_id') AS columns,
            coalesce(string_agg(quote_ident(attname) || '::text', ', ' ORDER BY spot), '') AS texts,
            coalesce(string_agg(quote_ident(attname) || ' DESC', ', ' ORDER BY spot), 'tenant_id') AS backwards,
            -- A key of tenant_id alone has none of these: what is added to NULL is NULL, and left out.
            string_agg(
                '$2[' || spot || ']::' || format_type(atttypid, atttypmod), ', ' ORDER BY spot) AS bounds
        FROM tenant_table
        JOIN pg_index ON indrelid = format('public.%I', tenant_table.name)::regclass AND indisprimary
        -- The key begins with tenant_id: the second column is the first that tells rows apart.
        LEFT JOIN (
            SELECT attrelid, attname, attnum, atttypid, atttypmod FROM pg_attribute
        ) AS attribute ON attrelid = indrelid AND attnum = ANY (indkey) AND attname <> 'tenant_id'
        LEFT JOIN LATERAL (SELECT array_position(indkey::int2[], attnum) AS spot) AS positions ON true
        WHERE number >= coalesce(
            (SELECT first.number FROM tenant_table AS first WHERE first.name = place[1]), 1)
        GROUP BY tenant_table.name, number
        ORDER BY number
    LOOP
        bound := CASE
            WHEN listed.name = place[1] AND listed.bounds IS NOT NULL
                THEN format('AND (%s) > (%s)', listed.columns, listed.bounds)
            ELSE ''
        END;
        EXECUTE format(
            'WITH doomed AS MATERIALIZED ('
            '    SELECT ctid AS row_place, %2$s FROM public.%1$I WHERE tenant_id = $1 %3$s ORDER BY %2$s LIMIT $3'
            '), gone AS ('
            '    DELETE FROM public.%1$I WHERE tenant_id = $1 AND ctid = ANY (ARRAY(SELECT row_place FROM doomed))'
            ') SELECT count(*), (SELECT ARRAY[%4$s]::text[] FROM doomed ORDER BY %5$s LIMIT 1) FROM doomed',
            listed.name, listed.columns, bound, listed.texts, listed.backwards)
        INTO gone, last
        USING tenant, place[2:], batch - removed;
        removed := removed + gone;
        IF removed >= batch THEN
            next := array_prepend(listed.name, last);
            RETURN;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION hc_purge_from(uuid, integer, text[]) IS
    'Removes a batch of a clinic''s rows from a shard that does not serve it, and says where the next one begins.';

CREATE OR REPLACE FUNCTION hc_purge(tenant uuid, batch integer) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT removed FROM public.hc_purge_from(tenant, batch, NULL)
$$;

GRANT EXECUTE ON FUNCTION hc_purge_from(uuid, integer, text[]) TO hc_mover;
