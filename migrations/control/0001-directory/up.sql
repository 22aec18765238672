-- The schema of the control database: where clinics live, what they may use, who changed it.
-- Run by hc_owner, in one transaction.

ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO hc_control, hc_router;

------------------------------------------------------------------------------------------------
-- Schema ledger

CREATE TABLE hc_schema (
    version     integer     PRIMARY KEY CHECK (version > 0),
    name        text        NOT NULL,
    checksum    text        NOT NULL,
    fingerprint text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE hc_schema IS 'Migrations applied to this database, one row each, written in the migration''s own transaction.';
COMMENT ON COLUMN hc_schema.version IS 'The number at the head of the file name.';
COMMENT ON COLUMN hc_schema.name IS 'The file name without number and extension.';
COMMENT ON COLUMN hc_schema.checksum IS 'SHA-256 of the file, hex.';
COMMENT ON COLUMN hc_schema.fingerprint IS 'hc_schema_fingerprint() after the migration.';

------------------------------------------------------------------------------------------------
-- Shards, tiers, clinics

CREATE TABLE shard (
    id                 text        PRIMARY KEY CHECK (id ~ '^[a-z][a-z0-9-]{0,30}$'),
    dsn_ref            text        NOT NULL UNIQUE CHECK (dsn_ref ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    system_id          text        NOT NULL,
    timeline           integer     NOT NULL CHECK (timeline > 0),
    database_oid       bigint      NOT NULL CHECK (database_oid > 0),
    database_name      text        NOT NULL,
    state              text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'draining', 'closed')),
    weight             integer     NOT NULL DEFAULT 100 CHECK (weight BETWEEN 0 AND 10000),
    capacity           integer     NOT NULL DEFAULT 1000 CHECK (capacity >= 0),
    connection_limit   integer     NOT NULL DEFAULT 100 CHECK (connection_limit > 0),
    labels             jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(labels) = 'object'),
    schema_version     integer     NOT NULL DEFAULT 0,
    schema_fingerprint text        NOT NULL DEFAULT '',
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    UNIQUE (system_id, database_oid)
);
COMMENT ON TABLE shard IS 'Databases that hold clinics.';
COMMENT ON COLUMN shard.id IS 'Also the prefix of the shard''s Redis keys.';
COMMENT ON COLUMN shard.dsn_ref IS 'Names the files <secrets>/shards/<ref>.<role>.conninfo; no address and no password is kept here.';
COMMENT ON COLUMN shard.system_id IS 'PostgreSQL system identifier: the identity that a connection must prove.';
COMMENT ON COLUMN shard.timeline IS 'PostgreSQL timeline: grows with each fail-over.';
COMMENT ON COLUMN shard.database_oid IS 'With system_id: one database is one shard.';
COMMENT ON COLUMN shard.state IS 'open: takes clinics. draining: keeps those it has. closed: has none.';
COMMENT ON COLUMN shard.weight IS 'Share of new clinics, relative to other shards; 0: none.';
COMMENT ON COLUMN shard.capacity IS 'Most clinics it may hold.';
COMMENT ON COLUMN shard.connection_limit IS 'Most connections that all processes together may hold to it.';
COMMENT ON COLUMN shard.schema_version IS 'Highest migration applied, as last seen.';
COMMENT ON COLUMN shard.schema_fingerprint IS 'hc_schema_fingerprint() of the shard, as last seen.';

CREATE TABLE tier (
    name       text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,30}$'),
    definition jsonb       NOT NULL CHECK (jsonb_typeof(definition) = 'object'),
    version    bigint      NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tier IS 'What a clinic may use: written by `hc-admin tier apply` from tenants/tiers.json.';
COMMENT ON COLUMN tier.definition IS 'The tier as in the file.';
COMMENT ON COLUMN tier.version IS 'Counts changes.';

