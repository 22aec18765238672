-- What tells the relay where messages were left behind.
--
-- Whoever commits a message publishes it right away; a process that dies in between leaves a row, and with
-- row-level security nobody can see in which clinic. The sweeper asks this function, then enters each clinic
-- that it names like everybody else. It learns ids of clinics and counts, nothing that a row says.

CREATE INDEX outbox_age ON outbox (created_at);
COMMENT ON INDEX outbox_age IS 'Finds what is older than the sweeper''s patience; the table is nearly empty otherwise.';

-- For the function below, which runs as the owner: the rows have ids and versions only.
CREATE POLICY backlog ON outbox FOR SELECT TO hc_owner USING (true);

-- Clinics with messages older than `age`, those with the oldest first, among the oldest `row_limit` messages.
CREATE FUNCTION hc_outbox_backlog(age interval, row_limit integer)
    RETURNS TABLE (clinic uuid, waiting bigint, oldest timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT tenant_id, count(*), min(created_at)
    FROM (
        SELECT tenant_id, created_at
        FROM public.outbox
        WHERE created_at < now() - age
        ORDER BY created_at
        LIMIT row_limit
    ) AS late
    GROUP BY tenant_id
    ORDER BY min(created_at)
$$;
GRANT EXECUTE ON FUNCTION hc_outbox_backlog(interval, integer) TO hc_app;
