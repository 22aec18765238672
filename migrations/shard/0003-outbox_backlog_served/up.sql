-- The backlog names only clinics whose messages can be relayed from here.
--
-- A clinic that has moved away leaves copies of its rows until it is purged, and a suspended or fenced one lets nobody
-- delete: they would stand first in the list for as long as that lasts, and hide those behind them.

CREATE OR REPLACE FUNCTION hc_outbox_backlog(age interval, row_limit integer)
    RETURNS TABLE (clinic uuid, waiting bigint, oldest timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT tenant_id, count(*), min(created_at)
    FROM (
        SELECT tenant_id, created_at
        FROM public.outbox
        WHERE created_at < now() - age AND EXISTS (
            SELECT FROM public.hc_tenant
            WHERE hc_tenant.tenant_id = outbox.tenant_id AND state = 'rw')
        ORDER BY created_at
        LIMIT row_limit
    ) AS late
    GROUP BY tenant_id
    ORDER BY min(created_at)
$$;