CREATE TABLE tenant (
    id         uuid        PRIMARY KEY,
    slug       text        NOT NULL CHECK (slug ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$' AND slug !~ '--'),
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    tier       text        NOT NULL REFERENCES tier (name),
    state      text        NOT NULL CHECK (state IN (
        'provisioning', 'active', 'readonly', 'suspended', 'deleting', 'deleted', 'erased')),
    time_zone  text        NOT NULL DEFAULT 'UTC' CHECK (length(time_zone) BETWEEN 1 AND 64),
    locale     text        NOT NULL DEFAULT 'en' CHECK (length(locale) BETWEEN 2 AND 35),
    version    bigint      NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
COMMENT ON TABLE tenant IS 'Clinics.';
COMMENT ON COLUMN tenant.slug IS 'DNS label: the clinic''s name in hosts and on the command line.';
COMMENT ON COLUMN tenant.state IS 'deleted can be restored, erased cannot: its keys are shredded.';
COMMENT ON COLUMN tenant.version IS 'Counts changes.';
CREATE UNIQUE INDEX tenant_slug ON tenant (slug) WHERE state <> 'erased';

CREATE TABLE placement (
    tenant_id  uuid        PRIMARY KEY REFERENCES tenant (id) ON DELETE CASCADE,
    shard_id   text        NOT NULL REFERENCES shard (id),
    epoch      bigint      NOT NULL DEFAULT 1 CHECK (epoch > 0),
    state      text        NOT NULL DEFAULT 'opening' CHECK (state IN ('opening', 'serving', 'moving', 'closed')),
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE placement IS 'Which shard serves a clinic: the truth. Changed by compare-and-swap only: placement_swap().';
COMMENT ON COLUMN placement.epoch IS 'Grows by one whenever the shard changes, and then only; the shard checks it in hc_enter().';
COMMENT ON COLUMN placement.state IS 'opening: being made. serving. moving: served by shard_id while a move runs. closed: deleted.';
CREATE INDEX placement_shard ON placement (shard_id);

CREATE TABLE domain (
    host        text        PRIMARY KEY CHECK (host = lower(host) AND length(host) BETWEEN 1 AND 253),
    tenant_id   uuid        NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    kind        text        NOT NULL CHECK (kind IN ('platform', 'custom')),
    challenge   text,
    verified_at timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE domain IS 'Hostnames of clinics. Only verified ones are routed.';
COMMENT ON COLUMN domain.host IS 'Lower case, without port; internationalised names in A-label form.';
COMMENT ON COLUMN domain.kind IS 'platform: <slug>.<base domain>. custom: the clinic''s own.';
COMMENT ON COLUMN domain.challenge IS 'What the clinic must publish to prove that a custom name is its own.';
CREATE INDEX domain_tenant ON domain (tenant_id);

CREATE TABLE tenant_key (
    tenant_id        uuid        NOT NULL REFERENCES tenant (id) ON DELETE CASCADE,
    purpose          text        NOT NULL CHECK (purpose IN ('kek', 'data', 'index')),
    version          integer     NOT NULL CHECK (version > 0),
    master_key_id    text,
    wrapping_version integer,
    wrapped          bytea,
    state            text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'retired', 'destroyed')),
    created_at       timestamptz NOT NULL DEFAULT now(),
    destroyed_at     timestamptz,
    PRIMARY KEY (tenant_id, purpose, version),
    CHECK ((purpose = 'kek') = (master_key_id IS NOT NULL)),
    CHECK ((purpose = 'kek') = (wrapping_version IS NULL)),
    CHECK ((state = 'destroyed') = (wrapped IS NULL)),
    CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL))
);
COMMENT ON TABLE tenant_key IS 'Wrapped keys of clinics: never on a shard, so a shard''s backup does not open itself.';
COMMENT ON COLUMN tenant_key.purpose IS 'kek wraps the others; data seals columns; index makes blind indexes.';
COMMENT ON COLUMN tenant_key.master_key_id IS 'The master key that wraps a kek.';
COMMENT ON COLUMN tenant_key.wrapping_version IS 'The version of the kek that wraps a data or index key.';
COMMENT ON COLUMN tenant_key.state IS 'active: one per purpose, used to seal. retired: opens what it sealed. destroyed: the wrapped key is gone.';
CREATE UNIQUE INDEX tenant_key_active ON tenant_key (tenant_id, purpose) WHERE state = 'active';

------------------------------------------------------------------------------------------------
-- The feed that every process follows

