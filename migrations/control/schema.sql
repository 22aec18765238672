-- Everything that the migrations beside this file make together, as pg_dump tells it.
-- Written by 'hc-admin migrate schema --write' and never by hand; CI compares.

SET check_function_bodies = false;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE FUNCTION public.hc_append_only() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('rows of %s can only be added', TG_TABLE_NAME);
END
$$;

CREATE FUNCTION public.hc_schema_fingerprint() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
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

CREATE FUNCTION public.move_advance(which uuid, mine bigint, from_step text, to_step text, to_state text, more jsonb) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    UPDATE public.move
    SET step = to_step, attempt = attempt + CASE WHEN 'gating' IN (from_step, to_step) THEN 1 ELSE 0 END, state = to_state, progress = progress || more, updated_at = clock_timestamp(),
        finished_at = CASE WHEN to_state IN ('done', 'aborted', 'reverted', 'failed') THEN clock_timestamp() END,
        lease_until = CASE WHEN to_state IN ('done', 'aborted', 'reverted', 'failed') THEN NULL ELSE lease_until END
    WHERE id = which AND attempt = mine AND step = from_step AND state IN ('running', 'aborting', 'soaking')
    RETURNING attempt
$$;

CREATE FUNCTION public.move_claim(which uuid, owner text, lease_ms bigint) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    UPDATE public.move
    SET attempt = attempt + 1, lease_owner = owner, lease_until = clock_timestamp() + lease_ms * interval '1 ms',
        updated_at = clock_timestamp()
    WHERE id = which AND state IN ('running', 'aborting', 'soaking')
        AND (lease_until IS NULL OR lease_until < clock_timestamp())
    RETURNING attempt
$$;

CREATE FUNCTION public.move_commit(which uuid, mine bigint, from_step text, more jsonb) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.move_renew(which uuid, owner text, lease_ms bigint) RETURNS boolean
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    UPDATE public.move SET lease_until = clock_timestamp() + lease_ms * interval '1 ms'
    WHERE id = which AND lease_owner = owner AND state IN ('running', 'aborting', 'soaking')
    RETURNING abort_requested
$$;

