-- The streaming replicas of shards, from which routes that allow it read.
-- Run by hc_owner, in one transaction.
--
-- Older programs do not look at this table; newer ones need it, so the control database is migrated before them.

CREATE TABLE replica (
    shard_id         text        NOT NULL REFERENCES shard (id),
    name             text        NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,30}$'),
    dsn_ref          text        NOT NULL UNIQUE CHECK (dsn_ref ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    state            text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    weight           integer     NOT NULL DEFAULT 100 CHECK (weight BETWEEN 1 AND 10000),
    connection_limit integer     NOT NULL DEFAULT 100 CHECK (connection_limit > 0),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard_id, name)
);
COMMENT ON TABLE replica IS 'Streaming replicas of shards. Their identity is that of the shard: a connection to another cluster is refused.';
COMMENT ON COLUMN replica.name IS 'Unique in the shard; also what metrics call it.';
COMMENT ON COLUMN replica.dsn_ref IS 'Names the file <secrets>/shards/<ref>.app.conninfo; no address and no password is kept here.';
COMMENT ON COLUMN replica.state IS 'open: is read from while it is fresh. closed: is not.';
COMMENT ON COLUMN replica.weight IS 'Share of the reads, relative to the other replicas of the shard.';
COMMENT ON COLUMN replica.connection_limit IS 'Most connections that all processes together may hold to it.';

GRANT SELECT, INSERT, UPDATE, DELETE ON replica TO hc_control;
GRANT SELECT ON replica TO hc_router;

-- A change of a replica is a change of its shard: that is the line of the feed which every program understands.
CREATE FUNCTION replica_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    UPDATE public.shard SET updated_at = clock_timestamp()
    WHERE id IN (CASE WHEN TG_OP <> 'INSERT' THEN OLD.shard_id END,
        CASE WHEN TG_OP <> 'DELETE' THEN NEW.shard_id END);
    RETURN NULL;
END
$$;
CREATE TRIGGER directory_feed AFTER INSERT OR DELETE ON replica
    FOR EACH ROW EXECUTE FUNCTION replica_changed();
CREATE TRIGGER directory_feed_update AFTER UPDATE ON replica
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION replica_changed();