CREATE TABLE placement_version (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version   bigint  NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE placement_version IS 'One row: the last version of placement_log. Its lock, held until commit, makes versions commit in order.';
INSERT INTO placement_version (version) VALUES (0);

CREATE TABLE placement_log (
    version   bigint      PRIMARY KEY,
    kind      text        NOT NULL CHECK (kind IN ('placement', 'tenant', 'domain', 'tier', 'keys', 'shard')),
    tenant_id uuid,
    shard_id  text,
    epoch     bigint,
    state     text,
    subject   text,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((kind IN ('placement', 'tenant', 'domain', 'keys')) = (tenant_id IS NOT NULL))
);
COMMENT ON TABLE placement_log IS 'What changed, in commit order and without gaps: whoever finds that the next version is missing reads directory_entry anew.';
COMMENT ON COLUMN placement_log.kind IS 'What to read again: the tenant''s row of directory_entry, the shard, or every tenant of a tier.';
COMMENT ON COLUMN placement_log.subject IS 'The host, the tier, or purpose/version of the key.';

-- Adds a line to the feed. Called by deferred triggers, so that the counter is locked at the very
-- end of the transaction only, and no transaction that changes the directory can forget it.
CREATE FUNCTION placement_log_append() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    change jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    line   public.placement_log;
BEGIN
    line.kind := TG_ARGV[0];
    line.tenant_id := CASE line.kind
        WHEN 'tenant' THEN change ->> 'id'
        WHEN 'placement' THEN change ->> 'tenant_id'
        WHEN 'domain' THEN change ->> 'tenant_id'
        WHEN 'keys' THEN change ->> 'tenant_id'
    END;
    line.shard_id := CASE line.kind
        WHEN 'shard' THEN change ->> 'id'
        WHEN 'placement' THEN change ->> 'shard_id'
    END;
    line.epoch := CASE line.kind WHEN 'placement' THEN change ->> 'epoch' END;
    line.state := CASE WHEN TG_OP = 'DELETE' THEN 'removed' ELSE change ->> 'state' END;
    line.subject := CASE line.kind
        WHEN 'domain' THEN change ->> 'host'
        WHEN 'tier' THEN change ->> 'name'
        WHEN 'keys' THEN (change ->> 'purpose') || '/' || (change ->> 'version')
    END;
    UPDATE public.placement_version SET version = version + 1 RETURNING version INTO line.version;
    line.at := clock_timestamp();
    INSERT INTO public.placement_log VALUES (line.*);
    PERFORM pg_notify('hc_placement', line.version::text);
    RETURN NULL;
END
$$;

DO $$
DECLARE
    followed record;
BEGIN
    FOR followed IN
        SELECT *
        FROM (VALUES
            ('placement', 'placement'), ('tenant', 'tenant'), ('domain', 'domain'), ('tier', 'tier'),
            ('tenant_key', 'keys'), ('shard', 'shard')
        ) AS source (relation, kind)
    LOOP
        EXECUTE format(
            'CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON %I '
            'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION placement_log_append(%L)',
            followed.relation, followed.kind);
        EXECUTE format(
            'CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON %I '
            'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) '
            'EXECUTE FUNCTION placement_log_append(%L)',
            followed.relation, followed.kind);
    END LOOP;
END
$$;

-- Placements change shard and epoch together, one step at a time; a row dies only with a clinic that
-- was never opened.
CREATE FUNCTION placement_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'opening' THEN
            RAISE EXCEPTION USING
                ERRCODE = 'integrity_constraint_violation',
                MESSAGE = 'the placement of a clinic that was opened is kept';
        END IF;
        RETURN OLD;
    END IF;
    IF NEW.tenant_id <> OLD.tenant_id
        OR NEW.epoch <> OLD.epoch + (NEW.shard_id <> OLD.shard_id)::integer THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            MESSAGE = 'the epoch of a placement grows by one with a change of shard, and only then';
    END IF;
    IF NEW.state = 'opening' AND OLD.state <> 'opening' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            MESSAGE = 'a placement is opened once';
    END IF;
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER placement_guard BEFORE UPDATE OR DELETE ON placement
    FOR EACH ROW EXECUTE FUNCTION placement_guard();

-- Compare-and-swap: gives the clinic `shard` and `state` if its placement still is at
-- `expected_epoch` and in `expected_state`. Returns the epoch from then on, NULL if it was not.
CREATE FUNCTION placement_swap(
    tenant uuid, expected_epoch bigint, expected_state text, shard text, new_state text
) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    UPDATE public.placement
    SET shard_id = shard,
        epoch = epoch + (shard_id <> shard)::integer,
        state = new_state
    WHERE tenant_id = tenant AND epoch = expected_epoch AND state = expected_state
    RETURNING epoch
$$;

-- Everything a router needs of a clinic, in one row. Deleted and erased clinics have none.
CREATE VIEW directory_entry AS
SELECT
    tenant.id              AS tenant_id,
    tenant.slug            AS slug,
    tenant.name            AS name,
    tenant.state           AS tenant_state,
    tenant.time_zone       AS time_zone,
    tenant.locale          AS locale,
    placement.shard_id     AS shard_id,
    placement.epoch        AS epoch,
    placement.state        AS placement_state,
    shard.dsn_ref          AS dsn_ref,
    shard.state            AS shard_state,
    tier.name              AS tier,
    tier.version           AS tier_version,
    tier.definition        AS tier_definition,
    coalesce((
        SELECT jsonb_agg(domain.host ORDER BY domain.kind DESC, domain.host)
        FROM domain
        WHERE domain.tenant_id = tenant.id AND domain.verified_at IS NOT NULL
    ), '[]')               AS hosts,
    coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'purpose', tenant_key.purpose,
            'version', tenant_key.version,
            'state', tenant_key.state,
            'masterKeyId', tenant_key.master_key_id,
            'wrappingVersion', tenant_key.wrapping_version,
            'wrapped', encode(tenant_key.wrapped, 'hex')
        ) ORDER BY tenant_key.purpose, tenant_key.version)
        FROM tenant_key
        WHERE tenant_key.tenant_id = tenant.id AND tenant_key.state <> 'destroyed'
    ), '[]')               AS keys
