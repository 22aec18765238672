-- Removing rows in small batches: what a batch has to know is looked up for the table whose turn it is, and the list of all
-- tables only where one ends. To ask the catalogue about all of them took each batch as long as removing 500 rows.

-- Removes up to `batch` rows of a clinic that is not served here, table by table, each in the order of its key.
--
-- `place` is the `next` of the batch before, NULL for the first: the table, and the key of the last row that went.
-- `next` is NULL when the last table's end was reached.
CREATE OR REPLACE FUNCTION hc_purge_from(
    tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]
)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
    -- By the key's index in any case: to sort what is left would read all of it for each batch.
    SET enable_sort = off
AS $$
DECLARE
    -- The table whose turn it is, and those that come after it; NULL while that was not asked.
    name   text := place[1];
    later  text[];
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
    LOOP
        -- One that was dropped between two batches has nothing left.
        IF to_regclass('public.' || quote_ident(name)) IS NOT NULL THEN
            SELECT
                coalesce(string_agg(quote_ident(attname), ', ' ORDER BY spot), 'tenant_id') AS columns,
                coalesce(string_agg(quote_ident(attname) || '::text', ', ' ORDER BY spot), '') AS texts,
                coalesce(string_agg(quote_ident(attname) || ' DESC', ', ' ORDER BY spot), 'tenant_id') AS backwards,
                -- A key of tenant_id alone has none of these: what is added to NULL is NULL, and left out.
                string_agg(
                    '$2[' || spot || ']::' || format_type(atttypid, atttypmod), ', ' ORDER BY spot) AS bounds
            INTO STRICT listed
            FROM pg_index
            JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey) AND attname <> 'tenant_id'
            -- The key begins with tenant_id: the second column is the first that tells rows apart.
            CROSS JOIN LATERAL (SELECT array_position(indkey::int2[], attnum) AS spot) AS positions
            WHERE indrelid = to_regclass('public.' || quote_ident(name)) AND indisprimary;
            bound := CASE
                WHEN name = place[1] AND listed.bounds IS NOT NULL
                    THEN format('AND (%s) > (%s)', listed.columns, listed.bounds)
                ELSE ''
            END;
            EXECUTE format(
                'WITH doomed AS MATERIALIZED ('
                '    SELECT ctid AS row_place, %2$s FROM public.%1$I WHERE tenant_id = $1 %3$s ORDER BY %2$s LIMIT $3'
                '), gone AS ('
                '    DELETE FROM public.%1$I WHERE tenant_id = $1 AND ctid = ANY (ARRAY(SELECT row_place FROM doomed))'
                ') SELECT count(*), (SELECT ARRAY[%4$s]::text[] FROM doomed ORDER BY %5$s LIMIT 1) FROM doomed',
                name, listed.columns, bound, listed.texts, listed.backwards)
            INTO gone, last
            USING tenant, place[2:], batch - removed;
            removed := removed + gone;
            IF removed >= batch THEN
                next := array_prepend(name, last);
                RETURN;
            END IF;
        END IF;
        IF later IS NULL THEN
            later := ARRAY(SELECT public.hc_tenant_tables());
            later := later[coalesce(array_position(later, name) + 1, 1):];
        END IF;
        EXIT WHEN cardinality(later) = 0;
        name := later[1];
        later := later[2:];
    END LOOP;
END
$$;