CREATE FUNCTION public.operator_audit_chain() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.operator_audit_field(value text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (value IS NULL) THEN int4send('-1'::integer) ELSE (int4send(octet_length(convert_to(value, 'UTF8'::name))) || convert_to(value, 'UTF8'::name)) END;

CREATE TABLE public.operator_audit (
    seq bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    operator_id uuid,
    operator_name text NOT NULL,
    action text NOT NULL,
    subject text DEFAULT ''::text NOT NULL,
    outcome text NOT NULL,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL,
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT operator_audit_action_check CHECK (((length(action) >= 1) AND (length(action) <= 64))),
    CONSTRAINT operator_audit_detail_check CHECK ((jsonb_typeof(detail) = 'object'::text)),
    CONSTRAINT operator_audit_operator_name_check CHECK ((operator_name <> ''::text)),
    CONSTRAINT operator_audit_outcome_check CHECK ((outcome = ANY (ARRAY['success'::text, 'denied'::text, 'failure'::text]))),
    CONSTRAINT operator_audit_subject_check CHECK ((length(subject) <= 300))
);

COMMENT ON TABLE public.operator_audit IS 'Operator actions, a hash chain. INSERT without seq, at, previous_hash and hash: a trigger gives them.';

COMMENT ON COLUMN public.operator_audit.seq IS 'From 1, without gaps.';

COMMENT ON COLUMN public.operator_audit.operator_name IS 'Name of the operator, or of the system user who ran the command.';

COMMENT ON COLUMN public.operator_audit.subject IS 'What was acted upon: a slug, a shard, a key.';

COMMENT ON COLUMN public.operator_audit.previous_hash IS 'hash of the row before; 32 zero bytes before the first.';

COMMENT ON COLUMN public.operator_audit.hash IS 'operator_audit_hash() of the row.';

CREATE FUNCTION public.operator_audit_hash(line public.operator_audit) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.placement_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.placement_log_append() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.placement_swap(tenant uuid, expected_epoch bigint, expected_state text, shard text, new_state text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    UPDATE public.placement
    SET shard_id = shard,
        epoch = epoch + (shard_id <> shard)::integer,
        state = new_state
    WHERE tenant_id = tenant AND epoch = expected_epoch AND state = expected_state
    RETURNING epoch
$$;

CREATE FUNCTION public.program_process_leave(process uuid) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    DELETE FROM public.program_process WHERE id = process;
$$;

CREATE FUNCTION public.program_process_report(process uuid, called text, at_host text, pid integer, release text, control_from integer, control_to integer, shard_from integer, shard_to integer, started timestamp with time zone, refusals jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    DELETE FROM public.program_process WHERE seen_at < clock_timestamp() - interval '1 day';
    INSERT INTO public.program_process AS known (id, name, host, process_id, version, control_lowest,
        control_highest, shard_lowest, shard_highest, refused, started_at)
    VALUES (process, called, at_host, pid, release, control_from, control_to, shard_from, shard_to, refusals, started)
    ON CONFLICT (id) DO UPDATE
    SET refused = excluded.refused, control_lowest = excluded.control_lowest, control_highest = excluded.control_highest,
        shard_lowest = excluded.shard_lowest, shard_highest = excluded.shard_highest, seen_at = clock_timestamp();
$$;

CREATE FUNCTION public.replica_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    UPDATE public.shard SET updated_at = clock_timestamp()
    WHERE id IN (CASE WHEN TG_OP <> 'INSERT' THEN OLD.shard_id END,
        CASE WHEN TG_OP <> 'DELETE' THEN NEW.shard_id END);
    RETURN NULL;
END
$$;

CREATE TABLE public.domain (
    host text NOT NULL,
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    challenge text,
    verified_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT domain_host_check CHECK (((host = lower(host)) AND ((length(host) >= 1) AND (length(host) <= 253)))),
    CONSTRAINT domain_kind_check CHECK ((kind = ANY (ARRAY['platform'::text, 'custom'::text])))
);

COMMENT ON TABLE public.domain IS 'Hostnames of clinics. Only verified ones are routed.';

COMMENT ON COLUMN public.domain.host IS 'Lower case, without port; internationalised names in A-label form.';

COMMENT ON COLUMN public.domain.kind IS 'platform: <slug>.<base domain>. custom: the clinic''s own.';

COMMENT ON COLUMN public.domain.challenge IS 'What the clinic must publish to prove that a custom name is its own.';

CREATE TABLE public.placement (
    tenant_id uuid NOT NULL,
    shard_id text NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    state text DEFAULT 'opening'::text NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT placement_epoch_check CHECK ((epoch > 0)),
    CONSTRAINT placement_state_check CHECK ((state = ANY (ARRAY['opening'::text, 'serving'::text, 'moving'::text, 'closed'::text])))
);

COMMENT ON TABLE public.placement IS 'Which shard serves a clinic: the truth. Changed by compare-and-swap only: placement_swap().';

COMMENT ON COLUMN public.placement.epoch IS 'Grows by one whenever the shard changes, and then only; the shard checks it in hc_enter().';

COMMENT ON COLUMN public.placement.state IS 'opening: being made. serving. moving: served by shard_id while a move runs. closed: deleted.';

CREATE TABLE public.shard (
    id text NOT NULL,
    dsn_ref text NOT NULL,
    system_id text NOT NULL,
    timeline integer NOT NULL,
    database_oid bigint NOT NULL,
    database_name text NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    weight integer DEFAULT 100 NOT NULL,
    capacity integer DEFAULT 1000 NOT NULL,
    connection_limit integer DEFAULT 100 NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    schema_version integer DEFAULT 0 NOT NULL,
    schema_fingerprint text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    schema_serves_from integer DEFAULT 1 NOT NULL,
    CONSTRAINT shard_capacity_check CHECK ((capacity >= 0)),
    CONSTRAINT shard_connection_limit_check CHECK ((connection_limit > 0)),
    CONSTRAINT shard_database_oid_check CHECK ((database_oid > 0)),
    CONSTRAINT shard_dsn_ref_check CHECK ((dsn_ref ~ '^[a-z0-9][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT shard_id_check CHECK ((id ~ '^[a-z][a-z0-9-]{0,30}$'::text)),
    CONSTRAINT shard_labels_check CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT shard_state_check CHECK ((state = ANY (ARRAY['open'::text, 'draining'::text, 'closed'::text]))),
    CONSTRAINT shard_timeline_check CHECK ((timeline > 0)),
    CONSTRAINT shard_weight_check CHECK (((weight >= 0) AND (weight <= 10000)))
);

COMMENT ON TABLE public.shard IS 'Databases that hold clinics.';

COMMENT ON COLUMN public.shard.id IS 'Also the prefix of the shard''s Redis keys.';

COMMENT ON COLUMN public.shard.dsn_ref IS 'Names the files <secrets>/shards/<ref>.<role>.conninfo; no address and no password is kept here.';

COMMENT ON COLUMN public.shard.system_id IS 'PostgreSQL system identifier: the identity that a connection must prove.';

COMMENT ON COLUMN public.shard.timeline IS 'PostgreSQL timeline: grows with each fail-over.';

COMMENT ON COLUMN public.shard.database_oid IS 'With system_id: one database is one shard.';

COMMENT ON COLUMN public.shard.state IS 'open: takes clinics. draining: keeps those it has. closed: has none.';

COMMENT ON COLUMN public.shard.weight IS 'Share of new clinics, relative to other shards; 0: none.';

COMMENT ON COLUMN public.shard.capacity IS 'Most clinics it may hold.';

COMMENT ON COLUMN public.shard.connection_limit IS 'Most connections that all processes together may hold to it.';

COMMENT ON COLUMN public.shard.schema_version IS 'Highest migration applied, as last seen.';

COMMENT ON COLUMN public.shard.schema_fingerprint IS 'hc_schema_fingerprint() of the shard, as last seen.';

COMMENT ON COLUMN public.shard.schema_serves_from IS 'Highest serves_from of its ledger, as last seen.';

CREATE TABLE public.tenant (
    id uuid NOT NULL,
    slug text NOT NULL,
    name text NOT NULL,
    tier text,
    state text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    locale text DEFAULT 'en'::text NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    origins text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT tenant_has_tier CHECK (((tier IS NOT NULL) OR (state = 'erased'::text))),
    CONSTRAINT tenant_locale_check CHECK (((length(locale) >= 2) AND (length(locale) <= 35))),
    CONSTRAINT tenant_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT tenant_origins_check CHECK (((COALESCE(array_ndims(origins), 1) = 1) AND (cardinality(origins) <= 32) AND (array_position(origins, NULL::text) IS NULL) AND (array_to_string(origins, ' '::text) ~ '^(https?://[a-z0-9.:\[\]-]+( |$))*$'::text))),
    CONSTRAINT tenant_slug_check CHECK (((slug ~ '^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$'::text) AND (slug !~ '--'::text))),
    CONSTRAINT tenant_state_check CHECK ((state = ANY (ARRAY['provisioning'::text, 'active'::text, 'readonly'::text, 'suspended'::text, 'deleting'::text, 'deleted'::text, 'erased'::text]))),
    CONSTRAINT tenant_time_zone_check CHECK (((length(time_zone) >= 1) AND (length(time_zone) <= 64)))
);

COMMENT ON TABLE public.tenant IS 'Clinics.';

COMMENT ON COLUMN public.tenant.slug IS 'DNS label: the clinic''s name in hosts and on the command line.';

COMMENT ON COLUMN public.tenant.tier IS 'What the clinic may use; only an erased one may have none.';

COMMENT ON COLUMN public.tenant.state IS 'deleted can be restored, erased cannot: its keys are shredded.';

COMMENT ON COLUMN public.tenant.version IS 'Counts changes.';

COMMENT ON COLUMN public.tenant.origins IS 'Exact origins (scheme, host, port) whose pages may call the clinic''s API; hc-admin tenant cors.';

CREATE TABLE public.tenant_key (
    tenant_id uuid NOT NULL,
    purpose text NOT NULL,
    version integer NOT NULL,
    master_key_id text,
    wrapping_version integer,
    wrapped bytea,
    state text DEFAULT 'active'::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    destroyed_at timestamp with time zone,
    CONSTRAINT tenant_key_check CHECK (((purpose = 'kek'::text) = (master_key_id IS NOT NULL))),
    CONSTRAINT tenant_key_check1 CHECK (((purpose = 'kek'::text) = (wrapping_version IS NULL))),
    CONSTRAINT tenant_key_check2 CHECK (((state = 'destroyed'::text) = (wrapped IS NULL))),
    CONSTRAINT tenant_key_check3 CHECK (((state = 'destroyed'::text) = (destroyed_at IS NOT NULL))),
    CONSTRAINT tenant_key_purpose_check CHECK ((purpose = ANY (ARRAY['kek'::text, 'data'::text, 'index'::text]))),
    CONSTRAINT tenant_key_state_check CHECK ((state = ANY (ARRAY['active'::text, 'retired'::text, 'destroyed'::text]))),
    CONSTRAINT tenant_key_version_check CHECK ((version > 0))
);

COMMENT ON TABLE public.tenant_key IS 'Wrapped keys of clinics: never on a shard, so a shard''s backup does not open itself.';

COMMENT ON COLUMN public.tenant_key.purpose IS 'kek wraps the others; data seals columns; index makes blind indexes.';

COMMENT ON COLUMN public.tenant_key.master_key_id IS 'The master key that wraps a kek.';

COMMENT ON COLUMN public.tenant_key.wrapping_version IS 'The version of the kek that wraps a data or index key.';

COMMENT ON COLUMN public.tenant_key.state IS 'active: one per purpose, used to seal. retired: opens what it sealed. destroyed: the wrapped key is gone.';

CREATE TABLE public.tier (
    name text NOT NULL,
    definition jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT tier_definition_check CHECK ((jsonb_typeof(definition) = 'object'::text)),
    CONSTRAINT tier_name_check CHECK ((name ~ '^[a-z][a-z0-9-]{0,30}$'::text))
);

COMMENT ON TABLE public.tier IS 'What a clinic may use: written by `hc-admin tier apply` from tenants/tiers.json.';

COMMENT ON COLUMN public.tier.definition IS 'The tier as in the file.';

COMMENT ON COLUMN public.tier.version IS 'Counts changes.';

CREATE VIEW public.directory_entry AS
 SELECT tenant.id AS tenant_id,
    tenant.slug,
    tenant.name,
    tenant.state AS tenant_state,
    tenant.time_zone,
    tenant.locale,
    placement.shard_id,
    placement.epoch,
    placement.state AS placement_state,
    shard.dsn_ref,
    shard.state AS shard_state,
    tier.name AS tier,
    tier.version AS tier_version,
    tier.definition AS tier_definition,
    COALESCE(( SELECT jsonb_agg(domain.host ORDER BY domain.kind DESC, domain.host) AS jsonb_agg
           FROM public.domain
          WHERE ((domain.tenant_id = tenant.id) AND (domain.verified_at IS NOT NULL))), '[]'::jsonb) AS hosts,
    COALESCE(( SELECT jsonb_agg(jsonb_build_object('purpose', tenant_key.purpose, 'version', tenant_key.version, 'state', tenant_key.state, 'masterKeyId', tenant_key.master_key_id, 'wrappingVersion', tenant_key.wrapping_version, 'wrapped', encode(tenant_key.wrapped, 'hex'::text)) ORDER BY tenant_key.purpose, tenant_key.version) AS jsonb_agg
           FROM public.tenant_key
          WHERE ((tenant_key.tenant_id = tenant.id) AND (tenant_key.state <> 'destroyed'::text))), '[]'::jsonb) AS keys,
    to_jsonb(tenant.origins) AS origins
   FROM (((public.tenant
     JOIN public.placement ON ((placement.tenant_id = tenant.id)))
     JOIN public.shard ON ((shard.id = placement.shard_id)))
     JOIN public.tier ON ((tier.name = tenant.tier)))
  WHERE (tenant.state <> ALL (ARRAY['deleted'::text, 'erased'::text]));

COMMENT ON VIEW public.directory_entry IS 'What a router knows of a clinic. hosts: array of strings, platform hosts first; keys: array of objects, wrapped in hex.';

CREATE TABLE public.hc_schema (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    fingerprint text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    serves_from integer,
    CONSTRAINT hc_schema_version_check CHECK ((version > 0))
);

COMMENT ON TABLE public.hc_schema IS 'Migrations applied to this database, one row each, written in the migration''s own transaction.';

COMMENT ON COLUMN public.hc_schema.version IS 'The number at the head of the file name.';

COMMENT ON COLUMN public.hc_schema.name IS 'The file name without number and extension.';

COMMENT ON COLUMN public.hc_schema.checksum IS 'SHA-256 of the file, hex.';

COMMENT ON COLUMN public.hc_schema.fingerprint IS 'hc_schema_fingerprint() after the migration.';

COMMENT ON COLUMN public.hc_schema.serves_from IS 'The migration that a program must know at least to work with this one; NULL: any, for it only adds.';

CREATE TABLE public.migration_rollout (
    id uuid NOT NULL,
    state text NOT NULL,
    version integer NOT NULL,
    checksum text NOT NULL,
    canary text NOT NULL,
    wave integer DEFAULT 0 NOT NULL,
    shards_done integer DEFAULT 0 NOT NULL,
    shards_total integer NOT NULL,
    failed_shards text[] DEFAULT '{}'::text[] NOT NULL,
    problem text,
    attempt bigint DEFAULT 1 NOT NULL,
    lease_owner text NOT NULL,
    lease_until timestamp with time zone,
    abort_wanted boolean DEFAULT false NOT NULL,
    operator_name text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT migration_rollout_operator_name_check CHECK ((operator_name <> ''::text)),
    CONSTRAINT migration_rollout_shards_done_check CHECK ((shards_done >= 0)),
    CONSTRAINT migration_rollout_shards_total_check CHECK ((shards_total > 0)),
    CONSTRAINT migration_rollout_state_check CHECK ((state = ANY (ARRAY['running'::text, 'halted'::text, 'aborted'::text, 'done'::text]))),
    CONSTRAINT migration_rollout_version_check CHECK ((version > 0)),
    CONSTRAINT migration_rollout_wave_check CHECK ((wave >= 0))
);

COMMENT ON TABLE public.migration_rollout IS 'Runs of migrations over all shards; at most one is open.';

COMMENT ON COLUMN public.migration_rollout.version IS 'To which the shards are brought.';

COMMENT ON COLUMN public.migration_rollout.checksum IS 'Of the migration of that version.';

COMMENT ON COLUMN public.migration_rollout.wave IS 'The one that is being worked on; 0: the canary.';

COMMENT ON COLUMN public.migration_rollout.failed_shards IS 'Where it halted.';

COMMENT ON COLUMN public.migration_rollout.problem IS 'Why it halted.';

COMMENT ON COLUMN public.migration_rollout.attempt IS 'Counts the processes that have carried it on: each writes only while this is its own.';

CREATE TABLE public.migration_run (
    id uuid NOT NULL,
    database text NOT NULL,
    shard_id text,
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    wave integer DEFAULT 0 NOT NULL,
    state text NOT NULL,
    fingerprint_before text,
    fingerprint_after text,
    error text,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    rollout_id uuid,
    CONSTRAINT migration_run_check CHECK (((database = 'shard'::text) = (shard_id IS NOT NULL))),
    CONSTRAINT migration_run_database_check CHECK ((database = ANY (ARRAY['control'::text, 'shard'::text]))),
    CONSTRAINT migration_run_state_check CHECK ((state = ANY (ARRAY['running'::text, 'done'::text, 'failed'::text, 'halted'::text]))),
    CONSTRAINT migration_run_version_check CHECK ((version > 0))
);

COMMENT ON TABLE public.migration_run IS 'History of migrations, one row per database and migration. What is applied says the ledger of the database itself.';

COMMENT ON COLUMN public.migration_run.wave IS '0: canary, then the following waves.';

COMMENT ON COLUMN public.migration_run.rollout_id IS 'The run it was a part of.';

CREATE TABLE public.move (
    id uuid NOT NULL,
    tenant_id uuid NOT NULL,
    source_shard text NOT NULL,
    target_shard text NOT NULL,
    state text NOT NULL,
    step text NOT NULL,
    attempt bigint DEFAULT 1 NOT NULL,
    lease_owner text,
    lease_until timestamp with time zone,
    source_identity jsonb DEFAULT '{}'::jsonb NOT NULL,
    target_identity jsonb DEFAULT '{}'::jsonb NOT NULL,
    progress jsonb DEFAULT '{}'::jsonb NOT NULL,
    error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    direction text DEFAULT 'forward'::text NOT NULL,
    epoch bigint DEFAULT 1 NOT NULL,
    abort_requested boolean DEFAULT false NOT NULL,
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    reason text,
    operator_name text DEFAULT ''::text NOT NULL,
    soak_until timestamp with time zone,
    manifest jsonb,
    CONSTRAINT move_attempt_check CHECK ((attempt > 0)),
    CONSTRAINT move_check CHECK ((source_shard <> target_shard)),
    CONSTRAINT move_direction_check CHECK ((direction = ANY (ARRAY['forward'::text, 'back'::text]))),
    CONSTRAINT move_epoch_check CHECK ((epoch > 0)),
    CONSTRAINT move_options_check CHECK ((jsonb_typeof(options) = 'object'::text)),
    CONSTRAINT move_reason_check CHECK ((length(reason) <= 500)),
    CONSTRAINT move_state_check CHECK ((state = ANY (ARRAY['running'::text, 'aborting'::text, 'soaking'::text, 'done'::text, 'aborted'::text, 'reverted'::text, 'failed'::text])))
);

COMMENT ON TABLE public.move IS 'Moves of clinics between shards: each step is a compare-and-swap on this row.';

COMMENT ON COLUMN public.move.attempt IS 'Grows when another process takes over, and where a pause begins or is broken off: what comes with a smaller number is late.';

COMMENT ON COLUMN public.move.lease_owner IS 'The process that carries the move on until lease_until.';

COMMENT ON COLUMN public.move.source_identity IS 'System identifier, timeline and database at the start: a change aborts the move.';

COMMENT ON COLUMN public.move.progress IS 'Slots, barriers, checksums: what a successor needs to carry on.';

COMMENT ON COLUMN public.move.direction IS 'forward: from source_shard to target_shard. back: it was reverted, from target_shard to source_shard.';

COMMENT ON COLUMN public.move.epoch IS 'Placement epoch of the clinic when the move, or its way back, began.';

COMMENT ON COLUMN public.move.abort_requested IS 'Somebody wants it undone: the commit point refuses from then on.';

COMMENT ON COLUMN public.move.soak_until IS 'When the way back is given up and the rows left behind are purged.';

COMMENT ON COLUMN public.move.manifest IS 'What was moved and how it was verified, signed.';

CREATE TABLE public.move_object (
    move_id uuid NOT NULL,
    shard_id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    dropped_at timestamp with time zone,
    CONSTRAINT move_object_kind_check CHECK ((kind = ANY (ARRAY['publication'::text, 'slot'::text, 'subscription'::text]))),
    CONSTRAINT move_object_name_check CHECK ((name ~ '^hc_[a-z0-9_]{1,60}$'::text))
);

COMMENT ON TABLE public.move_object IS 'What a move has made on the shards, written before it is made: nothing can be left over that is not named here.';

COMMENT ON COLUMN public.move_object.dropped_at IS 'When it was seen to be gone.';

CREATE TABLE public.operator (
    id uuid NOT NULL,
    name text NOT NULL,
    token_hash bytea,
    roles text[] DEFAULT '{}'::text[] NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    disabled_at timestamp with time zone,
    CONSTRAINT operator_name_check CHECK ((name ~ '^[a-z][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT operator_token_hash_check CHECK ((length(token_hash) = 32))
);

COMMENT ON TABLE public.operator IS 'Those who run the platform.';

COMMENT ON COLUMN public.operator.token_hash IS 'SHA-256 of the token of the web console; NULL: command line only.';

CREATE TABLE public.operator_audit_head (
    singleton boolean DEFAULT true NOT NULL,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT operator_audit_head_hash_check CHECK ((length(hash) = 32)),
    CONSTRAINT operator_audit_head_singleton_check CHECK (singleton)
)
WITH (fillfactor='10');

COMMENT ON TABLE public.operator_audit_head IS 'One row: the end of the chain. Its lock orders the chain; what it says is missed if rows are cut off.';

CREATE TABLE public.placement_log (
    version bigint NOT NULL,
    kind text NOT NULL,
    tenant_id uuid,
    shard_id text,
    epoch bigint,
    state text,
    subject text,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT placement_log_check CHECK (((kind = ANY (ARRAY['placement'::text, 'tenant'::text, 'domain'::text, 'keys'::text])) = (tenant_id IS NOT NULL))),
    CONSTRAINT placement_log_kind_check CHECK ((kind = ANY (ARRAY['placement'::text, 'tenant'::text, 'domain'::text, 'tier'::text, 'keys'::text, 'shard'::text])))
);

COMMENT ON TABLE public.placement_log IS 'What changed, in commit order and without gaps: whoever finds that the next version is missing reads directory_entry anew.';

COMMENT ON COLUMN public.placement_log.kind IS 'What to read again: the tenant''s row of directory_entry, the shard, or every tenant of a tier.';

COMMENT ON COLUMN public.placement_log.subject IS 'The host, the tier, or purpose/version of the key.';

CREATE TABLE public.placement_version (
    singleton boolean DEFAULT true NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT placement_version_singleton_check CHECK (singleton)
)
WITH (fillfactor='10');

COMMENT ON TABLE public.placement_version IS 'One row: the last version of placement_log. Its lock, held until commit, makes versions commit in order.';

CREATE TABLE public.program_process (
    id uuid NOT NULL,
    name text NOT NULL,
    host text NOT NULL,
    process_id integer NOT NULL,
    version text NOT NULL,
    control_lowest integer NOT NULL,
    control_highest integer NOT NULL,
    shard_lowest integer NOT NULL,
    shard_highest integer NOT NULL,
    refused jsonb DEFAULT '[]'::jsonb NOT NULL,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT program_process_check CHECK ((control_highest >= control_lowest)),
    CONSTRAINT program_process_check1 CHECK ((shard_highest >= shard_lowest)),
    CONSTRAINT program_process_control_lowest_check CHECK ((control_lowest > 0)),
    CONSTRAINT program_process_host_check CHECK (((length(host) >= 1) AND (length(host) <= 253))),
    CONSTRAINT program_process_name_check CHECK (((length(name) >= 1) AND (length(name) <= 64))),
    CONSTRAINT program_process_process_id_check CHECK ((process_id > 0)),
    CONSTRAINT program_process_refused_check CHECK ((jsonb_typeof(refused) = 'array'::text)),
    CONSTRAINT program_process_shard_lowest_check CHECK ((shard_lowest > 0)),
    CONSTRAINT program_process_version_check CHECK (((length(version) >= 1) AND (length(version) <= 32)))
);

COMMENT ON TABLE public.program_process IS 'Processes that serve, by what they say of themselves every few seconds. One that has said nothing for a while is gone.';

COMMENT ON COLUMN public.program_process.name IS 'The program and what it is at.';

COMMENT ON COLUMN public.program_process.version IS 'The release.';

COMMENT ON COLUMN public.program_process.control_lowest IS 'Of the control database: the migration without which it cannot work.';

COMMENT ON COLUMN public.program_process.control_highest IS 'Of the control database: the last migration that it knows.';

COMMENT ON COLUMN public.program_process.shard_lowest IS 'Of shards: the migration without which it cannot work.';

COMMENT ON COLUMN public.program_process.shard_highest IS 'Of shards: the last migration that it knows.';

COMMENT ON COLUMN public.program_process.refused IS 'Shards that it does not serve because of their schema, with reasons; no more than it can name.';

COMMENT ON COLUMN public.program_process.seen_at IS 'By the clock of this database.';

CREATE TABLE public.replica (
    shard_id text NOT NULL,
    name text NOT NULL,
    dsn_ref text NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    weight integer DEFAULT 100 NOT NULL,
    connection_limit integer DEFAULT 100 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT replica_connection_limit_check CHECK ((connection_limit > 0)),
    CONSTRAINT replica_dsn_ref_check CHECK ((dsn_ref ~ '^[a-z0-9][a-z0-9._-]{0,62}$'::text)),
    CONSTRAINT replica_name_check CHECK ((name ~ '^[a-z][a-z0-9-]{0,30}$'::text)),
    CONSTRAINT replica_state_check CHECK ((state = ANY (ARRAY['open'::text, 'closed'::text]))),
    CONSTRAINT replica_weight_check CHECK (((weight >= 1) AND (weight <= 10000)))
);

COMMENT ON TABLE public.replica IS 'Streaming replicas of shards. Their identity is that of the shard: a connection to another cluster is refused.';

COMMENT ON COLUMN public.replica.name IS 'Unique in the shard; also what metrics call it.';

COMMENT ON COLUMN public.replica.dsn_ref IS 'Names the file <secrets>/shards/<ref>.app.conninfo; no address and no password is kept here.';

COMMENT ON COLUMN public.replica.state IS 'open: is read from while it is fresh. closed: is not.';

COMMENT ON COLUMN public.replica.weight IS 'Share of the reads, relative to the other replicas of the shard.';

COMMENT ON COLUMN public.replica.connection_limit IS 'Most connections that all processes together may hold to it.';

CREATE TABLE public.shard_load (
    shard_id text NOT NULL,
    sampled_at timestamp with time zone NOT NULL,
    timeline integer NOT NULL,
    wal_position bigint NOT NULL,
    CONSTRAINT shard_load_timeline_check CHECK ((timeline > 0)),
    CONSTRAINT shard_load_wal_position_check CHECK ((wal_position >= 0))
);

COMMENT ON TABLE public.shard_load IS 'The last sample of each shard.';

COMMENT ON COLUMN public.shard_load.wal_position IS 'End of its log then, in bytes.';

CREATE TABLE public.tenant_load (
    tenant_id uuid NOT NULL,
    shard_id text NOT NULL,
    sampled_at timestamp with time zone NOT NULL,
    seen_seconds bigint NOT NULL,
    week bigint NOT NULL,
    loads bytea NOT NULL,
    counted bytea NOT NULL,
    rows_stored bigint NOT NULL,
    CONSTRAINT tenant_load_counted_check CHECK ((length(counted) = 32)),
    CONSTRAINT tenant_load_loads_check CHECK ((length(loads) = 192)),
    CONSTRAINT tenant_load_rows_stored_check CHECK ((rows_stored >= 0)),
    CONSTRAINT tenant_load_seen_seconds_check CHECK ((seen_seconds >= 0))
);

COMMENT ON TABLE public.tenant_load IS 'Averages and peaks of what each clinic uses, and the counters from which the next sample goes on.';

COMMENT ON COLUMN public.tenant_load.shard_id IS 'Where the counters were read: at another shard they begin anew.';

COMMENT ON COLUMN public.tenant_load.seen_seconds IS 'For how long it has been observed.';

COMMENT ON COLUMN public.tenant_load.week IS 'The week, since 1970, to which the present peak belongs.';

COMMENT ON COLUMN public.tenant_load.loads IS 'Doubles (big-endian): average of the hour, of the day, peak of the week and of the one before; each execution, rows, wal, pool, disk, connections.';

COMMENT ON COLUMN public.tenant_load.counted IS 'hc_load as last read (big-endian integers): execution_us, pool_us, rows_all, rows_changed.';

COMMENT ON COLUMN public.tenant_load.rows_stored IS 'Rows of its tables, as the statistics of the shard estimate them.';

ALTER TABLE ONLY public.domain
    ADD CONSTRAINT domain_pkey PRIMARY KEY (host);

ALTER TABLE ONLY public.hc_schema
    ADD CONSTRAINT hc_schema_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.migration_rollout
    ADD CONSTRAINT migration_rollout_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.migration_run
    ADD CONSTRAINT migration_run_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.move_object
    ADD CONSTRAINT move_object_pkey PRIMARY KEY (shard_id, kind, name);

ALTER TABLE ONLY public.move
    ADD CONSTRAINT move_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.operator_audit_head
    ADD CONSTRAINT operator_audit_head_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.operator_audit
    ADD CONSTRAINT operator_audit_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY public.operator
    ADD CONSTRAINT operator_name_key UNIQUE (name);

ALTER TABLE ONLY public.operator
    ADD CONSTRAINT operator_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.placement_log
    ADD CONSTRAINT placement_log_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.placement
    ADD CONSTRAINT placement_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.placement_version
    ADD CONSTRAINT placement_version_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY public.program_process
    ADD CONSTRAINT program_process_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.replica
    ADD CONSTRAINT replica_dsn_ref_key UNIQUE (dsn_ref);

ALTER TABLE ONLY public.replica
    ADD CONSTRAINT replica_pkey PRIMARY KEY (shard_id, name);

ALTER TABLE ONLY public.shard
    ADD CONSTRAINT shard_dsn_ref_key UNIQUE (dsn_ref);

ALTER TABLE ONLY public.shard_load
    ADD CONSTRAINT shard_load_pkey PRIMARY KEY (shard_id);

ALTER TABLE ONLY public.shard
    ADD CONSTRAINT shard_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.shard
    ADD CONSTRAINT shard_system_id_database_oid_key UNIQUE (system_id, database_oid);

ALTER TABLE ONLY public.tenant_key
    ADD CONSTRAINT tenant_key_pkey PRIMARY KEY (tenant_id, purpose, version);

ALTER TABLE ONLY public.tenant_load
    ADD CONSTRAINT tenant_load_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.tenant
    ADD CONSTRAINT tenant_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.tier
    ADD CONSTRAINT tier_pkey PRIMARY KEY (name);

CREATE INDEX domain_tenant ON public.domain USING btree (tenant_id);

CREATE UNIQUE INDEX migration_rollout_open ON public.migration_rollout USING btree ((true)) WHERE (state = ANY (ARRAY['running'::text, 'halted'::text]));

CREATE INDEX migration_rollout_started ON public.migration_rollout USING btree (started_at);

CREATE INDEX migration_run_rollout ON public.migration_run USING btree (rollout_id) WHERE (state = 'running'::text);

CREATE INDEX migration_run_target ON public.migration_run USING btree (database, shard_id, version);

CREATE INDEX move_by_time ON public.move USING btree (created_at DESC, id DESC);

CREATE INDEX move_object_live ON public.move_object USING btree (move_id) WHERE (dropped_at IS NULL);

CREATE UNIQUE INDEX move_running ON public.move USING btree (tenant_id) WHERE (state = ANY (ARRAY['running'::text, 'aborting'::text, 'soaking'::text]));

CREATE INDEX placement_shard ON public.placement USING btree (shard_id);

CREATE INDEX program_process_seen ON public.program_process USING btree (seen_at);

CREATE UNIQUE INDEX tenant_key_active ON public.tenant_key USING btree (tenant_id, purpose) WHERE (state = 'active'::text);

CREATE UNIQUE INDEX tenant_slug ON public.tenant USING btree (slug) WHERE (state <> 'erased'::text);

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.domain DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('domain');

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.placement DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('placement');

CREATE TRIGGER directory_feed AFTER INSERT OR DELETE ON public.replica FOR EACH ROW EXECUTE FUNCTION public.replica_changed();

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.shard DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('shard');

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.tenant DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('tenant');

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.tenant_key DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('keys');

CREATE CONSTRAINT TRIGGER directory_feed AFTER INSERT OR DELETE ON public.tier DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.placement_log_append('tier');

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.domain DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('domain');

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.placement DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('placement');

CREATE TRIGGER directory_feed_update AFTER UPDATE ON public.replica FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.replica_changed();

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.shard DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('shard');

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.tenant DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('tenant');

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.tenant_key DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('keys');

CREATE CONSTRAINT TRIGGER directory_feed_update AFTER UPDATE ON public.tier DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN ((old.* IS DISTINCT FROM new.*)) EXECUTE FUNCTION public.placement_log_append('tier');

CREATE TRIGGER operator_audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.operator_audit FOR EACH STATEMENT EXECUTE FUNCTION public.hc_append_only();

ALTER TABLE public.operator_audit ENABLE ALWAYS TRIGGER operator_audit_append_only;

CREATE TRIGGER operator_audit_chain BEFORE INSERT ON public.operator_audit FOR EACH ROW EXECUTE FUNCTION public.operator_audit_chain();

CREATE TRIGGER placement_guard BEFORE DELETE OR UPDATE ON public.placement FOR EACH ROW EXECUTE FUNCTION public.placement_guard();

ALTER TABLE ONLY public.domain
    ADD CONSTRAINT domain_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.migration_rollout
    ADD CONSTRAINT migration_rollout_canary_fkey FOREIGN KEY (canary) REFERENCES public.shard(id);

ALTER TABLE ONLY public.migration_run
    ADD CONSTRAINT migration_run_rollout_id_fkey FOREIGN KEY (rollout_id) REFERENCES public.migration_rollout(id);

ALTER TABLE ONLY public.migration_run
    ADD CONSTRAINT migration_run_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.move_object
    ADD CONSTRAINT move_object_move_id_fkey FOREIGN KEY (move_id) REFERENCES public.move(id);

ALTER TABLE ONLY public.move_object
    ADD CONSTRAINT move_object_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.move
    ADD CONSTRAINT move_source_shard_fkey FOREIGN KEY (source_shard) REFERENCES public.shard(id);

ALTER TABLE ONLY public.move
    ADD CONSTRAINT move_target_shard_fkey FOREIGN KEY (target_shard) REFERENCES public.shard(id);

ALTER TABLE ONLY public.move
    ADD CONSTRAINT move_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id);

ALTER TABLE ONLY public.operator_audit
    ADD CONSTRAINT operator_audit_operator_id_fkey FOREIGN KEY (operator_id) REFERENCES public.operator(id);

ALTER TABLE ONLY public.placement
    ADD CONSTRAINT placement_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.placement
    ADD CONSTRAINT placement_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.replica
    ADD CONSTRAINT replica_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.shard_load
    ADD CONSTRAINT shard_load_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.tenant_key
    ADD CONSTRAINT tenant_key_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.tenant_load
    ADD CONSTRAINT tenant_load_shard_id_fkey FOREIGN KEY (shard_id) REFERENCES public.shard(id);

ALTER TABLE ONLY public.tenant_load
    ADD CONSTRAINT tenant_load_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES public.tenant(id) ON DELETE CASCADE;

ALTER TABLE ONLY public.tenant
    ADD CONSTRAINT tenant_tier_fkey FOREIGN KEY (tier) REFERENCES public.tier(name);

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO hc_control;
GRANT USAGE ON SCHEMA public TO hc_router;

REVOKE ALL ON FUNCTION public.hc_append_only() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hc_schema_fingerprint() FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_schema_fingerprint() TO hc_control;

REVOKE ALL ON FUNCTION public.move_advance(which uuid, mine bigint, from_step text, to_step text, to_state text, more jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.move_advance(which uuid, mine bigint, from_step text, to_step text, to_state text, more jsonb) TO hc_control;

REVOKE ALL ON FUNCTION public.move_claim(which uuid, owner text, lease_ms bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.move_claim(which uuid, owner text, lease_ms bigint) TO hc_control;

REVOKE ALL ON FUNCTION public.move_commit(which uuid, mine bigint, from_step text, more jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.move_commit(which uuid, mine bigint, from_step text, more jsonb) TO hc_control;

REVOKE ALL ON FUNCTION public.move_renew(which uuid, owner text, lease_ms bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION public.move_renew(which uuid, owner text, lease_ms bigint) TO hc_control;

REVOKE ALL ON FUNCTION public.operator_audit_chain() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.operator_audit_field(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.operator_audit_field(value text) TO hc_control;

GRANT SELECT,INSERT ON TABLE public.operator_audit TO hc_control;

REVOKE ALL ON FUNCTION public.operator_audit_hash(line public.operator_audit) FROM PUBLIC;
GRANT ALL ON FUNCTION public.operator_audit_hash(line public.operator_audit) TO hc_control;

REVOKE ALL ON FUNCTION public.placement_guard() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.placement_log_append() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.placement_swap(tenant uuid, expected_epoch bigint, expected_state text, shard text, new_state text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.placement_swap(tenant uuid, expected_epoch bigint, expected_state text, shard text, new_state text) TO hc_control;

REVOKE ALL ON FUNCTION public.program_process_leave(process uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.program_process_leave(process uuid) TO hc_router;

REVOKE ALL ON FUNCTION public.program_process_report(process uuid, called text, at_host text, pid integer, release text, control_from integer, control_to integer, shard_from integer, shard_to integer, started timestamp with time zone, refusals jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION public.program_process_report(process uuid, called text, at_host text, pid integer, release text, control_from integer, control_to integer, shard_from integer, shard_to integer, started timestamp with time zone, refusals jsonb) TO hc_router;

REVOKE ALL ON FUNCTION public.replica_changed() FROM PUBLIC;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.domain TO hc_control;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.placement TO hc_control;

GRANT SELECT,INSERT,UPDATE ON TABLE public.shard TO hc_control;
GRANT SELECT ON TABLE public.shard TO hc_router;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tenant TO hc_control;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tenant_key TO hc_control;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tier TO hc_control;
GRANT SELECT ON TABLE public.tier TO hc_router;

GRANT SELECT ON TABLE public.directory_entry TO hc_control;
GRANT SELECT ON TABLE public.directory_entry TO hc_router;

GRANT SELECT ON TABLE public.hc_schema TO hc_control;
GRANT SELECT ON TABLE public.hc_schema TO hc_router;

GRANT SELECT,INSERT,UPDATE ON TABLE public.migration_rollout TO hc_control;

GRANT SELECT,INSERT,UPDATE ON TABLE public.migration_run TO hc_control;

GRANT SELECT,INSERT,UPDATE ON TABLE public.move TO hc_control;

GRANT SELECT,INSERT,UPDATE ON TABLE public.move_object TO hc_control;

GRANT SELECT,INSERT,UPDATE ON TABLE public.operator TO hc_control;

GRANT SELECT ON TABLE public.operator_audit_head TO hc_control;

GRANT SELECT ON TABLE public.placement_log TO hc_control;
GRANT SELECT ON TABLE public.placement_log TO hc_router;

GRANT SELECT ON TABLE public.placement_version TO hc_control;
GRANT SELECT ON TABLE public.placement_version TO hc_router;

GRANT SELECT ON TABLE public.program_process TO hc_control;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.replica TO hc_control;
GRANT SELECT ON TABLE public.replica TO hc_router;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.shard_load TO hc_control;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.tenant_load TO hc_control;

ALTER DEFAULT PRIVILEGES FOR ROLE hc_owner REVOKE ALL ON FUNCTIONS  FROM PUBLIC;