FROM tenant
JOIN placement ON placement.tenant_id = tenant.id
JOIN shard ON shard.id = placement.shard_id
JOIN tier ON tier.name = tenant.tier
WHERE tenant.state NOT IN ('deleted', 'erased');
COMMENT ON VIEW directory_entry IS 'What a router knows of a clinic. hosts: array of strings, platform hosts first; keys: array of objects, wrapped in hex.';

------------------------------------------------------------------------------------------------
-- Work in progress

CREATE TABLE move (
    id              uuid        PRIMARY KEY,
    tenant_id       uuid        NOT NULL REFERENCES tenant (id),
    source_shard    text        NOT NULL REFERENCES shard (id),
    target_shard    text        NOT NULL REFERENCES shard (id),
    state           text        NOT NULL CHECK (state IN (
        'running', 'aborting', 'soaking', 'done', 'aborted', 'reverted', 'failed')),
    step            text        NOT NULL,
    attempt         bigint      NOT NULL DEFAULT 1 CHECK (attempt > 0),
    lease_owner     text,
    lease_until     timestamptz,
    source_identity jsonb       NOT NULL DEFAULT '{}',
    target_identity jsonb       NOT NULL DEFAULT '{}',
    progress        jsonb       NOT NULL DEFAULT '{}',
    error           text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    finished_at     timestamptz,
    CHECK (source_shard <> target_shard)
);
COMMENT ON TABLE move IS 'Moves of clinics between shards: each step is a compare-and-swap on this row.';
COMMENT ON COLUMN move.attempt IS 'Grows when another process takes over; a mover with a smaller number is a zombie.';
COMMENT ON COLUMN move.lease_owner IS 'The process that carries the move on until lease_until.';
COMMENT ON COLUMN move.source_identity IS 'System identifier, timeline and database at the start: a change aborts the move.';
COMMENT ON COLUMN move.progress IS 'Slots, barriers, checksums: what a successor needs to carry on.';
CREATE UNIQUE INDEX move_running ON move (tenant_id) WHERE state IN ('running', 'aborting', 'soaking');

CREATE TABLE migration_run (
    id                 uuid        PRIMARY KEY,
    database           text        NOT NULL CHECK (database IN ('control', 'shard')),
    shard_id           text        REFERENCES shard (id),
    version            integer     NOT NULL CHECK (version > 0),
    name               text        NOT NULL,
    checksum           text        NOT NULL,
    wave               integer     NOT NULL DEFAULT 0,
    state              text        NOT NULL CHECK (state IN ('running', 'done', 'failed', 'halted')),
    fingerprint_before text,
    fingerprint_after  text,
    error              text,
    started_at         timestamptz NOT NULL DEFAULT now(),
    finished_at        timestamptz,
    CHECK ((database = 'shard') = (shard_id IS NOT NULL))
);
COMMENT ON TABLE migration_run IS 'History of migrations, one row per database and migration. What is applied says the ledger of the database itself.';
COMMENT ON COLUMN migration_run.wave IS '0: canary, then the following waves.';
CREATE INDEX migration_run_target ON migration_run (database, shard_id, version);

