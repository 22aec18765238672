-- Moves of clinics between shards: what is recorded of each, by compare-and-swap.
-- Run by hc_owner, in one transaction.

ALTER TABLE move
    ADD COLUMN direction       text        NOT NULL DEFAULT 'forward' CHECK (direction IN ('forward', 'back')),
    ADD COLUMN epoch           bigint      NOT NULL DEFAULT 1 CHECK (epoch > 0),
    ADD COLUMN abort_requested boolean     NOT NULL DEFAULT false,
    ADD COLUMN options         jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
    ADD COLUMN reason          text        CHECK (length(reason) <= 500),
    ADD COLUMN operator_name   text        NOT NULL DEFAULT '',
    ADD COLUMN soak_until      timestamptz,
    ADD COLUMN manifest        jsonb;
COMMENT ON COLUMN move.attempt IS 'Grows when another process takes over, and where a pause begins or is broken off: what comes with a smaller number is late.';
COMMENT ON COLUMN move.direction IS 'forward: from source_shard to target_shard. back: it was reverted, from target_shard to source_shard.';
COMMENT ON COLUMN move.epoch IS 'Placement epoch of the clinic when the move, or its way back, began.';
COMMENT ON COLUMN move.abort_requested IS 'Somebody wants it undone: the commit point refuses from then on.';
COMMENT ON COLUMN move.soak_until IS 'When the way back is given up and the rows left behind are purged.';
COMMENT ON COLUMN move.manifest IS 'What was moved and how it was verified, signed.';
CREATE INDEX move_by_time ON move (created_at DESC, id DESC);

CREATE TABLE move_object (
    move_id    uuid        NOT NULL REFERENCES move (id),
    shard_id   text        NOT NULL REFERENCES shard (id),
    kind       text        NOT NULL CHECK (kind IN ('publication', 'slot', 'subscription')),
    name       text        NOT NULL CHECK (name ~ '^hc_[a-z0-9_]{1,60}$'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dropped_at timestamptz,
    PRIMARY KEY (shard_id, kind, name)
);
COMMENT ON TABLE move_object IS 'What a move has made on the shards, written before it is made: nothing can be left over that is not named here.';
COMMENT ON COLUMN move_object.dropped_at IS 'When it was seen to be gone.';
CREATE INDEX move_object_live ON move_object (move_id) WHERE dropped_at IS NULL;

GRANT SELECT, INSERT, UPDATE ON move_object TO hc_control;

-- Takes a move over whose process is gone: the attempt grows, and with it whatever the old process still does is
-- refused. NULL if somebody has it, or it needs nobody.
CREATE FUNCTION move_claim(which uuid, owner text, lease_ms bigint) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    UPDATE public.move
    SET attempt = attempt + 1, lease_owner = owner, lease_until = clock_timestamp() + lease_ms * interval '1 ms',
        updated_at = clock_timestamp()
    WHERE id = which AND state IN ('running', 'aborting', 'soaking')
        AND (lease_until IS NULL OR lease_until < clock_timestamp())
    RETURNING attempt
$$;

-- Keeps a move for longer. Returns whether its abort is wanted; NULL if it is somebody else's by now. By the owner and
-- not by the attempt: that grows within a lease, too.
CREATE FUNCTION move_renew(which uuid, owner text, lease_ms bigint) RETURNS boolean
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    UPDATE public.move SET lease_until = clock_timestamp() + lease_ms * interval '1 ms'
    WHERE id = which AND lease_owner = owner AND state IN ('running', 'aborting', 'soaking')
    RETURNING abort_requested
$$;

-- One step further, if the move is where the caller thinks it is, and still the caller's. Returns the attempt from now on:
-- each pause has one of its own, and so has what comes after a pause that was broken off, lest a statement of an earlier
-- one that is still on its way close or open a door.
CREATE FUNCTION move_advance(
    which uuid, mine bigint, from_step text, to_step text, to_state text, more jsonb
) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    UPDATE public.move
    SET step = to_step, attempt = attempt + CASE WHEN 'gating' IN (from_step, to_step) THEN 1 ELSE 0 END, state = to_state, progress = progress || more, updated_at = clock_timestamp(),
        finished_at = CASE WHEN to_state IN ('done', 'aborted', 'reverted', 'failed') THEN clock_timestamp() END,
        lease_until = CASE WHEN to_state IN ('done', 'aborted', 'reverted', 'failed') THEN NULL ELSE lease_until END
    WHERE id = which AND attempt = mine AND step = from_step AND state IN ('running', 'aborting', 'soaking')
    RETURNING attempt
$$;

-- The commit point: the clinic is the other shard's, and no abort can come any more. Raises HC010, and changes
-- nothing, if the move is not the caller's, is not in `from_step`, or is to be aborted.
CREATE FUNCTION move_commit(which uuid, mine bigint, from_step text, more jsonb) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    moving    public.move;
    new_epoch bigint;
BEGIN
    UPDATE public.move
    SET step = 'committed', progress = progress || more, updated_at = clock_timestamp()
    WHERE id = which AND attempt = mine AND step = from_step AND state = 'running' AND NOT abort_requested
    RETURNING * INTO moving;
    IF FOUND THEN
        new_epoch := public.placement_swap(
            moving.tenant_id, moving.epoch, 'moving',
            CASE moving.direction WHEN 'forward' THEN moving.target_shard ELSE moving.source_shard END,
            'serving');
    END IF;
    IF new_epoch IS DISTINCT FROM moving.epoch + 1 OR new_epoch IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'HC010',
            MESSAGE = 'the move is not this process'' to commit';
    END IF;
    RETURN new_epoch;
END
$$;

GRANT EXECUTE ON FUNCTION
    move_claim(uuid, text, bigint), move_renew(uuid, text, bigint),
    move_advance(uuid, bigint, text, text, text, jsonb), move_commit(uuid, bigint, text, jsonb) TO hc_control;
