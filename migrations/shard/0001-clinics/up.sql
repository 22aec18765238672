-- The schema of a shard database. Run by hc_owner, in one transaction.
--
-- Every table that has a tenant_id is a tenant table: tenant_id comes first in its primary key, its
-- foreign keys carry tenant_id, and row-level security is forced for everyone, the owner included.
-- The policies read the context that hc_enter() sets: without it no row can be seen or written.

-- Nothing that is created here or later is callable by everyone.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO hc_app, hc_mover;

-- Equality on uuid and smallint inside a GiST exclusion constraint (booking).
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;

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
-- Who is served here

CREATE TABLE hc_tenant (
    tenant_id  uuid        PRIMARY KEY,
    epoch      bigint      NOT NULL CHECK (epoch > 0),
    state      text        NOT NULL CHECK (state IN (
        'absent', 'incoming', 'rw', 'ro', 'draining', 'fenced', 'handover', 'moved', 'suspended')),
    attempt    bigint      NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    moved_to   text        CHECK (moved_to <> ''),
    fence      bigint      NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, fence)
) WITH (fillfactor = 50);
COMMENT ON TABLE hc_tenant IS 'What this shard may do for a clinic. Every transaction checks it in hc_enter(); only the owner and the mover write it.';
COMMENT ON COLUMN hc_tenant.epoch IS 'Placement epoch: grows by one at each commit point of a move, never falls.';
COMMENT ON COLUMN hc_tenant.state IS 'rw: all. ro: reads. draining, fenced: reads, writers wait. handover: all wait. incoming, absent, moved: not here. suspended: nobody.';
COMMENT ON COLUMN hc_tenant.attempt IS 'Number of the move attempt that wrote last; a mover with a smaller number is a zombie and is refused.';
COMMENT ON COLUMN hc_tenant.moved_to IS 'The shard to which the clinic went: a hint for routers with an old map.';
COMMENT ON COLUMN hc_tenant.fence IS 'Grows when the door closes to writers. As part of a key it makes that change conflict with FOR KEY SHARE.';
COMMENT ON COLUMN hc_tenant.changed_at IS 'When the row last changed.';

CREATE TABLE hc_barrier (
    tenant_id uuid        NOT NULL,
    move_id   uuid        NOT NULL,
    seq       bigint      NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, move_id, seq)
);
COMMENT ON TABLE hc_barrier IS 'Rows that a move writes behind the last write of a clinic: once one is on the target, everything before it is.';
COMMENT ON COLUMN hc_barrier.move_id IS 'The move that wrote the row.';
COMMENT ON COLUMN hc_barrier.seq IS 'Number of the barrier within the move.';

-- The key of the advisory lock that writers share and the mover's fence takes exclusively.
-- Only tenants use the one-argument form of advisory locks (pg_locks.objsubid = 1).
CREATE FUNCTION hc_fence_key(tenant uuid) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN pg_catalog.uuid_hash_extended(tenant, 0);

-- The tenant that hc_enter() admitted in this transaction, or NULL.
--
-- The setting reads as NULL before its first use in a session and as '' after a transaction that
-- used it, and could be left over by a session-wide SET: it counts only with the stamp of this
-- transaction. Both the setting and transaction_timestamp() are the leader's in a parallel worker.
CREATE FUNCTION hc_ctx_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE
        WHEN pg_catalog.substr(pg_catalog.current_setting('hc.ctx', true), 38)
            = (pg_catalog.date_part('epoch', pg_catalog.transaction_timestamp()) * 1000000)::bigint::text
        THEN pg_catalog.substr(pg_catalog.current_setting('hc.ctx', true), 1, 36)::uuid
    END;