------------------------------------------------------------------------------------------------
-- Operators and what they did

CREATE TABLE operator (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9._-]{0,62}$'),
    token_hash  bytea       CHECK (length(token_hash) = 32),
    roles       text[]      NOT NULL DEFAULT '{}',
    created_at  timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON TABLE operator IS 'Those who run the platform.';
COMMENT ON COLUMN operator.token_hash IS 'SHA-256 of the token of the web console; NULL: command line only.';

CREATE TABLE operator_audit (
    seq           bigint      PRIMARY KEY,
    at            timestamptz NOT NULL,
    operator_id   uuid        REFERENCES operator (id),
    operator_name text        NOT NULL CHECK (operator_name <> ''),
    action        text        NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    subject       text        NOT NULL DEFAULT '' CHECK (length(subject) <= 300),
    outcome       text        NOT NULL CHECK (outcome IN ('success', 'denied', 'failure')),
    detail        jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(detail) = 'object'),
    previous_hash bytea       NOT NULL,
    hash          bytea       NOT NULL
);
COMMENT ON TABLE operator_audit IS 'Operator actions, a hash chain. INSERT without seq, at, previous_hash and hash: a trigger gives them.';
COMMENT ON COLUMN operator_audit.seq IS 'From 1, without gaps.';
COMMENT ON COLUMN operator_audit.operator_name IS 'Name of the operator, or of the system user who ran the command.';
COMMENT ON COLUMN operator_audit.subject IS 'What was acted upon: a slug, a shard, a key.';
COMMENT ON COLUMN operator_audit.previous_hash IS 'hash of the row before; 32 zero bytes before the first.';
COMMENT ON COLUMN operator_audit.hash IS 'operator_audit_hash() of the row.';

