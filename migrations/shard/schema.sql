-- Everything that the migrations beside this file make together, as pg_dump tells it.
-- Written by 'hc-admin migrate schema --write' and never by hand; CI compares.

SET check_function_bodies = false;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;

COMMENT ON EXTENSION btree_gist IS 'support for indexing common datatypes in GiST';

CREATE FUNCTION public.hc_audit_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_user = 'hc_mover' THEN
        IF EXISTS (
            SELECT FROM public.hc_tenant
            WHERE tenant_id = OLD.tenant_id AND state IN ('absent', 'incoming', 'moved')
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = 'audit events can only be added';
END
$$;

CREATE FUNCTION public.hc_backfill_enter(tenant uuid) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
DECLARE
    here_state text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_transaction_state',
            MESSAGE = 'a backfill runs in READ COMMITTED: its snapshot must be newer than its lock';
    END IF;
    IF NOT pg_try_advisory_xact_lock_shared(hc_fence_key(tenant)) THEN
        RETURN 'busy';
    END IF;
    SELECT state INTO here_state FROM hc_tenant WHERE tenant_id = tenant;
    IF here_state IS NULL OR here_state IN ('absent', 'incoming', 'moved') THEN
        RETURN 'elsewhere';
    ELSIF here_state NOT IN ('rw', 'ro', 'suspended') THEN
        RETURN 'busy';
    END IF;
    PERFORM set_config('hc.ctx', tenant::text || '|'
        || (date_part('epoch', transaction_timestamp()) * 1000000)::bigint::text, true);
    RETURN 'entered';
END
$$;

CREATE FUNCTION public.hc_ctx_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (substr(current_setting('hc.ctx'::text, true), 38) = (((date_part('epoch'::text, transaction_timestamp()) * (1000000)::double precision))::bigint)::text) THEN (substr(current_setting('hc.ctx'::text, true), 1, 36))::uuid ELSE NULL::uuid END;

CREATE FUNCTION public.hc_enter(asked_tenant uuid, asked_epoch bigint, asked_mode text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
DECLARE
    entered     text := pg_catalog.current_setting('hc.ctx', true);
    stamp       text := (pg_catalog.date_part('epoch', pg_catalog.transaction_timestamp())
        * 1000000)::bigint::text;
    fencing     boolean := false;
    here_epoch  bigint;
    here_state  text;
    here_moved  text;
    refusal     text;
    explanation text;
    advice      text;
BEGIN
    IF asked_mode = 'r' THEN
        SELECT epoch, state, moved_to INTO here_epoch, here_state, here_moved
        FROM public.hc_tenant WHERE tenant_id = asked_tenant;
    ELSIF asked_mode IN ('a', 'w') THEN
        IF pg_catalog.current_setting('transaction_isolation') = 'read committed' THEN
            fencing := NOT pg_catalog.pg_try_advisory_xact_lock_shared(
                pg_catalog.uuid_hash_extended(asked_tenant, 0));
            SELECT epoch, state, moved_to INTO here_epoch, here_state, here_moved
            FROM public.hc_tenant WHERE tenant_id = asked_tenant;
        ELSE
            SELECT epoch, state, moved_to INTO here_epoch, here_state, here_moved
            FROM public.hc_tenant WHERE tenant_id = asked_tenant
            FOR KEY SHARE;
        END IF;
    ELSE
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'the mode of hc_enter is r, a or w';
    END IF;

    IF entered <> '' AND pg_catalog.substr(entered, 38) = stamp
        AND pg_catalog.substr(entered, 1, 36) <> asked_tenant::text THEN
        RAISE EXCEPTION USING
            ERRCODE = 'HC005',
            MESSAGE = 'the transaction has already entered another tenant';
    END IF;

    IF here_epoch = asked_epoch AND here_state = 'rw' AND NOT fencing THEN
        NULL;
    ELSE
        IF here_epoch IS NULL OR here_epoch > asked_epoch OR asked_epoch IS NULL THEN
            refusal := 'HC001';
        ELSIF here_epoch < asked_epoch THEN
            refusal := 'HC002';
        ELSIF here_state IN ('absent', 'incoming', 'moved') THEN
            refusal := 'HC001';
        ELSIF here_state = 'suspended' THEN
            refusal := 'HC003';
        ELSIF here_state = 'handover' OR fencing THEN
            refusal := 'HC002';
        ELSIF here_state = 'ro' AND asked_mode = 'w' THEN
            refusal := 'HC004';
        ELSIF here_state IN ('draining', 'fenced') AND asked_mode <> 'r' THEN
            refusal := 'HC002';
        END IF;
        IF refusal IS NOT NULL THEN
            CASE refusal
                WHEN 'HC001' THEN
                    explanation := 'the tenant is not served here';
                    advice := 'refresh the map and retry';
                WHEN 'HC002' THEN
                    explanation := 'the tenant is being handed over';
                    advice := 'wait for the map and retry';
                WHEN 'HC003' THEN
                    explanation := 'the tenant is suspended';
                    advice := 'do not retry';
                ELSE
                    explanation := 'the tenant is read-only';
                    advice := 'retry later';
            END CASE;
            RAISE EXCEPTION USING
                ERRCODE = refusal,
                MESSAGE = explanation,
                DETAIL = pg_catalog.json_build_object(
                    'state', coalesce(here_state, 'absent'),
                    'epoch', here_epoch,
                    'movedTo', here_moved)::text,
                HINT = advice;
        END IF;
    END IF;

    PERFORM pg_catalog.set_config('hc.ctx', asked_tenant::text || '|' || stamp, true);
    IF asked_mode = 'r' THEN
        PERFORM pg_catalog.set_config('transaction_read_only', 'on', true);
    END IF;
END
$$;

CREATE FUNCTION public.hc_fence_key(tenant uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN uuid_hash_extended(tenant, (0)::bigint);

CREATE FUNCTION public.hc_inside(tenant uuid) RETURNS SETOF integer
    LANGUAGE sql STABLE STRICT
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    SELECT pid
    FROM pg_locks
    WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND objsubid = 1
        AND granted
        AND mode = 'ShareLock'
        AND (classid::bigint << 32) | objid::bigint = hc_fence_key(tenant)
$$;

CREATE FUNCTION public.hc_load_add(tenants uuid[], executions bigint[], pools bigint[], alls bigint[], changes bigint[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.hc_outbox_backlog(age interval, row_limit integer) RETURNS TABLE(clinic uuid, waiting bigint, oldest timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
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

CREATE FUNCTION public.hc_purge(tenant uuid, batch integer) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    SELECT removed FROM public.hc_purge_from(tenant, batch, NULL)
$$;

CREATE FUNCTION public.hc_purge_from(tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    SET enable_sort TO 'off'
    AS $_$
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
$_$;

COMMENT ON FUNCTION public.hc_purge_from(tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]) IS 'Removes a batch of a clinic''s rows from a shard that does not serve it, and says where the next one begins.';

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

CREATE FUNCTION public.hc_tenant_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
DECLARE
    allowed text[];
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'absent' THEN
            RAISE EXCEPTION USING
                ERRCODE = 'integrity_constraint_violation',
                MESSAGE = format('a tenant that is %s cannot be forgotten', OLD.state);
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.state NOT IN ('absent', 'incoming', 'rw') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'integrity_constraint_violation',
                MESSAGE = format('a tenant cannot begin as %s', NEW.state);
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.tenant_id <> OLD.tenant_id OR NEW.epoch < OLD.epoch OR NEW.attempt < OLD.attempt THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            MESSAGE = 'tenant, epoch and attempt of hc_tenant never go back';
    END IF;
    allowed := CASE OLD.state
        WHEN 'absent' THEN ARRAY['incoming', 'rw']
        WHEN 'incoming' THEN ARRAY['rw', 'ro', 'suspended', 'absent']
        WHEN 'rw' THEN ARRAY['ro', 'draining', 'suspended']
        WHEN 'ro' THEN ARRAY['rw', 'draining', 'suspended']
        WHEN 'suspended' THEN ARRAY['rw', 'ro', 'draining', 'absent']
        WHEN 'draining' THEN ARRAY['fenced', 'rw', 'ro', 'suspended']
        WHEN 'fenced' THEN ARRAY['handover', 'rw', 'ro', 'suspended']
        WHEN 'handover' THEN ARRAY['moved', 'rw', 'ro', 'suspended']
        WHEN 'moved' THEN ARRAY['incoming', 'absent']
    END;
    IF NEW.state <> OLD.state AND NEW.state <> ALL (allowed) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'integrity_constraint_violation',
            MESSAGE = format('a tenant that is %s cannot become %s', OLD.state, NEW.state);
    END IF;
    NEW.fence := OLD.fence;
    IF NEW.epoch <> OLD.epoch OR NEW.state <> OLD.state AND NEW.state NOT IN ('rw', 'draining') THEN
        NEW.fence := OLD.fence + 1;
    END IF;
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE FUNCTION public.hc_tenant_tables() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
    WITH RECURSIVE tenant_table AS (
        SELECT class.oid, class.relname
        FROM pg_class class
        JOIN pg_attribute attribute ON attribute.attrelid = class.oid
            AND attribute.attname = 'tenant_id' AND NOT attribute.attisdropped
        WHERE class.relkind = 'r' AND class.relnamespace = 'public'::regnamespace
            AND class.relname NOT IN ('hc_tenant', 'hc_barrier', 'hc_load', 'hc_backfill')
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

CREATE TABLE public.account (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    email_token bigint NOT NULL,
    sealed bytea NOT NULL,
    key_version integer NOT NULL,
    password_hash text NOT NULL,
    password_changed_at timestamp with time zone DEFAULT now() NOT NULL,
    roles text[] NOT NULL,
    status text DEFAULT 'active'::text NOT NULL,
    patient_id uuid,
    failed_logins integer DEFAULT 0 NOT NULL,
    locked_until timestamp with time zone,
    last_login_at timestamp with time zone,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT account_failed_logins_check CHECK ((failed_logins >= 0)),
    CONSTRAINT account_key_version_check CHECK ((key_version > 0)),
    CONSTRAINT account_roles_check CHECK ((((cardinality(roles) >= 1) AND (cardinality(roles) <= 16)) AND (array_position(roles, NULL::text) IS NULL))),
    CONSTRAINT account_status_check CHECK ((status = ANY (ARRAY['invited'::text, 'active'::text, 'disabled'::text])))
);
ALTER TABLE ONLY public.account ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.account FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.account IS 'Those who log in: staff and patients of a clinic.';

COMMENT ON COLUMN public.account.email_token IS 'Blind index of the normalised e-mail address; unique among the clinic''s living accounts.';

COMMENT ON COLUMN public.account.sealed IS 'Sealed JSON: email, name, phone.';

COMMENT ON COLUMN public.account.key_version IS 'Version of the data key that sealed the row.';

COMMENT ON COLUMN public.account.password_hash IS 'scrypt in PHC form.';

COMMENT ON COLUMN public.account.roles IS 'Names of the permission matrix: owner, admin, doctor, nurse, receptionist, patient.';

COMMENT ON COLUMN public.account.patient_id IS 'The patient who this account is, for the role patient.';

COMMENT ON COLUMN public.account.failed_logins IS 'Wrong passwords since the last login.';

COMMENT ON COLUMN public.account.locked_until IS 'No password is accepted before this instant.';

CREATE TABLE public.appointment (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    patient_id uuid NOT NULL,
    practitioner_id uuid NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    zone text NOT NULL,
    status text DEFAULT 'booked'::text NOT NULL,
    started_at timestamp with time zone,
    sealed bytea,
    key_version integer,
    created_by uuid,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT appointment_check CHECK (((starts_at < ends_at) AND (ends_at <= (starts_at + '24:00:00'::interval)))),
    CONSTRAINT appointment_check1 CHECK (((sealed IS NULL) = (key_version IS NULL))),
    CONSTRAINT appointment_key_version_check CHECK ((key_version > 0)),
    CONSTRAINT appointment_status_check CHECK ((status = ANY (ARRAY['proposed'::text, 'pending'::text, 'booked'::text, 'arrived'::text, 'checked-in'::text, 'fulfilled'::text, 'cancelled'::text, 'noshow'::text, 'waitlist'::text, 'entered-in-error'::text]))),
    CONSTRAINT appointment_zone_check CHECK (((length(zone) >= 1) AND (length(zone) <= 64)))
);
ALTER TABLE ONLY public.appointment ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.appointment FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.appointment IS 'Appointments. What blocks time is in booking.';

COMMENT ON COLUMN public.appointment.zone IS 'IANA name of the zone in which the appointment was made.';

COMMENT ON COLUMN public.appointment.status IS 'FHIR AppointmentStatus.';

COMMENT ON COLUMN public.appointment.started_at IS 'When the practitioner began: FHIR has no status for it.';

COMMENT ON COLUMN public.appointment.sealed IS 'Sealed JSON: reason, notes, reason of cancellation.';

COMMENT ON COLUMN public.appointment.created_by IS 'The account that made it.';

CREATE TABLE public.audit_event (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    at timestamp with time zone NOT NULL,
    actor_id uuid,
    actor_kind text NOT NULL,
    action text NOT NULL,
    entity text NOT NULL,
    entity_id uuid,
    outcome text NOT NULL,
    request_id text NOT NULL,
    sealed bytea,
    key_version integer,
    CONSTRAINT audit_event_action_check CHECK (((length(action) >= 1) AND (length(action) <= 64))),
    CONSTRAINT audit_event_actor_kind_check CHECK ((actor_kind = ANY (ARRAY['account'::text, 'anonymous'::text, 'operator'::text, 'system'::text]))),
    CONSTRAINT audit_event_check CHECK (((sealed IS NULL) = (key_version IS NULL))),
    CONSTRAINT audit_event_entity_check CHECK (((length(entity) >= 1) AND (length(entity) <= 64))),
    CONSTRAINT audit_event_key_version_check CHECK ((key_version > 0)),
    CONSTRAINT audit_event_outcome_check CHECK ((outcome = ANY (ARRAY['success'::text, 'denied'::text, 'failure'::text]))),
    CONSTRAINT audit_event_request_id_check CHECK (((length(request_id) >= 1) AND (length(request_id) <= 64)))
);
ALTER TABLE ONLY public.audit_event ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.audit_event FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.audit_event IS 'Who did what to whose data. Rows are only ever added.';

COMMENT ON COLUMN public.audit_event.id IS 'UUIDv7: orders the events in time.';

COMMENT ON COLUMN public.audit_event.actor_id IS 'The account or operator; NULL when nobody was authenticated.';

COMMENT ON COLUMN public.audit_event.action IS 'read, search, create, update, delete, login, logout, ….';

COMMENT ON COLUMN public.audit_event.entity IS 'patient, appointment, account, ….';

COMMENT ON COLUMN public.audit_event.request_id IS 'The request that caused the event: also in the log and in the answer.';

COMMENT ON COLUMN public.audit_event.sealed IS 'Sealed JSON: details that may say something about a patient.';

CREATE TABLE public.booking (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    appointment_id uuid NOT NULL,
    resource_id uuid NOT NULL,
    lane smallint DEFAULT 0 NOT NULL,
    busy tstzrange NOT NULL,
    blocking boolean DEFAULT true NOT NULL,
    CONSTRAINT booking_busy_check CHECK (((NOT isempty(busy)) AND (NOT lower_inf(busy)) AND (NOT upper_inf(busy)) AND lower_inc(busy) AND (NOT upper_inc(busy)))),
    CONSTRAINT booking_lane_check CHECK ((lane >= 0))
);
ALTER TABLE ONLY public.booking ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.booking FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.booking IS 'Who or what an appointment keeps busy. booking_slot makes one winner of any number of concurrent bookings (23P01).';

COMMENT ON COLUMN public.booking.resource_id IS 'A practitioner; later also a room or a device.';

COMMENT ON COLUMN public.booking.lane IS 'Resources with capacity c have the lanes 0 to c - 1.';

COMMENT ON COLUMN public.booking.busy IS '[start - buffer before, end + buffer after).';

COMMENT ON COLUMN public.booking.blocking IS 'False once the appointment is cancelled, missed or entered in error.';

CREATE TABLE public.cache_tag (
    tenant_id uuid NOT NULL,
    tag text NOT NULL,
    count bigint NOT NULL,
    CONSTRAINT cache_tag_count_check CHECK ((count > 0)),
    CONSTRAINT cache_tag_tag_check CHECK (((length(tag) >= 1) AND (length(tag) <= 64)))
)
WITH (fillfactor='50');
ALTER TABLE ONLY public.cache_tag ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.cache_tag FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.cache_tag IS 'How often what a tag names was changed; no row: never.';

CREATE TABLE public.clinic (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    time_zone text DEFAULT 'UTC'::text NOT NULL,
    locale text DEFAULT 'en'::text NOT NULL,
    currency text DEFAULT 'USD'::text NOT NULL,
    buffer_before_minutes smallint DEFAULT 0 NOT NULL,
    buffer_after_minutes smallint DEFAULT 0 NOT NULL,
    settings jsonb DEFAULT '{}'::jsonb NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT clinic_buffer_after_minutes_check CHECK (((buffer_after_minutes >= 0) AND (buffer_after_minutes <= 240))),
    CONSTRAINT clinic_buffer_before_minutes_check CHECK (((buffer_before_minutes >= 0) AND (buffer_before_minutes <= 240))),
    CONSTRAINT clinic_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT clinic_locale_check CHECK (((length(locale) >= 2) AND (length(locale) <= 35))),
    CONSTRAINT clinic_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT clinic_settings_check CHECK ((jsonb_typeof(settings) = 'object'::text)),
    CONSTRAINT clinic_time_zone_check CHECK (((length(time_zone) >= 1) AND (length(time_zone) <= 64)))
);
ALTER TABLE ONLY public.clinic ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.clinic FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.clinic IS 'Settings of a clinic, one row per tenant.';

COMMENT ON COLUMN public.clinic.time_zone IS 'IANA name: the zone of the clinic''s wall clock.';

COMMENT ON COLUMN public.clinic.locale IS 'BCP 47 tag.';

COMMENT ON COLUMN public.clinic.currency IS 'ISO 4217 code.';

COMMENT ON COLUMN public.clinic.buffer_before_minutes IS 'Kept free before an appointment unless the practitioner says otherwise.';

COMMENT ON COLUMN public.clinic.buffer_after_minutes IS 'Kept free after an appointment unless the practitioner says otherwise.';

COMMENT ON COLUMN public.clinic.settings IS 'Further settings, camelCase; no patient data.';

COMMENT ON COLUMN public.clinic.version IS 'Counts changes; the ETag.';

CREATE TABLE public.hc_backfill (
    tenant_id uuid NOT NULL,
    version integer NOT NULL,
    cursor text,
    rows_seen bigint DEFAULT 0 NOT NULL,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    done_at timestamp with time zone,
    CONSTRAINT hc_backfill_rows_seen_check CHECK ((rows_seen >= 0)),
    CONSTRAINT hc_backfill_version_check CHECK ((version > 0))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.hc_backfill FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.hc_backfill IS 'How far the rows of each clinic have been gone through for a migration; written in the transaction of each batch.';

COMMENT ON COLUMN public.hc_backfill.version IS 'The migration.';

COMMENT ON COLUMN public.hc_backfill.cursor IS 'Where the next batch begins: what the migration''s own statement gave back.';

COMMENT ON COLUMN public.hc_backfill.rows_seen IS 'Rows of all batches so far.';

COMMENT ON COLUMN public.hc_backfill.begun_at IS 'When this pass over the clinic''s rows began.';

COMMENT ON COLUMN public.hc_backfill.done_at IS 'When it was through; NULL: it goes on.';

CREATE TABLE public.hc_barrier (
    tenant_id uuid NOT NULL,
    move_id uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.hc_barrier FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.hc_barrier IS 'Rows that a move writes behind the last write of a clinic: once one is on the target, everything before it is.';

COMMENT ON COLUMN public.hc_barrier.move_id IS 'The move that wrote the row.';

COMMENT ON COLUMN public.hc_barrier.seq IS 'Number of the barrier within the move.';

CREATE UNLOGGED TABLE public.hc_load (
    tenant_id uuid NOT NULL,
    execution_us bigint NOT NULL,
    pool_us bigint NOT NULL,
    rows_all bigint NOT NULL,
    rows_changed bigint NOT NULL,
    minute bigint NOT NULL,
    minute_us bigint NOT NULL,
    busiest_us bigint NOT NULL,
    counted_at timestamp with time zone NOT NULL,
    CONSTRAINT hc_load_busiest_us_check CHECK ((busiest_us >= 0)),
    CONSTRAINT hc_load_execution_us_check CHECK ((execution_us >= 0)),
    CONSTRAINT hc_load_minute_us_check CHECK ((minute_us >= 0)),
    CONSTRAINT hc_load_pool_us_check CHECK ((pool_us >= 0)),
    CONSTRAINT hc_load_rows_all_check CHECK ((rows_all >= 0)),
    CONSTRAINT hc_load_rows_changed_check CHECK ((rows_changed >= 0))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.hc_load FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.hc_load IS 'What each clinic has used here, counted since the table was last emptied, by a crash or otherwise.';

COMMENT ON COLUMN public.hc_load.execution_us IS 'Time that workers waited for its statements.';

COMMENT ON COLUMN public.hc_load.pool_us IS 'Time for which it held connections of workers.';

COMMENT ON COLUMN public.hc_load.rows_all IS 'Rows that its statements gave back or changed.';

COMMENT ON COLUMN public.hc_load.rows_changed IS 'Of these, rows that were inserted, updated or deleted.';

COMMENT ON COLUMN public.hc_load.minute IS 'The minute, since 1970, to which minute_us belongs.';

COMMENT ON COLUMN public.hc_load.minute_us IS 'What was added to pool_us in that minute, by all processes.';

COMMENT ON COLUMN public.hc_load.busiest_us IS 'The most of any minute since the last sample, which puts it back to 0.';

CREATE TABLE public.hc_schema (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    fingerprint text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    serves_from integer,
    phase text,
    CONSTRAINT hc_schema_version_check CHECK ((version > 0))
);

COMMENT ON TABLE public.hc_schema IS 'Migrations applied to this database, one row each, written in the migration''s own transaction.';

COMMENT ON COLUMN public.hc_schema.version IS 'The number at the head of the file name.';

COMMENT ON COLUMN public.hc_schema.name IS 'The file name without number and extension.';

COMMENT ON COLUMN public.hc_schema.checksum IS 'SHA-256 of the file, hex.';

COMMENT ON COLUMN public.hc_schema.fingerprint IS 'hc_schema_fingerprint() after the migration.';

COMMENT ON COLUMN public.hc_schema.serves_from IS 'The migration that a program must know at least to serve a shard with this one; NULL: any, for it only adds.';

COMMENT ON COLUMN public.hc_schema.phase IS 'What has been done of a migration in phases; NULL: all of it.';

CREATE TABLE public.hc_tenant (
    tenant_id uuid NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL,
    attempt bigint DEFAULT 0 NOT NULL,
    moved_to text,
    fence bigint DEFAULT 0 NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT hc_tenant_attempt_check CHECK ((attempt >= 0)),
    CONSTRAINT hc_tenant_epoch_check CHECK ((epoch > 0)),
    CONSTRAINT hc_tenant_moved_to_check CHECK ((moved_to <> ''::text)),
    CONSTRAINT hc_tenant_state_check CHECK ((state = ANY (ARRAY['absent'::text, 'incoming'::text, 'rw'::text, 'ro'::text, 'draining'::text, 'fenced'::text, 'handover'::text, 'moved'::text, 'suspended'::text])))
)
WITH (fillfactor='50');

ALTER TABLE ONLY public.hc_tenant FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.hc_tenant IS 'What this shard may do for a clinic. Every transaction checks it in hc_enter(); only the owner and the mover write it.';

COMMENT ON COLUMN public.hc_tenant.epoch IS 'Placement epoch: grows by one at each commit point of a move, never falls.';

COMMENT ON COLUMN public.hc_tenant.state IS 'rw: all. ro: reads. draining, fenced: reads, writers wait. handover: all wait. incoming, absent, moved: not here. suspended: nobody.';

COMMENT ON COLUMN public.hc_tenant.attempt IS 'Number of the move attempt that wrote last; a mover with a smaller number is a zombie and is refused.';

COMMENT ON COLUMN public.hc_tenant.moved_to IS 'The shard to which the clinic went: a hint for routers with an old map.';

COMMENT ON COLUMN public.hc_tenant.fence IS 'Grows when the door closes to writers. As part of a key it makes that change conflict with FOR KEY SHARE.';

COMMENT ON COLUMN public.hc_tenant.changed_at IS 'When the row last changed.';

CREATE TABLE public.idempotency (
    tenant_id uuid NOT NULL,
    account_id uuid NOT NULL,
    route text NOT NULL,
    key_hash bytea NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    sealed bytea,
    key_version integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT idempotency_check CHECK (((sealed IS NULL) = (key_version IS NULL))),
    CONSTRAINT idempotency_fingerprint_check CHECK ((length(fingerprint) = 32)),
    CONSTRAINT idempotency_key_hash_check CHECK ((length(key_hash) = 32)),
    CONSTRAINT idempotency_key_version_check CHECK ((key_version > 0)),
    CONSTRAINT idempotency_route_check CHECK (((length(route) >= 1) AND (length(route) <= 200))),
    CONSTRAINT idempotency_status_check CHECK (((status >= 100) AND (status <= 599)))
);
ALTER TABLE ONLY public.idempotency ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.idempotency FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.idempotency IS 'Answers of requests with an Idempotency-Key, written in the request''s own transaction and replayed for 24 hours.';

COMMENT ON COLUMN public.idempotency.route IS 'Method and pattern of the route.';

COMMENT ON COLUMN public.idempotency.key_hash IS 'SHA-256 of the key.';

COMMENT ON COLUMN public.idempotency.fingerprint IS 'SHA-256 of the request: another body under the same key is refused.';

COMMENT ON COLUMN public.idempotency.status IS 'Status of the stored answer; NULL while the first request runs.';

COMMENT ON COLUMN public.idempotency.sealed IS 'Sealed answer: header fields and body.';

CREATE TABLE public.outbox (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    topic text NOT NULL,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT outbox_payload_check CHECK ((jsonb_typeof(payload) = 'object'::text)),
    CONSTRAINT outbox_topic_check CHECK (((length(topic) >= 1) AND (length(topic) <= 64)))
);
ALTER TABLE ONLY public.outbox ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.outbox FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.outbox IS 'What others must hear of a transaction: written in it, relayed after it, then deleted.';

COMMENT ON COLUMN public.outbox.payload IS 'Ids and versions only: no patient data.';

CREATE TABLE public.patient (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    sealed bytea NOT NULL,
    key_version integer NOT NULL,
    mrn_token bigint,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT patient_key_version_check CHECK ((key_version > 0))
);
ALTER TABLE ONLY public.patient ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.patient FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.patient IS 'Patients. All that says who they are is in one sealed JSON document.';

COMMENT ON COLUMN public.patient.sealed IS 'Sealed JSON: givenName, familyName, birthDate, sex, phone, email, mrn, address, ….';

COMMENT ON COLUMN public.patient.key_version IS 'Version of the data key that sealed the row.';

COMMENT ON COLUMN public.patient.mrn_token IS 'Blind index of the medical record number: unique among the clinic''s living patients.';

COMMENT ON COLUMN public.patient.version IS 'Counts changes; the ETag and part of the AAD.';

COMMENT ON COLUMN public.patient.deleted_at IS 'Soft delete: the row stays for as long as the law asks.';

CREATE TABLE public.patient_token (
    tenant_id uuid NOT NULL,
    token bigint NOT NULL,
    patient_id uuid NOT NULL
);
ALTER TABLE ONLY public.patient_token ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.patient_token FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.patient_token IS 'Blind index of patients: exact terms and the first letters of names. Equality and frequency leak, content does not.';

COMMENT ON COLUMN public.patient_token.token IS 'Truncated HMAC of kind and normalised term under the tenant''s index key.';

CREATE TABLE public.practitioner (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    account_id uuid,
    name text NOT NULL,
    specialities text[] DEFAULT '{}'::text[] NOT NULL,
    buffer_before_minutes smallint,
    buffer_after_minutes smallint,
    lanes smallint DEFAULT 1 NOT NULL,
    active boolean DEFAULT true NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT practitioner_buffer_after_minutes_check CHECK (((buffer_after_minutes >= 0) AND (buffer_after_minutes <= 240))),
    CONSTRAINT practitioner_buffer_before_minutes_check CHECK (((buffer_before_minutes >= 0) AND (buffer_before_minutes <= 240))),
    CONSTRAINT practitioner_lanes_check CHECK (((lanes >= 1) AND (lanes <= 100))),
    CONSTRAINT practitioner_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT practitioner_specialities_check CHECK (((cardinality(specialities) <= 32) AND (array_position(specialities, NULL::text) IS NULL)))
);
ALTER TABLE ONLY public.practitioner ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.practitioner FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.practitioner IS 'Those with whom appointments are made.';

COMMENT ON COLUMN public.practitioner.account_id IS 'The account with which the practitioner logs in, if any.';

COMMENT ON COLUMN public.practitioner.name IS 'Shown to patients: not patient data, in clear.';

COMMENT ON COLUMN public.practitioner.buffer_before_minutes IS 'NULL: the clinic''s.';

COMMENT ON COLUMN public.practitioner.buffer_after_minutes IS 'NULL: the clinic''s.';

COMMENT ON COLUMN public.practitioner.lanes IS 'How many appointments may run at once: lanes 0 to lanes - 1 of booking.';

COMMENT ON COLUMN public.practitioner.active IS 'False: no new appointments.';

CREATE TABLE public.read_model (
    tenant_id uuid NOT NULL,
    name text NOT NULL,
    epoch bigint NOT NULL,
    tags text NOT NULL,
    counts text NOT NULL,
    body bytea NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL,
    good_until timestamp with time zone NOT NULL,
    CONSTRAINT read_model_body_check CHECK ((length(body) <= 2097152)),
    CONSTRAINT read_model_name_check CHECK (((length(name) >= 1) AND (length(name) <= 256)))
);
ALTER TABLE ONLY public.read_model ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.read_model FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.read_model IS 'Answers that take long to compute. Copies: every row may be deleted at any time.';

COMMENT ON COLUMN public.read_model.epoch IS 'Of the clinic when it was made: after a move it is made anew.';

COMMENT ON COLUMN public.read_model.tags IS 'What it was made of, in the order of counts, with commas.';

COMMENT ON COLUMN public.read_model.counts IS 'The counts of the tags before the source was read: with others it is out of date.';

COMMENT ON COLUMN public.read_model.body IS 'Sealed under the clinic''s key if it says something about a patient.';

CREATE TABLE public.service (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    description text,
    duration_minutes smallint NOT NULL,
    price_minor bigint,
    active boolean DEFAULT true NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT service_description_check CHECK (((length(description) >= 1) AND (length(description) <= 2000))),
    CONSTRAINT service_duration_minutes_check CHECK (((duration_minutes >= 5) AND (duration_minutes <= 720))),
    CONSTRAINT service_name_check CHECK (((length(name) >= 1) AND (length(name) <= 200))),
    CONSTRAINT service_price_minor_check CHECK (((price_minor >= 0) AND (price_minor <= '100000000000'::bigint)))
);
ALTER TABLE ONLY public.service ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.service FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.service IS 'Kinds of visits that the clinic offers.';

COMMENT ON COLUMN public.service.duration_minutes IS 'Of one visit, buffers not counted.';

COMMENT ON COLUMN public.service.price_minor IS 'In the smallest unit of the clinic''s currency; NULL: not said.';

COMMENT ON COLUMN public.service.active IS 'False: not offered any more.';

COMMENT ON COLUMN public.service.version IS 'Counts changes; the ETag.';

CREATE TABLE public.service_practitioner (
    tenant_id uuid NOT NULL,
    service_id uuid NOT NULL,
    practitioner_id uuid NOT NULL
);
ALTER TABLE ONLY public.service_practitioner ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.service_practitioner FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.service_practitioner IS 'Who offers a service.';

CREATE TABLE public.session (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    account_id uuid NOT NULL,
    family uuid NOT NULL,
    refresh_hash bytea NOT NULL,
    refresh_generation integer DEFAULT 1 NOT NULL,
    previous_hash bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    last_used_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    revoked_reason text,
    CONSTRAINT session_check CHECK (((revoked_at IS NULL) = (revoked_reason IS NULL))),
    CONSTRAINT session_previous_hash_check CHECK ((length(previous_hash) = 32)),
    CONSTRAINT session_refresh_generation_check CHECK ((refresh_generation > 0)),
    CONSTRAINT session_refresh_hash_check CHECK ((length(refresh_hash) = 32))
);
ALTER TABLE ONLY public.session ALTER COLUMN tenant_id SET STATISTICS 1000;

ALTER TABLE ONLY public.session FORCE ROW LEVEL SECURITY;

COMMENT ON TABLE public.session IS 'Logins. A refresh rotates the hash in place; a second use of an old token revokes the family.';

COMMENT ON COLUMN public.session.family IS 'Sessions that descend from one login; a reused refresh token revokes them all.';

COMMENT ON COLUMN public.session.refresh_hash IS 'SHA-256 of the refresh token that is valid now.';

COMMENT ON COLUMN public.session.refresh_generation IS 'How often the token has been rotated, from 1.';

COMMENT ON COLUMN public.session.previous_hash IS 'SHA-256 of the token before: its use is theft or a lost answer.';

COMMENT ON COLUMN public.session.revoked_reason IS 'logout, reuse, password, disabled, operator.';

ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.appointment
    ADD CONSTRAINT appointment_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.audit_event
    ADD CONSTRAINT audit_event_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.booking
    ADD CONSTRAINT booking_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.booking
    ADD CONSTRAINT booking_slot EXCLUDE USING gist (tenant_id WITH =, resource_id WITH =, lane WITH =, busy WITH &&) WHERE (blocking);

ALTER TABLE ONLY public.booking
    ADD CONSTRAINT booking_tenant_id_appointment_id_resource_id_key UNIQUE (tenant_id, appointment_id, resource_id);

ALTER TABLE ONLY public.cache_tag
    ADD CONSTRAINT cache_tag_pkey PRIMARY KEY (tenant_id, tag);

ALTER TABLE ONLY public.clinic
    ADD CONSTRAINT clinic_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.hc_backfill
    ADD CONSTRAINT hc_backfill_pkey PRIMARY KEY (tenant_id, version);

ALTER TABLE ONLY public.hc_barrier
    ADD CONSTRAINT hc_barrier_pkey PRIMARY KEY (tenant_id, move_id, seq);

ALTER TABLE ONLY public.hc_load
    ADD CONSTRAINT hc_load_pkey PRIMARY KEY (tenant_id);

ALTER TABLE public.hc_schema
    ADD CONSTRAINT hc_schema_phase CHECK ((phase = ANY (ARRAY['expanded'::text, 'backfilled'::text]))) NOT VALID;

ALTER TABLE ONLY public.hc_schema
    ADD CONSTRAINT hc_schema_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.hc_tenant
    ADD CONSTRAINT hc_tenant_pkey PRIMARY KEY (tenant_id);

ALTER TABLE ONLY public.hc_tenant
    ADD CONSTRAINT hc_tenant_tenant_id_fence_key UNIQUE (tenant_id, fence);

ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (tenant_id, account_id, route, key_hash);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.patient
    ADD CONSTRAINT patient_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.patient_token
    ADD CONSTRAINT patient_token_pkey PRIMARY KEY (tenant_id, token, patient_id);

ALTER TABLE ONLY public.practitioner
    ADD CONSTRAINT practitioner_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.read_model
    ADD CONSTRAINT read_model_pkey PRIMARY KEY (tenant_id, name);

ALTER TABLE ONLY public.service
    ADD CONSTRAINT service_pkey PRIMARY KEY (tenant_id, id);

ALTER TABLE ONLY public.service_practitioner
    ADD CONSTRAINT service_practitioner_pkey PRIMARY KEY (tenant_id, service_id, practitioner_id);

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_pkey PRIMARY KEY (tenant_id, id);

CREATE UNIQUE INDEX account_email ON public.account USING btree (tenant_id, email_token) WHERE (deleted_at IS NULL);

CREATE UNIQUE INDEX account_patient ON public.account USING btree (tenant_id, patient_id) WHERE ((patient_id IS NOT NULL) AND (deleted_at IS NULL));

CREATE INDEX appointment_patient ON public.appointment USING btree (tenant_id, patient_id, starts_at, id);

CREATE INDEX appointment_practitioner ON public.appointment USING btree (tenant_id, practitioner_id, starts_at, id);

CREATE INDEX appointment_time ON public.appointment USING btree (tenant_id, starts_at, id);

CREATE INDEX idempotency_expiry ON public.idempotency USING btree (tenant_id, expires_at);

CREATE INDEX outbox_age ON public.outbox USING btree (created_at);

COMMENT ON INDEX public.outbox_age IS 'Finds what is older than the sweeper''s patience; the table is nearly empty otherwise.';

CREATE UNIQUE INDEX patient_mrn ON public.patient USING btree (tenant_id, mrn_token) WHERE ((mrn_token IS NOT NULL) AND (deleted_at IS NULL));

CREATE INDEX patient_token_patient ON public.patient_token USING btree (tenant_id, patient_id);

CREATE UNIQUE INDEX practitioner_account ON public.practitioner USING btree (tenant_id, account_id) WHERE ((account_id IS NOT NULL) AND (deleted_at IS NULL));

CREATE INDEX service_practitioner_practitioner ON public.service_practitioner USING btree (tenant_id, practitioner_id);

CREATE INDEX session_account ON public.session USING btree (tenant_id, account_id) WHERE (revoked_at IS NULL);

CREATE INDEX session_family ON public.session USING btree (tenant_id, family) WHERE (revoked_at IS NULL);

CREATE UNIQUE INDEX session_refresh ON public.session USING btree (tenant_id, refresh_hash);

CREATE TRIGGER audit_event_rows BEFORE DELETE OR UPDATE ON public.audit_event FOR EACH ROW EXECUTE FUNCTION public.hc_audit_guard();

ALTER TABLE public.audit_event ENABLE ALWAYS TRIGGER audit_event_rows;

CREATE TRIGGER audit_event_truncate BEFORE TRUNCATE ON public.audit_event FOR EACH STATEMENT EXECUTE FUNCTION public.hc_audit_guard();

ALTER TABLE public.audit_event ENABLE ALWAYS TRIGGER audit_event_truncate;

CREATE TRIGGER hc_tenant_guard BEFORE INSERT OR DELETE OR UPDATE ON public.hc_tenant FOR EACH ROW EXECUTE FUNCTION public.hc_tenant_guard();

ALTER TABLE ONLY public.account
    ADD CONSTRAINT account_tenant_id_patient_id_fkey FOREIGN KEY (tenant_id, patient_id) REFERENCES public.patient(tenant_id, id);

ALTER TABLE ONLY public.appointment
    ADD CONSTRAINT appointment_tenant_id_patient_id_fkey FOREIGN KEY (tenant_id, patient_id) REFERENCES public.patient(tenant_id, id);

ALTER TABLE ONLY public.appointment
    ADD CONSTRAINT appointment_tenant_id_practitioner_id_fkey FOREIGN KEY (tenant_id, practitioner_id) REFERENCES public.practitioner(tenant_id, id);

ALTER TABLE ONLY public.booking
    ADD CONSTRAINT booking_tenant_id_appointment_id_fkey FOREIGN KEY (tenant_id, appointment_id) REFERENCES public.appointment(tenant_id, id) ON DELETE CASCADE;

ALTER TABLE ONLY public.patient_token
    ADD CONSTRAINT patient_token_tenant_id_patient_id_fkey FOREIGN KEY (tenant_id, patient_id) REFERENCES public.patient(tenant_id, id) ON DELETE CASCADE;

ALTER TABLE ONLY public.practitioner
    ADD CONSTRAINT practitioner_tenant_id_account_id_fkey FOREIGN KEY (tenant_id, account_id) REFERENCES public.account(tenant_id, id);

ALTER TABLE ONLY public.service_practitioner
    ADD CONSTRAINT service_practitioner_tenant_id_practitioner_id_fkey FOREIGN KEY (tenant_id, practitioner_id) REFERENCES public.practitioner(tenant_id, id);

ALTER TABLE ONLY public.service_practitioner
    ADD CONSTRAINT service_practitioner_tenant_id_service_id_fkey FOREIGN KEY (tenant_id, service_id) REFERENCES public.service(tenant_id, id) ON DELETE CASCADE;

ALTER TABLE ONLY public.session
    ADD CONSTRAINT session_tenant_id_account_id_fkey FOREIGN KEY (tenant_id, account_id) REFERENCES public.account(tenant_id, id);

ALTER TABLE public.account ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.appointment ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.audit_event ENABLE ROW LEVEL SECURITY;

CREATE POLICY backlog ON public.outbox FOR SELECT TO hc_owner USING (true);

ALTER TABLE public.booking ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.cache_tag ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.clinic ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.hc_backfill ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.hc_barrier ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.hc_load ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.hc_tenant ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.idempotency ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.outbox ENABLE ROW LEVEL SECURITY;

CREATE POLICY owner ON public.hc_backfill TO hc_owner USING (true) WITH CHECK (true);

CREATE POLICY owner ON public.hc_barrier TO hc_owner USING (true) WITH CHECK (true);

CREATE POLICY owner ON public.hc_load TO hc_owner USING (true) WITH CHECK (true);

CREATE POLICY owner ON public.hc_tenant TO hc_owner USING (true) WITH CHECK (true);

ALTER TABLE public.patient ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.patient_token ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.practitioner ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.read_model ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.service ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.service_practitioner ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.session ENABLE ROW LEVEL SECURITY;

CREATE POLICY tenant ON public.account USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.appointment USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.audit_event USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.booking USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.cache_tag USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.clinic USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.idempotency USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.outbox USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.patient USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.patient_token USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.practitioner USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.read_model USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.service USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.service_practitioner USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

CREATE POLICY tenant ON public.session USING ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant))) WITH CHECK ((tenant_id = ( SELECT public.hc_ctx_tenant() AS hc_ctx_tenant)));

REVOKE USAGE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO hc_app;
GRANT USAGE ON SCHEMA public TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_audit_guard() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hc_backfill_enter(tenant uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hc_ctx_tenant() FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_ctx_tenant() TO hc_app;
GRANT ALL ON FUNCTION public.hc_ctx_tenant() TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_enter(asked_tenant uuid, asked_epoch bigint, asked_mode text) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_enter(asked_tenant uuid, asked_epoch bigint, asked_mode text) TO hc_app;
GRANT ALL ON FUNCTION public.hc_enter(asked_tenant uuid, asked_epoch bigint, asked_mode text) TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_fence_key(tenant uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_fence_key(tenant uuid) TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_inside(tenant uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_inside(tenant uuid) TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_load_add(tenants uuid[], executions bigint[], pools bigint[], alls bigint[], changes bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_load_add(tenants uuid[], executions bigint[], pools bigint[], alls bigint[], changes bigint[]) TO hc_app;

REVOKE ALL ON FUNCTION public.hc_outbox_backlog(age interval, row_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_outbox_backlog(age interval, row_limit integer) TO hc_app;

REVOKE ALL ON FUNCTION public.hc_purge(tenant uuid, batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_purge(tenant uuid, batch integer) TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_purge_from(tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_purge_from(tenant uuid, batch integer, place text[], OUT removed bigint, OUT next text[]) TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_schema_fingerprint() FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_schema_fingerprint() TO hc_mover;

REVOKE ALL ON FUNCTION public.hc_tenant_guard() FROM PUBLIC;

REVOKE ALL ON FUNCTION public.hc_tenant_tables() FROM PUBLIC;
GRANT ALL ON FUNCTION public.hc_tenant_tables() TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.account TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.account TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.appointment TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.appointment TO hc_mover;

GRANT SELECT,INSERT ON TABLE public.audit_event TO hc_app;
GRANT SELECT,INSERT,DELETE ON TABLE public.audit_event TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.booking TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.booking TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.cache_tag TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.cache_tag TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.clinic TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.clinic TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.hc_barrier TO hc_mover;

GRANT SELECT,DELETE ON TABLE public.hc_load TO hc_mover;

GRANT UPDATE(busiest_us) ON TABLE public.hc_load TO hc_mover;

GRANT SELECT ON TABLE public.hc_schema TO hc_app;
GRANT SELECT ON TABLE public.hc_schema TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.hc_tenant TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.idempotency TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.outbox TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.outbox TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.patient TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.patient TO hc_mover;

GRANT SELECT,INSERT,DELETE ON TABLE public.patient_token TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.patient_token TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.practitioner TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.practitioner TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.read_model TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.read_model TO hc_mover;

GRANT SELECT,INSERT,UPDATE ON TABLE public.service TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.service TO hc_mover;

GRANT SELECT,INSERT,DELETE ON TABLE public.service_practitioner TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.service_practitioner TO hc_mover;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.session TO hc_app;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE public.session TO hc_mover;

ALTER DEFAULT PRIVILEGES FOR ROLE hc_owner REVOKE ALL ON FUNCTIONS  FROM PUBLIC;
