-- What clinics use, as the samples of all shards have shown it: `hc-admin rebalance collect`.
-- Run by hc_owner, in one transaction.

CREATE TABLE tenant_load (
    tenant_id    uuid        PRIMARY KEY REFERENCES tenant (id) ON DELETE CASCADE,
    shard_id     text        NOT NULL REFERENCES shard (id),
    sampled_at   timestamptz NOT NULL,
    seen_seconds bigint      NOT NULL CHECK (seen_seconds >= 0),
    week         bigint      NOT NULL,
    loads        bytea       NOT NULL CHECK (length(loads) = 192),
    counted      bytea       NOT NULL CHECK (length(counted) = 32),
    rows_stored  bigint      NOT NULL CHECK (rows_stored >= 0)
);
COMMENT ON TABLE tenant_load IS 'Averages and peaks of what each clinic uses, and the counters from which the next sample goes on.';
COMMENT ON COLUMN tenant_load.shard_id IS 'Where the counters were read: at another shard they begin anew.';
COMMENT ON COLUMN tenant_load.seen_seconds IS 'For how long it has been observed.';
COMMENT ON COLUMN tenant_load.week IS 'The week, since 1970, to which the present peak belongs.';
COMMENT ON COLUMN tenant_load.loads IS 'Doubles (big-endian): average of the hour, of the day, peak of the week and of the one before; each execution, rows, wal, pool, disk, connections.';
COMMENT ON COLUMN tenant_load.counted IS 'hc_load as last read (big-endian integers): execution_us, pool_us, rows_all, rows_changed.';
COMMENT ON COLUMN tenant_load.rows_stored IS 'Rows of its tables, as the statistics of the shard estimate them.';

CREATE TABLE shard_load (
    shard_id     text        PRIMARY KEY REFERENCES shard (id),
    sampled_at   timestamptz NOT NULL,
    timeline     integer     NOT NULL CHECK (timeline > 0),
    wal_position bigint      NOT NULL CHECK (wal_position >= 0)
);
COMMENT ON TABLE shard_load IS 'The last sample of each shard.';
COMMENT ON COLUMN shard_load.wal_position IS 'End of its log then, in bytes.';

GRANT SELECT, INSERT, UPDATE, DELETE ON tenant_load, shard_load TO hc_control;