CREATE TABLE operator_audit_head (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seq       bigint  NOT NULL,
    hash      bytea   NOT NULL CHECK (length(hash) = 32)
) WITH (fillfactor = 10);
COMMENT ON TABLE operator_audit_head IS 'One row: the end of the chain. Its lock orders the chain; what it says is missed if rows are cut off.';
INSERT INTO operator_audit_head (seq, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

-- One field of a record as bytes that no other sequence of fields shares: its length and content.
CREATE FUNCTION operator_audit_field(value text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN value IS NULL THEN pg_catalog.int4send(-1)
        ELSE pg_catalog.int4send(pg_catalog.octet_length(pg_catalog.convert_to(value, 'UTF8')))
            || pg_catalog.convert_to(value, 'UTF8')
    END;

-- SHA-256(previous_hash ‖ fields), where a field is its length (4 bytes, big-endian; -1 for NULL) and
-- its UTF-8 text, and the fields are seq, at (microseconds since 1970-01-01 UTC), operator_id,
-- operator_name, action, subject, outcome, detail (as PostgreSQL prints jsonb).
CREATE FUNCTION operator_audit_hash(line operator_audit) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT sha256(
        line.previous_hash
        || operator_audit_field(line.seq::text)
        || operator_audit_field((extract(epoch FROM line.at) * 1000000)::bigint::text)
        || operator_audit_field(line.operator_id::text)
        || operator_audit_field(line.operator_name)
        || operator_audit_field(line.action)
        || operator_audit_field(line.subject)
        || operator_audit_field(line.outcome)
        || operator_audit_field(line.detail::text))
$$;

CREATE FUNCTION operator_audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    SELECT seq + 1, hash INTO STRICT NEW.seq, NEW.previous_hash
    FROM public.operator_audit_head FOR UPDATE;
    NEW.at := clock_timestamp();
    NEW.hash := public.operator_audit_hash(NEW);
    UPDATE public.operator_audit_head SET seq = NEW.seq, hash = NEW.hash;
    RETURN NEW;
END
$$;
CREATE TRIGGER operator_audit_chain BEFORE INSERT ON operator_audit
    FOR EACH ROW EXECUTE FUNCTION operator_audit_chain();

CREATE FUNCTION hc_append_only() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('rows of %s can only be added', TG_TABLE_NAME);
END
$$;
CREATE TRIGGER operator_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON operator_audit
    FOR EACH STATEMENT EXECUTE FUNCTION hc_append_only();
ALTER TABLE operator_audit ENABLE ALWAYS TRIGGER operator_audit_append_only;

------------------------------------------------------------------------------------------------
-- Fingerprint: as on the shards

-- SHA-256 over everything in schema public that a migration can change: equal on two databases if
-- their schemas are equal, whatever the order of creation. Extensions count by name only.
CREATE FUNCTION hc_schema_fingerprint() RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH extension_member AS (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    ),
    relation AS (
        SELECT class.*
        FROM pg_class class
        WHERE class.relnamespace = 'public'::regnamespace
            AND NOT EXISTS (
                SELECT FROM extension_member
                WHERE classid = 'pg_class'::regclass AND objid = class.oid)
    ),
    fact (line) AS (
        SELECT format('relation %s %s %s %s %s %s', relname, relkind, pg_get_userbyid(relowner),
            relrowsecurity, relforcerowsecurity, reloptions)
        FROM relation WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL
        SELECT format('view %s %s', relname, pg_get_viewdef(oid))
        FROM relation WHERE relkind IN ('v', 'm')
        UNION ALL
        SELECT format('column %s %s %s %s %s %s', relname, attname,
            format_type(atttypid, atttypmod), attnotnull, attidentity::text || attgenerated::text,
            pg_get_expr(adbin, adrelid))
        FROM relation
        JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
        UNION ALL
        SELECT format('constraint %s %s %s %s', relname, conname, convalidated,
            pg_get_constraintdef(pg_constraint.oid))
        FROM relation JOIN pg_constraint ON conrelid = relation.oid
        UNION ALL
        SELECT format('index %s %s %s', indisvalid, indisreplident, pg_get_indexdef(indexrelid))
        FROM relation JOIN pg_index ON indrelid = relation.oid
        UNION ALL
        SELECT format('policy %s %s %s %s %s %s %s', relname, polname, polpermissive, polcmd,
            (SELECT string_agg(coalesce(rolname, 'public'), ',' ORDER BY rolname)
                FROM unnest(polroles) AS role LEFT JOIN pg_roles ON pg_roles.oid = role),
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
        FROM relation JOIN pg_policy ON polrelid = relation.oid
        UNION ALL
        SELECT format('trigger %s %s %s', relname, tgenabled, pg_get_triggerdef(pg_trigger.oid))
        FROM relation JOIN pg_trigger ON tgrelid = relation.oid AND NOT tgisinternal
        UNION ALL
        SELECT format('grant %s %s %s', relname, grant_entry.privilege_type,
            pg_get_userbyid(grant_entry.grantee))
        FROM relation, aclexplode(relacl) AS grant_entry
        UNION ALL
        SELECT format('function %s %s', pg_get_functiondef(pg_proc.oid), (
            SELECT string_agg(pg_get_userbyid(grant_entry.grantee), ',' ORDER BY grant_entry.grantee::regrole::text)
            FROM aclexplode(proacl) AS grant_entry))
        FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prokind IN ('f', 'p')
            AND NOT EXISTS (
                SELECT FROM extension_member
                WHERE classid = 'pg_proc'::regclass AND objid = pg_proc.oid)
        UNION ALL
        SELECT format('extension %s', extname) FROM pg_extension
    )
    SELECT encode(sha256(convert_to(string_agg(line, E'\n' ORDER BY line COLLATE "C"), 'UTF8')), 'hex')
    FROM fact
$$;

------------------------------------------------------------------------------------------------
-- Rights. TRUNCATE, REFERENCES and TRIGGER are granted to nobody. The feed is written by its
-- triggers only.

GRANT SELECT ON hc_schema, placement_version, placement_log, directory_entry, operator_audit_head TO hc_control;
GRANT SELECT, INSERT, UPDATE ON shard, tier, migration_run, operator, move TO hc_control;
GRANT SELECT, INSERT, UPDATE, DELETE ON tenant, placement, domain, tenant_key TO hc_control;
GRANT SELECT, INSERT ON operator_audit TO hc_control;
GRANT EXECUTE ON FUNCTION
    placement_swap(uuid, bigint, text, text, text), operator_audit_hash(operator_audit),
    operator_audit_field(text), hc_schema_fingerprint() TO hc_control;

GRANT SELECT ON hc_schema, shard, tier, placement_version, placement_log, directory_entry TO hc_router;