-- Enters a tenant: the first statement of every transaction that touches tenant tables.
--
-- Modes: 'r' reads only (the transaction becomes read-only), 'a' reads and writes audit rows,
-- 'w' writes. Refusals come before any other effect, so the transaction may be retried elsewhere:
--
--   HC001  the clinic is not here, or the caller's map is old: refresh the map and retry
--   HC002  the clinic is on its way, or the caller's map is ahead of this shard: wait and retry
--   HC003  the clinic is suspended
--   HC004  the clinic is read-only and the mode is 'w'
--   HC005  the transaction has already entered another tenant
--
-- DETAIL is JSON: {"state", "epoch", "movedTo"}.
--
-- A writer in READ COMMITTED first shares the advisory lock and then reads the row with a fresh
-- snapshot: the mover's exclusive lock and its state change cannot slip in between. The lock is
-- tried, never awaited, and fails as soon as the mover waits for it, so writers cannot starve the
-- mover. In the other isolation levels the snapshot may be older than the lock; there FOR KEY SHARE
-- makes PostgreSQL itself refuse a row whose door has closed since (40001). It only does so for
-- changes of a key, hence hc_tenant.fence: a plain change of the state would go unnoticed.
-- A reader takes no lock: what it sees cannot be lost by a move.
--
-- The function runs as the owner without a search_path of its own, which would cost as much as all the
-- rest (4 of 10 microseconds): instead, every table and function is named with its schema, and the
-- roles to which it is granted cannot create an operator anywhere (a test proves it).
CREATE FUNCTION hc_enter(asked_tenant uuid, asked_epoch bigint, asked_mode text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
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

-- The backends that are inside a tenant as writers: what a fence waits for.
CREATE FUNCTION hc_inside(tenant uuid) RETURNS SETOF integer
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, public, pg_temp
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

-- The life of a clinic on a shard. Epoch and attempt never fall; whatever closes the door to writers
-- counts in `fence`. The gate (draining) does not: it must not wait for those who are inside.
CREATE FUNCTION hc_tenant_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
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
CREATE TRIGGER hc_tenant_guard BEFORE INSERT OR UPDATE OR DELETE ON hc_tenant
    FOR EACH ROW EXECUTE FUNCTION hc_tenant_guard();

------------------------------------------------------------------------------------------------
-- The clinic. `sealed` columns are AEAD ciphertexts under the tenant's data key of `key_version`,
-- with the AAD tenant|table|column|row|version; `…_token` columns are blind indexes (HMAC).

CREATE TABLE clinic (
    tenant_id             uuid        PRIMARY KEY,
    name                  text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    time_zone             text        NOT NULL DEFAULT 'UTC' CHECK (length(time_zone) BETWEEN 1 AND 64),
    locale                text        NOT NULL DEFAULT 'en' CHECK (length(locale) BETWEEN 2 AND 35),
    currency              text        NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
    buffer_before_minutes smallint    NOT NULL DEFAULT 0 CHECK (buffer_before_minutes BETWEEN 0 AND 240),
    buffer_after_minutes  smallint    NOT NULL DEFAULT 0 CHECK (buffer_after_minutes BETWEEN 0 AND 240),
    settings              jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    version               bigint      NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE clinic IS 'Settings of a clinic, one row per tenant.';
COMMENT ON COLUMN clinic.time_zone IS 'IANA name: the zone of the clinic''s wall clock.';
COMMENT ON COLUMN clinic.locale IS 'BCP 47 tag.';
COMMENT ON COLUMN clinic.currency IS 'ISO 4217 code.';
COMMENT ON COLUMN clinic.buffer_before_minutes IS 'Kept free before an appointment unless the practitioner says otherwise.';
COMMENT ON COLUMN clinic.buffer_after_minutes IS 'Kept free after an appointment unless the practitioner says otherwise.';
COMMENT ON COLUMN clinic.settings IS 'Further settings, camelCase; no patient data.';
COMMENT ON COLUMN clinic.version IS 'Counts changes; the ETag.';

CREATE TABLE account (
    tenant_id           uuid        NOT NULL,
    id                  uuid        NOT NULL,
    email_token         bigint      NOT NULL,
    sealed              bytea       NOT NULL,
    key_version         integer     NOT NULL CHECK (key_version > 0),
    password_hash       text        NOT NULL,
    password_changed_at timestamptz NOT NULL DEFAULT now(),
    roles               text[]      NOT NULL CHECK (cardinality(roles) BETWEEN 1 AND 16
        AND array_position(roles, NULL) IS NULL),
    status              text        NOT NULL DEFAULT 'active' CHECK (status IN ('invited', 'active', 'disabled')),
    patient_id          uuid,
    failed_logins       integer     NOT NULL DEFAULT 0 CHECK (failed_logins >= 0),
    locked_until        timestamptz,
    last_login_at       timestamptz,
    version             bigint      NOT NULL DEFAULT 1,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    deleted_at          timestamptz,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE account IS 'Those who log in: staff and patients of a clinic.';
COMMENT ON COLUMN account.email_token IS 'Blind index of the normalised e-mail address; unique among the clinic''s living accounts.';
COMMENT ON COLUMN account.sealed IS 'Sealed JSON: email, name, phone.';
COMMENT ON COLUMN account.key_version IS 'Version of the data key that sealed the row.';
COMMENT ON COLUMN account.password_hash IS 'scrypt in PHC form.';
COMMENT ON COLUMN account.roles IS 'Names of the permission matrix: owner, admin, doctor, nurse, receptionist, patient.';
COMMENT ON COLUMN account.patient_id IS 'The patient who this account is, for the role patient.';
COMMENT ON COLUMN account.failed_logins IS 'Wrong passwords since the last login.';
COMMENT ON COLUMN account.locked_until IS 'No password is accepted before this instant.';
CREATE UNIQUE INDEX account_email ON account (tenant_id, email_token) WHERE deleted_at IS NULL;

CREATE TABLE session (
    tenant_id          uuid        NOT NULL,
    id                 uuid        NOT NULL,
    account_id         uuid        NOT NULL,
    family             uuid        NOT NULL,
    refresh_hash       bytea       NOT NULL CHECK (length(refresh_hash) = 32),
    refresh_generation integer     NOT NULL DEFAULT 1 CHECK (refresh_generation > 0),
    previous_hash      bytea       CHECK (length(previous_hash) = 32),
    created_at         timestamptz NOT NULL DEFAULT now(),
    last_used_at       timestamptz NOT NULL DEFAULT now(),
    expires_at         timestamptz NOT NULL,
    revoked_at         timestamptz,
    revoked_reason     text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, account_id) REFERENCES account (tenant_id, id),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
COMMENT ON TABLE session IS 'Logins. A refresh rotates the hash in place; a second use of an old token revokes the family.';
COMMENT ON COLUMN session.family IS 'Sessions that descend from one login; a reused refresh token revokes them all.';
COMMENT ON COLUMN session.refresh_hash IS 'SHA-256 of the refresh token that is valid now.';
COMMENT ON COLUMN session.refresh_generation IS 'How often the token has been rotated, from 1.';
COMMENT ON COLUMN session.previous_hash IS 'SHA-256 of the token before: its use is theft or a lost answer.';
COMMENT ON COLUMN session.revoked_reason IS 'logout, reuse, password, disabled, operator.';
CREATE UNIQUE INDEX session_refresh ON session (tenant_id, refresh_hash);
CREATE INDEX session_account ON session (tenant_id, account_id) WHERE revoked_at IS NULL;
CREATE INDEX session_family ON session (tenant_id, family) WHERE revoked_at IS NULL;

CREATE TABLE practitioner (
    tenant_id             uuid        NOT NULL,
    id                    uuid        NOT NULL,
    account_id            uuid,
    name                  text        NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    specialities          text[]      NOT NULL DEFAULT '{}' CHECK (cardinality(specialities) <= 32
        AND array_position(specialities, NULL) IS NULL),
    buffer_before_minutes smallint    CHECK (buffer_before_minutes BETWEEN 0 AND 240),
    buffer_after_minutes  smallint    CHECK (buffer_after_minutes BETWEEN 0 AND 240),
    lanes                 smallint    NOT NULL DEFAULT 1 CHECK (lanes BETWEEN 1 AND 100),
    active                boolean     NOT NULL DEFAULT true,
    version               bigint      NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    deleted_at            timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, account_id) REFERENCES account (tenant_id, id)
);
COMMENT ON TABLE practitioner IS 'Those with whom appointments are made.';
COMMENT ON COLUMN practitioner.account_id IS 'The account with which the practitioner logs in, if any.';
COMMENT ON COLUMN practitioner.name IS 'Shown to patients: not patient data, in clear.';
COMMENT ON COLUMN practitioner.buffer_before_minutes IS 'NULL: the clinic''s.';
COMMENT ON COLUMN practitioner.buffer_after_minutes IS 'NULL: the clinic''s.';
COMMENT ON COLUMN practitioner.lanes IS 'How many appointments may run at once: lanes 0 to lanes - 1 of booking.';
COMMENT ON COLUMN practitioner.active IS 'False: no new appointments.';
CREATE UNIQUE INDEX practitioner_account ON practitioner (tenant_id, account_id)
    WHERE account_id IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE patient (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL,
    sealed      bytea       NOT NULL,
    key_version integer     NOT NULL CHECK (key_version > 0),
    mrn_token   bigint,
    version     bigint      NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    deleted_at  timestamptz,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE patient IS 'Patients. All that says who they are is in one sealed JSON document.';
COMMENT ON COLUMN patient.sealed IS 'Sealed JSON: givenName, familyName, birthDate, sex, phone, email, mrn, address, ….';
COMMENT ON COLUMN patient.key_version IS 'Version of the data key that sealed the row.';
COMMENT ON COLUMN patient.mrn_token IS 'Blind index of the medical record number: unique among the clinic''s living patients.';
COMMENT ON COLUMN patient.version IS 'Counts changes; the ETag and part of the AAD.';
COMMENT ON COLUMN patient.deleted_at IS 'Soft delete: the row stays for as long as the law asks.';
CREATE UNIQUE INDEX patient_mrn ON patient (tenant_id, mrn_token)
    WHERE mrn_token IS NOT NULL AND deleted_at IS NULL;

ALTER TABLE account ADD FOREIGN KEY (tenant_id, patient_id) REFERENCES patient (tenant_id, id);
CREATE UNIQUE INDEX account_patient ON account (tenant_id, patient_id)
    WHERE patient_id IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE patient_token (
    tenant_id  uuid   NOT NULL,
    token      bigint NOT NULL,
    patient_id uuid   NOT NULL,
    PRIMARY KEY (tenant_id, token, patient_id),
    FOREIGN KEY (tenant_id, patient_id) REFERENCES patient (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE patient_token IS 'Blind index of patients: exact terms and the first letters of names. Equality and frequency leak, content does not.';
COMMENT ON COLUMN patient_token.token IS 'Truncated HMAC of kind and normalised term under the tenant''s index key.';
CREATE INDEX patient_token_patient ON patient_token (tenant_id, patient_id);

CREATE TABLE appointment (
    tenant_id       uuid        NOT NULL,
    id              uuid        NOT NULL,
    patient_id      uuid        NOT NULL,
    practitioner_id uuid        NOT NULL,
    starts_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    zone            text        NOT NULL CHECK (length(zone) BETWEEN 1 AND 64),
    status          text        NOT NULL DEFAULT 'booked' CHECK (status IN (
        'proposed', 'pending', 'booked', 'arrived', 'checked-in', 'fulfilled', 'cancelled', 'noshow',
        'waitlist', 'entered-in-error')),
    started_at      timestamptz,
    sealed          bytea,
    key_version     integer     CHECK (key_version > 0),
    created_by      uuid,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, patient_id) REFERENCES patient (tenant_id, id),
    FOREIGN KEY (tenant_id, practitioner_id) REFERENCES practitioner (tenant_id, id),
    CHECK (starts_at < ends_at AND ends_at <= starts_at + interval '24 hours'),
    CHECK ((sealed IS NULL) = (key_version IS NULL))
);
COMMENT ON TABLE appointment IS 'Appointments. What blocks time is in booking.';
COMMENT ON COLUMN appointment.zone IS 'IANA name of the zone in which the appointment was made.';
COMMENT ON COLUMN appointment.status IS 'FHIR AppointmentStatus.';
COMMENT ON COLUMN appointment.started_at IS 'When the practitioner began: FHIR has no status for it.';
COMMENT ON COLUMN appointment.sealed IS 'Sealed JSON: reason, notes, reason of cancellation.';
COMMENT ON COLUMN appointment.created_by IS 'The account that made it.';
CREATE INDEX appointment_time ON appointment (tenant_id, starts_at, id);
CREATE INDEX appointment_practitioner ON appointment (tenant_id, practitioner_id, starts_at, id);
CREATE INDEX appointment_patient ON appointment (tenant_id, patient_id, starts_at, id);

CREATE TABLE booking (
    tenant_id      uuid      NOT NULL,
    id             uuid      NOT NULL,
    appointment_id uuid      NOT NULL,
    resource_id    uuid      NOT NULL,
    lane           smallint  NOT NULL DEFAULT 0 CHECK (lane >= 0),
    busy           tstzrange NOT NULL CHECK (NOT isempty(busy) AND NOT lower_inf(busy) AND NOT upper_inf(busy)
        AND lower_inc(busy) AND NOT upper_inc(busy)),
    blocking       boolean   NOT NULL DEFAULT true,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, appointment_id, resource_id),
    FOREIGN KEY (tenant_id, appointment_id) REFERENCES appointment (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT booking_slot EXCLUDE USING gist (
        tenant_id WITH =, resource_id WITH =, lane WITH =, busy WITH &&) WHERE (blocking)
);
COMMENT ON TABLE booking IS 'Who or what an appointment keeps busy. booking_slot makes one winner of any number of concurrent bookings (23P01).';
COMMENT ON COLUMN booking.resource_id IS 'A practitioner; later also a room or a device.';
COMMENT ON COLUMN booking.lane IS 'Resources with capacity c have the lanes 0 to c - 1.';
COMMENT ON COLUMN booking.busy IS '[start - buffer before, end + buffer after).';
COMMENT ON COLUMN booking.blocking IS 'False once the appointment is cancelled, missed or entered in error.';

CREATE TABLE idempotency (
    tenant_id   uuid        NOT NULL,
    account_id  uuid        NOT NULL,
    route       text        NOT NULL CHECK (length(route) BETWEEN 1 AND 200),
    key_hash    bytea       NOT NULL CHECK (length(key_hash) = 32),
    fingerprint bytea       NOT NULL CHECK (length(fingerprint) = 32),
    status      smallint    CHECK (status BETWEEN 100 AND 599),
    sealed      bytea,
    key_version integer     CHECK (key_version > 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, account_id, route, key_hash),
    CHECK ((sealed IS NULL) = (key_version IS NULL))
);
COMMENT ON TABLE idempotency IS 'Answers of requests with an Idempotency-Key, written in the request''s own transaction and replayed for 24 hours.';
COMMENT ON COLUMN idempotency.route IS 'Method and pattern of the route.';
COMMENT ON COLUMN idempotency.key_hash IS 'SHA-256 of the key.';
COMMENT ON COLUMN idempotency.fingerprint IS 'SHA-256 of the request: another body under the same key is refused.';
COMMENT ON COLUMN idempotency.status IS 'Status of the stored answer; NULL while the first request runs.';
COMMENT ON COLUMN idempotency.sealed IS 'Sealed answer: header fields and body.';
CREATE INDEX idempotency_expiry ON idempotency (tenant_id, expires_at);

CREATE TABLE audit_event (
    tenant_id   uuid        NOT NULL,
    id          uuid        NOT NULL,
    at          timestamptz NOT NULL,
    actor_id    uuid,
    actor_kind  text        NOT NULL CHECK (actor_kind IN ('account', 'anonymous', 'operator', 'system')),
    action      text        NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
    entity      text        NOT NULL CHECK (length(entity) BETWEEN 1 AND 64),
    entity_id   uuid,
    outcome     text        NOT NULL CHECK (outcome IN ('success', 'denied', 'failure')),
    request_id  text        NOT NULL CHECK (length(request_id) BETWEEN 1 AND 64),
    sealed      bytea,
    key_version integer     CHECK (key_version > 0),
    PRIMARY KEY (tenant_id, id),
    CHECK ((sealed IS NULL) = (key_version IS NULL))
);
COMMENT ON TABLE audit_event IS 'Who did what to whose data. Rows are only ever added.';
COMMENT ON COLUMN audit_event.id IS 'UUIDv7: orders the events in time.';
COMMENT ON COLUMN audit_event.actor_id IS 'The account or operator; NULL when nobody was authenticated.';
COMMENT ON COLUMN audit_event.action IS 'read, search, create, update, delete, login, logout, ….';
COMMENT ON COLUMN audit_event.entity IS 'patient, appointment, account, ….';
COMMENT ON COLUMN audit_event.request_id IS 'The request that caused the event: also in the log and in the answer.';
COMMENT ON COLUMN audit_event.sealed IS 'Sealed JSON: details that may say something about a patient.';

CREATE TABLE outbox (
    tenant_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    topic      text        NOT NULL CHECK (length(topic) BETWEEN 1 AND 64),
    payload    jsonb       NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(payload) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE outbox IS 'What others must hear of a transaction: written in it, relayed after it, then deleted.';
COMMENT ON COLUMN outbox.payload IS 'Ids and versions only: no patient data.';

------------------------------------------------------------------------------------------------
-- Audit rows only grow

-- Refuses every change of an audit row. The one exception is the mover that purges a clinic which
-- is not served here (any more, or yet): the rows are on the shard that serves it.
CREATE FUNCTION hc_audit_guard() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
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
CREATE TRIGGER audit_event_rows BEFORE UPDATE OR DELETE ON audit_event
    FOR EACH ROW EXECUTE FUNCTION hc_audit_guard();
CREATE TRIGGER audit_event_truncate BEFORE TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION hc_audit_guard();
-- Also in sessions that apply a replication stream.
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_rows;
ALTER TABLE audit_event ENABLE ALWAYS TRIGGER audit_event_truncate;

------------------------------------------------------------------------------------------------
-- Row-level security

ALTER TABLE hc_tenant ENABLE ROW LEVEL SECURITY;
ALTER TABLE hc_tenant FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON hc_tenant TO hc_owner USING (true) WITH CHECK (true);
ALTER TABLE hc_barrier ENABLE ROW LEVEL SECURITY;
ALTER TABLE hc_barrier FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON hc_barrier TO hc_owner USING (true) WITH CHECK (true);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'clinic', 'account', 'session', 'practitioner', 'patient', 'patient_token', 'appointment',
        'booking', 'idempotency', 'audit_event', 'outbox']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING (tenant_id = (SELECT hc_ctx_tenant())) '
            'WITH CHECK (tenant_id = (SELECT hc_ctx_tenant()))', name);
    END LOOP;
END
$$;

------------------------------------------------------------------------------------------------
-- Purge

-- The tenant tables without hc_tenant and hc_barrier, children before parents.
CREATE FUNCTION hc_tenant_tables() RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, public, pg_temp
AS $$
    WITH RECURSIVE tenant_table AS (
        SELECT class.oid, class.relname
        FROM pg_class class
        JOIN pg_attribute attribute ON attribute.attrelid = class.oid
            AND attribute.attname = 'tenant_id' AND NOT attribute.attisdropped
        WHERE class.relkind = 'r' AND class.relnamespace = 'public'::regnamespace
            AND class.relname NOT IN ('hc_tenant', 'hc_barrier')
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

-- Deletes up to `batch` rows of a tenant that is not served here, and says how many: repeat until 0.
-- For hc_mover, which sees all rows.
CREATE FUNCTION hc_purge(tenant uuid, batch integer) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    name    text;
    removed bigint := 0;
    total   bigint := 0;
BEGIN
    PERFORM FROM public.hc_tenant
    WHERE tenant_id = tenant AND state IN ('absent', 'incoming', 'moved')
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = 'only a tenant that is not served here can be purged';
    END IF;
    FOR name IN SELECT public.hc_tenant_tables() LOOP
        EXECUTE format(
            'DELETE FROM public.%1$I WHERE tenant_id = $1 AND ctid = ANY (ARRAY('
            'SELECT ctid FROM public.%1$I WHERE tenant_id = $1 LIMIT $2))', name)
        USING tenant, batch - total;
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
        EXIT WHEN total >= batch;
    END LOOP;
    RETURN total;
END
$$;

------------------------------------------------------------------------------------------------
-- Fingerprint

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
-- Rights. TRUNCATE, REFERENCES and TRIGGER are granted to nobody.

GRANT SELECT ON hc_schema TO hc_app, hc_mover;
GRANT SELECT, INSERT, UPDATE ON clinic, account, practitioner, patient, appointment TO hc_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON session, booking, idempotency, outbox TO hc_app;
GRANT SELECT, INSERT, DELETE ON patient_token TO hc_app;
GRANT SELECT, INSERT ON audit_event TO hc_app;
GRANT EXECUTE ON FUNCTION hc_enter(uuid, bigint, text), hc_ctx_tenant() TO hc_app, hc_mover;

GRANT SELECT, INSERT, UPDATE, DELETE ON
    hc_tenant, hc_barrier, clinic, account, session, practitioner, patient, patient_token, appointment,
    booking, idempotency, outbox TO hc_mover;
GRANT SELECT, INSERT, DELETE ON audit_event TO hc_mover;
GRANT EXECUTE ON FUNCTION
    hc_fence_key(uuid), hc_inside(uuid), hc_tenant_tables(), hc_purge(uuid, integer),
    hc_schema_fingerprint() TO hc_mover;
